package store_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/store"
)

// Files that go missing, or are cut, never make a store that opens as if it were new, and the error says what to do.
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
