package keystoretest

import (
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// ErrCrash is what everything returns once the process of a World has crashed.
var ErrCrash = errors.New("crashed")

// World is a process that crashes at a chosen step. Its disk is in memory, and after the crash
// holds what was synced. Steps are what changes the disk or, by Step, the device. It is not safe
// for concurrent use.
type World struct {
	disk    *vfs.MemFS
	steps   int
	crashAt int
}

// NewWorld returns a world with an empty disk and without a crash.
func NewWorld() *World { return &World{disk: vfs.NewCrashableMem()} }

// CrashAt has the process crash before the n-th step from now, counted from 1.
func (w *World) CrashAt(n int) { w.steps, w.crashAt = 0, n }

// Steps returns how many steps there were since CrashAt.
func (w *World) Steps() int { return w.steps }

// Crashed reports whether the process crashed.
func (w *World) Crashed() bool { return w.crashAt > 0 && w.steps >= w.crashAt }

// Restart returns the world of the next process: the disk holds what was synced, or all of it if
// there was no crash.
func (w *World) Restart() *World {
	if !w.Crashed() {
		return &World{disk: w.disk}
	}
	return &World{disk: w.disk.CrashClone(vfs.CrashCloneCfg{})}
}

// Copy returns a world with a copy of what was synced: a stolen disk.
func (w *World) Copy() *World { return &World{disk: w.disk.CrashClone(vfs.CrashCloneCfg{})} }

// Step counts a step, and calls f unless the process crashed before it.
func (w *World) Step(f func() error) error {
	if !w.Crashed() {
		w.steps++
	}
	if w.Crashed() {
		return ErrCrash
	}
	return f()
}

// Read calls f, which changes nothing, unless the process crashed.
func (w *World) Read(f func() error) error {
	if w.Crashed() {
		return ErrCrash
	}
	return f()
}

// FS returns the disk as the process sees it.
func (w *World) FS() statedir.FS { return worldFS{w} }

type worldFS struct{ w *World }

func (f worldFS) MkdirAll(path string) error {
	err := f.w.Step(func() error { return f.w.disk.MkdirAll(path, 0o700) })
	return errors.Join(err, f.SyncDir(""))
}

func (f worldFS) Open(name string) (file io.ReadCloser, err error) {
	err = f.w.Read(func() (err error) {
		file, err = f.w.disk.Open(name)
		return err
	})
	return file, err
}

func (f worldFS) List(path string) (names []string, err error) {
	err = f.w.Read(func() (err error) {
		names, err = f.w.disk.List(path)
		return err
	})
	return names, err
}

func (f worldFS) Rename(from, to string) error {
	return f.w.Step(func() error { return f.w.disk.Rename(from, to) })
}

func (f worldFS) Remove(name string) error {
	return f.w.Step(func() error { return f.w.disk.Remove(name) })
}

func (f worldFS) Create(name string) (statedir.File, error) {
	var file vfs.File
	err := f.w.Step(func() (err error) {
		file, err = f.w.disk.Create(name, vfs.WriteCategoryUnspecified)
		return err
	})
	if err != nil {
		return nil, err
	}
	return worldFile{f.w, file}, nil
}

func (f worldFS) SyncDir(path string) error {
	return f.w.Step(func() error {
		d, err := f.w.disk.OpenDir(path)
		if err != nil {
			return err
		}
		return errors.Join(d.Sync(), d.Close())
	})
}

type worldFile struct {
	w    *World
	file vfs.File
}

func (f worldFile) Write(p []byte) (n int, err error) {
	err = f.w.Step(func() error {
		n, err = f.file.Write(p)
		return err
	})
	return n, err
}

func (f worldFile) Sync() error  { return f.w.Step(f.file.Sync) }
func (f worldFile) Close() error { return f.file.Close() }
