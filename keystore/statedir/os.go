package statedir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/reseal-bft/reseal/internal/files"
	"github.com/reseal-bft/reseal/keystore"
)

// osFS is the operating system's file system. Files and directories are for
// their owner only. Whatever lies in the directory may have been put there by
// somebody else: a link is not followed, a pipe does not make us wait, and a
// directory under the name of a file does not keep us from writing or erasing.
type osFS struct{}

func (osFS) Rename(from, to string) error {
	if info, err := os.Lstat(to); err == nil && info.IsDir() {
		if err := os.RemoveAll(to); err != nil {
			return err
		}
	}
	return os.Rename(from, to)
}

func (osFS) Remove(name string) error {
	if info, err := os.Lstat(name); err == nil && info.IsDir() {
		return os.RemoveAll(name)
	}
	return os.Remove(name)
}

// MkdirAll makes a directory; its entry in the one above is on disk on return.
func (o osFS) MkdirAll(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return o.SyncDir(filepath.Dir(path))
}

// Open opens a regular file.
func (osFS) Open(name string) (io.ReadCloser, error) {
	f, err := openFile(name, os.O_RDONLY)
	if err != nil {
		return nil, err // not a typed nil
	}
	return f, nil
}

// openFile opens a regular file that exists.
func openFile(name string, flag int) (*os.File, error) {
	f, err := files.OpenHere(name, flag)
	if errors.Is(err, files.ErrNotRegular) {
		err = fmt.Errorf("%w: %w", keystore.ErrCorrupt, err)
	}
	return f, err
}

// Create makes a new file in place of the one of that name.
func (o osFS) Create(name string) (File, error) {
	if err := o.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Overwrite fills a file with zeros through to the disk, as far as a file of a
// keystore can be long. What is no file is left as it is.
func (osFS) Overwrite(name string) error {
	f, err := openFile(name, os.O_WRONLY)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, keystore.ErrCorrupt) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.Write(make([]byte, min(info.Size(), maxFile)))
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (osFS) List(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (osFS) SyncDir(path string) error { return files.SyncDir(path) }
