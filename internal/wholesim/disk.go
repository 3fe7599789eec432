package wholesim

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// disk is a machine's disk: a file system in memory that can be cut at any sync, fill up, be put back
// to what it was, and lose bits and files.
type disk struct {
	mu   sync.Mutex
	fs   *vfs.MemFS
	full fullness
	// cutAfter counts down the syncs to a power cut; 0: none is coming.
	cutAfter int
	cut      func()
	rng      *rand.Rand
}

// fullness says how a disk is full.
type fullness int

const (
	roomy  fullness = iota
	nearly          // the system reports little space: the store refuses
	full            // every write fails
)

func newDisk(seed uint64) *disk {
	return &disk{fs: vfs.NewCrashableMem(), rng: rand.New(rand.NewPCG(seed, 1))}
}

// mount returns the file system for one process.
func (d *disk) mount() vfs.FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &mounted{errorfs.Wrap(d.fs, errorfs.InjectorFunc(d.before)), d}
}

// before is asked before every operation of any process.
func (d *disk) before(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	d.mu.Lock()
	isFull := d.full == full
	var cut func()
	if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData {
		if d.cutAfter > 0 {
			if d.cutAfter--; d.cutAfter == 0 {
				cut = d.cut
			}
		}
	}
	d.mu.Unlock()
	if cut != nil {
		cut()
	}
	if isFull && (op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
		return syscall.ENOSPC
	}
	return nil
}

// crash makes the disk what a crash leaves of it: all that was synced, and some of the rest.
func (d *disk) crash(keptPercent int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutAfter = 0
	d.fs = d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keptPercent, RNG: d.rng})
}

// copy returns what is on the disk now.
func (d *disk) copy() *vfs.MemFS {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: d.rng})
}

// storeDir is where a node has its store; the mark lies beside it.
const (
	storeDir = "store"
	markFile = storeDir + ".mark"
)

// putBack replaces what is on the disk, all of it or the store alone: then the mark stays.
func (d *disk) putBack(fs *vfs.MemFS, storeAlone bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.fs
	d.fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: d.rng})
	if !storeAlone {
		return nil
	}
	from, err := before.Open(markFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it has not been written yet
	} else if err != nil {
		return err
	}
	defer from.Close()
	to, err := d.fs.Create(markFile, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return errors.Join(to.Sync(), to.Close(), syncDirectory(d.fs, "/"))
}

// syncDirectory makes what happened to the names in a directory survive a crash.
func syncDirectory(fs vfs.FS, name string) error {
	directory, err := fs.OpenDir(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}

// replace puts an empty disk in the old one's place.
func (d *disk) replace() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fs = vfs.NewCrashableMem()
}

// flip flips a bit in one of the store's files.
func (d *disk) flip(which int64) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	names, err := d.storeFiles()
	if err != nil || len(names) == 0 {
		return "nothing, as there is no store", err
	}
	name := names[which%int64(len(names))]
	file, err := d.fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return name, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return name, err
	}
	at, bit := which/int64(len(names))%info.Size(), byte(1)<<(which%8)
	var one [1]byte
	if _, err := file.ReadAt(one[:], at); err != nil {
		return name, err
	}
	one[0] ^= bit
	if _, err := file.WriteAt(one[:], at); err != nil {
		return name, err
	}
	return fmt.Sprintf("byte %d of %d of %s", at, info.Size(), name), file.Sync()
}

// loseLogs removes the logs of the store's database: what it has written last.
func (d *disk) loseLogs() (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	names, err := d.storeFiles()
	lost := slices.DeleteFunc(names, func(name string) bool { return filepath.Ext(name) != ".log" })
	for _, name := range lost {
		err = errors.Join(err, d.fs.Remove(name), syncDirectory(d.fs, filepath.Dir(name)))
	}
	return fmt.Sprintf("%v are lost", lost), err
}

// storeFiles are the files in the store's directory that hold something. The caller holds the lock.
func (d *disk) storeFiles() ([]string, error) { return filesIn(d.fs, storeDir) }

func filesIn(fs vfs.FS, directory string) (files []string, err error) {
	names, err := fs.List(directory)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	slices.Sort(names)
	for _, name := range names {
		path := filepath.Join(directory, name)
		info, failed := fs.Stat(path)
		switch {
		case failed != nil:
			err = errors.Join(err, failed)
		case info.IsDir():
			inside, failed := filesIn(fs, path)
			files, err = append(files, inside...), errors.Join(err, failed)
		case info.Size() > 0:
			files = append(files, path)
		}
	}
	return files, err
}

// moveAway removes the store, and leaves the mark beside it.
func (d *disk) moveAway() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(d.fs.RemoveAll(storeDir), syncDirectory(d.fs, "/"))
}

func (d *disk) fill(how fullness) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = how
}

// arm cuts the power at a sync to come.
func (d *disk) arm(syncs int, cut func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutAfter, d.cut = syncs, cut
}

// mounted is a disk's file system with a usage that can be asked for.
type mounted struct {
	*errorfs.FS
	d *disk
}

func (m *mounted) GetDiskUsage(string) (vfs.DiskUsage, error) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	usage := vfs.DiskUsage{AvailBytes: 10 << 30, TotalBytes: 20 << 30, UsedBytes: 10 << 30}
	if m.d.full != roomy {
		usage.AvailBytes = 1 << 20
	}
	return usage, nil
}
