package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reseal-bft/reseal/internal/files"
	"github.com/reseal-bft/reseal/internal/files/dbfs"
)

const (
	markerName = "RESEAL"
	lockName   = "LOCK"
	dbName     = "db" // the database's directory
	tempSuffix = ".tmp"

	markerFormat = "reseal store 1\ncluster %s\n"
	markerLimit  = 1 << 10 // bytes
)

var (
	anyMarker  = regexp.MustCompile("^reseal store 1\ncluster [0-9a-f]{64}\n$")
	anyVersion = regexp.MustCompile("^[0-9]{1,9}\n")
)

// claim makes sure that the directory is a store of this cluster, or becomes one, and locks it.
func (s *Store) claim() error {
	names, err := s.fs.List(s.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := s.makeDir(s.dir); err != nil {
			return explain(s.dir, err)
		}
	case err != nil:
		return explain(s.dir, err)
	}
	if !slices.Contains(names, markerName) {
		if slices.Contains(names, dbName) {
			return s.corrupt("the file " + markerName + " is missing")
		}
		// A first start that was cut short leaves nothing but these.
		rest := slices.DeleteFunc(names, func(n string) bool { return n == lockName || n == markerName+tempSuffix || n == "lost+found" })
		if len(rest) > 0 {
			return fmt.Errorf("%w: %s: name an empty directory, or one that does not exist yet", ErrNotEmpty, s.dir)
		}
	}
	if s.lock, err = s.fs.Lock(s.path(lockName)); err != nil {
		if errors.Is(err, dbfs.ErrLocked) {
			return fmt.Errorf("%w: %s: stop the other process, or name another directory: %w", ErrLocked, s.dir, err)
		}
		if errors.Is(err, files.ErrNotRegular) {
			return fmt.Errorf("%w: remove it and start again", err)
		}
		return explain(s.path(lockName), err)
	}
	if err := s.checkMarker(); err != nil {
		return errors.Join(err, s.lock.Close())
	}
	return nil
}

// makeDir makes a directory and those above it that are missing, so that they are there after a crash.
func (s *Store) makeDir(dir string) error {
	_, err := s.fs.Stat(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := s.fs.PathDir(dir)
	if parent == dir {
		return err
	}
	if err := s.makeDir(parent); err != nil {
		return err
	}
	if err := s.fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return s.syncDir(parent)
}

// checkMarker compares the marker file with this cluster's, or writes it.
func (s *Store) checkMarker() error {
	want := fmt.Sprintf(markerFormat, hex.EncodeToString(s.cluster[:]))
	got, err := s.readMarker()
	if errors.Is(err, fs.ErrNotExist) {
		return s.writeFile(markerName, func(w io.Writer) error {
			_, err := io.WriteString(w, want)
			return err
		})
	}
	if errors.Is(err, files.ErrNotRegular) {
		return s.corrupt(err.Error())
	}
	if err != nil {
		return explain(s.dir, err)
	}
	if got == want {
		return nil
	}
	switch version, made := strings.CutPrefix(got, "reseal store "); {
	case made && anyMarker.MatchString(got):
		return fmt.Errorf("%w: %s says that %s belongs to another cluster: name this cluster's directory; if it is the one, the file is damaged: move the directory away "+
			"(not %s beside it), and start again", ErrForeign, s.path(markerName), s.dir, filepath.Base(s.markPath()))
	case made && anyVersion.MatchString(version) && !strings.HasPrefix(version, "1\n"):
		return fmt.Errorf("%w: %s was made by another version (%.40q): use that version, or name another directory", ErrForeign, s.dir, got)
	}
	return s.corrupt("the file " + markerName + " is not as it was written")
}

func (s *Store) readMarker() (string, error) {
	data, err := s.readSmall(s.path(markerName))
	return string(data), err
}

// readSmall reads a file of markerLimit bytes at most.
func (s *Store) readSmall(path string) ([]byte, error) {
	f, err := s.fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, markerLimit))
}

// markPath is a file beside the store's directory: whoever puts the directory back to an earlier
// time, or moves it away, leaves it there.
func (s *Store) markPath() string { return filepath.Clean(s.dir) + ".mark" }

// ReadMark returns what [Store.WriteMark] wrote last, whatever has become of the store since; nil
// when there is nothing. It is 1 KiB at most.
func (s *Store) ReadMark() ([]byte, error) {
	data, err := s.readSmall(s.markPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, explain(s.markPath(), err)
}

// WriteMark keeps a few bytes outside the store, beside its directory: after a crash the old or the
// new are there.
func (s *Store) WriteMark(data []byte) error {
	return s.writePath(s.markPath(), func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// writeFile writes a file of the store's directory so that after a crash it is there in whole or
// not at all.
func (s *Store) writeFile(name string, write func(io.Writer) error) error {
	return s.writePath(s.path(name), write)
}

func (s *Store) writePath(path string, write func(io.Writer) error) (err error) {
	temp := path + tempSuffix
	f, err := s.fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return explain(s.dir, err)
	}
	if err = errors.Join(write(f), f.Sync(), f.Close()); err == nil {
		err = s.fs.Rename(temp, path)
	}
	if err != nil {
		return explain(path, errors.Join(err, s.fs.Remove(temp)))
	}
	return explain(path, s.syncDir(s.fs.PathDir(path)))
}

func (s *Store) syncDir(path string) error {
	d, err := s.fs.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
