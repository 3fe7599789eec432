package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/store"
)

// Files that go missing, or are cut, never make a store that opens as if it were new, and the error
// says what to do.
func TestDamagedDirectories(t *testing.T) {
	remove := func(pattern string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			files, err := filepath.Glob(filepath.Join(dir, pattern))
			require.NoError(t, err)
			require.NotEmpty(t, files, pattern)
			for _, file := range files {
				require.NoError(t, os.Remove(file))
			}
		}
	}
	cut := func(to int64) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { require.NoError(t, os.Truncate(filepath.Join(dir, "RESEAL"), to)) }
	}
	for name, damage := range map[string]func(t *testing.T, dir string){
		"no MANIFEST":              remove("db/MANIFEST-*"),
		"no table files":           remove("db/*.sst"),
		"an empty MANIFEST":        func(t *testing.T, dir string) { emptyAll(t, dir, "db/MANIFEST-*") },
		"an empty marker":          cut(0),
		"a marker cut in a line":   cut(9),
		"a marker without its end": cut(40),
		"no marker":                remove("RESEAL"),
		"a pipe for a marker":      func(t *testing.T, dir string) { pipe(t, filepath.Join(dir, "RESEAL")) },
		"a marker with a bit less": func(t *testing.T, dir string) {
			path := filepath.Join(dir, "RESEAL")
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			data[2] ^= 0x10
			require.NoError(t, os.WriteFile(path, data, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			s, err := store.Open(dir, bft.ClusterID{1}, store.Options{})
			require.NoError(t, err)
			for i := range 3 {
				b := s.NewBatch()
				require.NoError(t, b.PutMeta("name", make([]byte, 100+i)))
				require.NoError(t, b.Commit(true))
			}
			require.NoError(t, s.Flush())
			require.NoError(t, s.WriteMark([]byte("mark")))
			require.NoError(t, s.Close())
			damage(t, dir)
			for range 2 { // an attempt makes nothing better or worse
				_, err = store.Open(dir, bft.ClusterID{1}, store.Options{})
				require.ErrorIs(t, err, store.ErrCorrupt)
				require.ErrorContains(t, err, "move the directory away (not store.mark beside it)")
			}
		})
	}
}

// Whatever becomes of a file of the database, it opens and has everything, or there is an error
// that says what to do, at the latest at the next write: no panic, and nothing waits for ever. A
// log that is cut is the mark's business.
func TestEveryFileOfTheDatabaseDamaged(t *testing.T) {
	const values = 60
	whole := filepath.Join(t.TempDir(), "store")
	s, err := store.Open(whole, bft.ClusterID{1}, store.Options{})
	require.NoError(t, err)
	for i := range values {
		b := s.NewBatch()
		require.NoError(t, b.PutMeta(fmt.Sprint("name", i), bytes.Repeat([]byte{byte(i)}, 100*i)))
		require.NoError(t, b.Commit(true))
	}
	require.NoError(t, s.Flush())
	require.NoError(t, s.Close())

	flip := func(at func(size int) int) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			if len(data) > 0 {
				data[at(len(data))] ^= 0x10
			}
			require.NoError(t, os.WriteFile(path, data, 0o600))
		}
	}
	for name, damage := range map[string]func(t *testing.T, path string){
		"empty":         func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 0)) },
		"gone":          func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) },
		"flipped":       flip(func(size int) int { return size / 2 }),
		"its end":       flip(func(size int) int { return size - 1 }),
		"its beginning": flip(func(int) int { return 0 }),
		"a pipe":        pipe,
		"a directory": func(t *testing.T, path string) {
			require.NoError(t, errors.Join(os.Remove(path), os.Mkdir(path, 0o700)))
		},
	} {
		for _, pattern := range []string{"*.sst", "*.blob", "MANIFEST-*", "marker.manifest.*", "marker.format-version.*", "OPTIONS-*", "*.log"} {
			t.Run(pattern+" "+name, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "store")
				require.NoError(t, os.CopyFS(dir, os.DirFS(whole)))
				files, err := filepath.Glob(filepath.Join(dir, "db", pattern))
				require.NoError(t, err)
				require.NotEmpty(t, files)
				damage(t, files[len(files)-1])
				if err := useAll(dir, values); err != nil {
					require.ErrorIs(t, err, store.ErrCorrupt)
					require.ErrorContains(t, err, "move the directory away (not store.mark beside it)")
				}
			})
		}
	}
}

// useAll opens a store, reads all values and writes one.
func useAll(dir string, values int) error {
	s, err := store.Open(dir, bft.ClusterID{1}, store.Options{})
	if err != nil {
		return err
	}
	var failed error
	for i := range values {
		value, err := s.Meta(fmt.Sprint("name", i))
		if err == nil && len(value) != 100*i {
			err = fmt.Errorf("value %d is lost", i)
		}
		failed = errors.Join(failed, err)
	}
	b := s.NewBatch()
	failed = errors.Join(failed, b.PutMeta("name", nil), b.Commit(true))
	return errors.Join(failed, s.Close())
}

// pipe puts a pipe in the place of a file: who opens that for reading waits for ever.
func pipe(t *testing.T, path string) {
	require.NoError(t, errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)))
}

func emptyAll(t *testing.T, dir, pattern string) {
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		require.NoError(t, os.Truncate(file, 0))
	}
}

// The mark is there whatever becomes of the store.
func TestTheMarkOutlivesTheStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store") + "/"
	s, err := store.Open(dir, bft.ClusterID{1}, store.Options{})
	require.NoError(t, err)
	mark, err := s.ReadMark()
	require.NoError(t, err)
	require.Empty(t, mark)
	require.NoError(t, s.WriteMark([]byte("one")))
	require.NoError(t, s.WriteMark([]byte("two")))
	require.NoError(t, s.Close())
	require.NoError(t, os.RemoveAll(dir))
	s, err = store.Open(dir, bft.ClusterID{1}, store.Options{})
	require.NoError(t, err)
	mark, err = s.ReadMark()
	require.NoError(t, err)
	require.Equal(t, "two", string(mark))
	require.NoError(t, s.Close())
}
