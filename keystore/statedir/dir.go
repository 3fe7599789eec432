package statedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/reseal-bft/reseal/keystore"
)

const (
	maxFile   = 64 << 10 // bounds what is read from a file, in bytes
	tmpSuffix = ".tmp"   // of a file that is being written
)

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
	tmp := d.file(name + tmpSuffix)
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

// erase overwrites a file in place, where the file system can, and deletes it, whatever it has
// become: who can write the directory could otherwise keep a secret there by damaging its file.
func (d *Dir) erase(name string) error {
	if o, ok := d.fs.(interface{ Overwrite(name string) error }); ok {
		if err := o.Overwrite(d.file(name)); err != nil {
			return fmt.Errorf("overwrite %s: %w", d.file(name), err)
		}
	}
	return d.Remove(name)
}

// Read returns a file's content; fs.ErrNotExist when it is not there, ErrCorrupt when it is larger
// than any file that a keystore writes, or no file at all but a link, a pipe or a directory.
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

// ReadJSON reads what WriteJSON wrote; unknown fields, and what follows, are an error.
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
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w: something follows the JSON value", d.file(name), keystore.ErrCorrupt)
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
		if strings.HasPrefix(name, prefix) && !strings.HasSuffix(name, tmpSuffix) {
			names = append(names, name)
		}
	}
	return names, nil
}

// temporary lists what a crash left of files with a prefix that were being written.
func (d *Dir) temporary(prefix string) ([]string, error) {
	all, err := d.fs.List(d.path)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", d.path, err)
	}
	return slices.DeleteFunc(all, func(name string) bool {
		return !strings.HasPrefix(name, prefix) || !strings.HasSuffix(name, tmpSuffix)
	}), nil
}

func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }
