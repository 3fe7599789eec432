package dbfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reseal-bft/reseal/internal/files"
)

// ErrLocked: this or another process holds the lock.
var ErrLocked = errors.New("another process uses it")

// Regular is the file system fsys, the machine's if that is nil, without what is no regular file:
// to open it fails with [files.ErrNotRegular]. The lock of a file that somebody holds fails with
// [ErrLocked].
func Regular(fsys vfs.FS) vfs.FS {
	if fsys == nil {
		fsys = vfs.Default
	}
	if _, is := fsys.(regular); is {
		return fsys
	}
	return regular{fsys}
}

type regular struct{ vfs.FS }

func (r regular) Unwrap() vfs.FS { return r.FS }

// check lets pass what is not there, so that the file system says so.
func (r regular) check(name string) error {
	info, err := r.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return files.Check(name, info)
}

// List and OpenDir open what they are given, too.
func (r regular) List(dir string) ([]string, error) {
	if err := r.checkDir(dir); err != nil {
		return nil, err
	}
	return r.FS.List(dir)
}

func (r regular) OpenDir(name string) (vfs.File, error) {
	if err := r.checkDir(name); err != nil {
		return nil, err
	}
	return r.FS.OpenDir(name)
}

func (r regular) checkDir(name string) error {
	info, err := r.Stat(name)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s: %w", name, syscall.ENOTDIR)
	}
	return err
}

func (r regular) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := r.check(name); err != nil {
		return nil, err
	}
	return r.FS.Open(name, opts...)
}

func (r regular) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := r.check(name); err != nil {
		return nil, err
	}
	return r.FS.OpenReadWrite(name, category, opts...)
}

func (r regular) ReuseForWrite(oldName, newName string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := r.check(oldName); err != nil {
		return nil, err
	}
	return r.FS.ReuseForWrite(oldName, newName, category)
}

func (r regular) Lock(name string) (io.Closer, error) {
	if err := r.check(name); err != nil {
		return nil, err
	}
	lock, err := r.FS.Lock(name)
	// Of a lock that this process holds the database's package says so in words only.
	if errors.Is(err, syscall.EAGAIN) || err != nil && strings.Contains(err.Error(), "lock held") {
		return nil, fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return lock, err
}
