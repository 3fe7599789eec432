package statedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/reseal-bft/reseal/keystore"
)

// maxFile bounds what is read from a file, in bytes.
const maxFile = 64 << 10

// Dir is a directory of small files. Its methods are not safe for concurrent
// use on the same names.
type Dir struct {
	fs   FS
	path string
}

// FS is what a Dir needs of a file system; tests give one that can crash.
type FS interface {
	MkdirAll(path string) error
	Create(name string) (File, error)
	Open(name string) (io.ReadCloser, error)
	Rename(from, to string) error
	Remove(name string) error
	List(path string) ([]string, error)
	SyncDir(path string) error
}

// File is a file that is being written.
type File interface {
	io.WriteCloser
	Sync() error
}

// New returns the directory at path on the operating system's file system. It
// does not touch it.
func New(path string) (*Dir, error) { return NewFS(osFS{}, path) }

// NewFS is New on another file system.
func NewFS(fsys FS, path string) (*Dir, error) {
	if path == "" {
		return nil, errors.New("a keystore needs a directory for what it seals (--dir)")
	}
	return &Dir{fs: fsys, path: path}, nil
}

// Path returns where the directory is.
func (d *Dir) Path() string { return d.path }

// Make creates the directory, for its owner only.
func (d *Dir) Make() error { return d.fs.MkdirAll(d.path) }

// Write replaces a file as a whole. On return it is on disk.
func (d *Dir) Write(name string, data []byte) error {
	tmp := d.file(name + ".tmp")
	if err := d.writeSynced(tmp, data); err != nil {
		return fmt.Errorf("write %s: %w", d.file(name), err)
	}
	if err := d.fs.Rename(tmp, d.file(name)); err != nil {
		return fmt.Errorf("write %s: %w", d.file(name), err)
	}
	if err := d.fs.SyncDir(d.path); err != nil {
		return fmt.Errorf("sync %s: %w", d.path, err)
	}
	return nil
}

// writeSynced writes a new file through to the disk.
func (d *Dir) writeSynced(name string, data []byte) error {
	f, err := d.fs.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Read returns a file's content; fs.ErrNotExist when it is not there.
func (d *Dir) Read(name string) ([]byte, error) {
	f, err := d.fs.Open(d.file(name))
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", d.file(name), err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read %s: %w: larger than %d bytes", d.file(name), keystore.ErrCorrupt, maxFile)
	}
	return data, nil
}

// WriteJSON writes v as JSON, as Write does.
func (d *Dir) WriteJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", d.file(name), err)
	}
	return d.Write(name, append(data, '\n'))
}

// ReadJSON reads what WriteJSON wrote; unknown fields are an error.
func (d *Dir) ReadJSON(name string, v any) error {
	data, err := d.Read(name)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%s: %w: %w", d.file(name), keystore.ErrCorrupt, err)
	}
	return nil
}

// Remove deletes files; that they are gone is on disk on return.
func (d *Dir) Remove(names ...string) error {
	for _, name := range names {
		if err := d.fs.Remove(d.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", d.file(name), err)
		}
	}
	if err := d.fs.SyncDir(d.path); err != nil {
		return fmt.Errorf("sync %s: %w", d.path, err)
	}
	return nil
}

// Names lists the files with a prefix, without temporary ones.
func (d *Dir) Names(prefix string) ([]string, error) {
	all, err := d.fs.List(d.path)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", d.path, err)
	}
	var names []string
	for _, name := range all {
		if strings.HasPrefix(name, prefix) && !strings.HasSuffix(name, ".tmp") {
			names = append(names, name)
		}
	}
	return names, nil
}

func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }

// osFS is the operating system's file system. Files and directories are for
// their owner only.
type osFS struct{}

func (osFS) MkdirAll(path string) error              { return os.MkdirAll(path, 0o700) }
func (osFS) Open(name string) (io.ReadCloser, error) { return os.Open(name) }
func (osFS) Rename(from, to string) error            { return os.Rename(from, to) }
func (osFS) Remove(name string) error                { return os.Remove(name) }

func (osFS) Create(name string) (File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
}

func (osFS) List(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (osFS) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
