package store

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/blob"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reseal-bft/reseal/internal/files"
)

// damaged hears of files whose content is not what was written. The reader is told too; but the
// database may have met it in the background, where nobody is, and cannot go on with the file. So
// the store fails, which its owner sees at the next write.
func (s *Store) damaged(info pebble.DataCorruptionInfo) {
	s.opts.Log.Error("the database is damaged", "file", info.Path, "error", info.Details)
	_ = s.fail(s.corrupt(filepath.Base(info.Path) + " (" + info.Details.Error() + ")"))
}

// missing turns the panic of a read (Pebble 2.1) at a file of values that is not there into an
// error. Other panics go on.
func (s *Store) missing(err *error) {
	switch p := recover().(type) {
	case nil:
	case string:
		if !strings.HasPrefix(p, "unknown metadata type") {
			panic(p)
		}
		*err = s.fail(s.corrupt("a file of values is missing"))
	default:
		panic(p)
	}
}

// guardedFS calls what is no regular file damage, and looks at the end of a file of values before
// the database opens it, which panics (Pebble 2.1) when that is damaged.
type guardedFS struct {
	vfs.FS
	s *Store
}

func (g guardedFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.Open(name, opts...)
	if errors.Is(err, files.ErrNotRegular) {
		return nil, g.s.fail(g.s.corrupt(err.Error()))
	}
	if err != nil || !strings.HasSuffix(name, ".blob") {
		return f, err
	}
	if damage := checkBlob(f); damage != nil {
		return nil, errors.Join(g.s.fail(g.s.corrupt(filepath.Base(name)+" ("+damage.Error()+")")), f.Close())
	}
	return f, nil
}

// checkBlob reads the end of a file of values. It does not close the file.
func checkBlob(f vfs.File) error {
	readable, err := sstable.NewSimpleReadable(f)
	if err == nil {
		_, err = blob.NewFileReader(context.Background(), readable, blob.FileReaderOptions{})
	}
	return err
}
