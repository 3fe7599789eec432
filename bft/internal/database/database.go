package database

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/blob"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reseal-bft/reseal/internal/files"
)

// Guard returns a file system that calls what is no regular file damage, and looks at the end of a
// file of values before the database opens it. What damaged makes of the cause is the error of the
// database then.
func Guard(fs vfs.FS, damaged func(file string, cause error) error) vfs.FS {
	return guarded{fs, damaged}
}

type guarded struct {
	vfs.FS
	damaged func(file string, cause error) error
}

func (g guarded) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.Open(name, opts...)
	if errors.Is(err, files.ErrNotRegular) {
		return nil, g.damaged(name, err)
	}
	if err != nil || !strings.HasSuffix(name, ".blob") {
		return f, err
	}
	if damage := check(f); damage != nil {
		return nil, errors.Join(g.damaged(name, damage), f.Close())
	}
	return f, nil
}

// check reads the end of a file of values. It does not close the file.
func check(f vfs.File) error {
	readable, err := sstable.NewSimpleReadable(f)
	if err == nil {
		_, err = blob.NewFileReader(context.Background(), readable, blob.FileReaderOptions{})
	}
	return err
}

// Refused says what to do when the operating system lets nobody, or not this user, write to a
// directory; nil when an error says something else.
func Refused(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s: the file system is read-only: remount it, and look for a failing disk: %w", dir, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: run as the user that owns the directory: %w", dir, err)
	}
	return nil
}

// Try calls what opens, copies or closes a database, and returns the error with which that panics
// where a directory cannot be synced.
func Try(call func() error) (err error) {
	defer func() {
		p := recover()
		cause, ok := p.(error)
		if _, bug := p.(runtime.Error); bug || p != nil && !ok {
			panic(p)
		}
		err = errors.Join(err, cause)
	}()
	return call()
}

// Recover, deferred by whoever reads, turns the panic at a file of values that is not there into
// what missing returns. Other panics go on.
func Recover(err *error, missing func() error) {
	switch p := recover().(type) {
	case nil:
	case string:
		if !strings.HasPrefix(p, "unknown metadata type") {
			panic(p)
		}
		*err = missing()
	default:
		panic(p)
	}
}
