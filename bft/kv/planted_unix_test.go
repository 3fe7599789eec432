//go:build unix

package kv

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/merkle"
)

// TestPlantedKept has somebody put things where states are kept, while the replica is down. It starts
// all the same, at once, and answers right; nothing is taken that the disk does not have, and what is
// outside of the directory stays as it is.
func TestPlantedKept(t *testing.T) {
	type scene struct {
		dir     string // of the store
		kept    string // the state in it
		outside string // a directory of somebody else
		root    bft.Digest
	}
	sparse := func(t *testing.T, path string) {
		f, err := os.Create(path)
		require.NoError(t, err)
		require.NoError(t, f.Truncate(1<<40))
		require.NoError(t, f.Close())
	}
	replaced := func(t *testing.T, path string, by func(path string) error) {
		require.NoError(t, os.RemoveAll(path))
		require.NoError(t, by(path))
	}
	only := func(t *testing.T, pattern string) string {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, found)
		return found[0]
	}
	pipe := func(path string) error { return syscall.Mkfifo(path, 0o600) }
	link := func(to string) func(string) error { return func(path string) error { return os.Symlink(to, path) } }
	named := func(s scene, number int) string { return filepath.Join(s.dir, kept{number, s.root}.name()) }
	plants := map[string]func(t *testing.T, s scene){
		"a pipe in place of it": func(t *testing.T, s scene) { replaced(t, s.kept, pipe) },
		"a file in place of it": func(t *testing.T, s scene) {
			replaced(t, s.kept, func(p string) error { return os.WriteFile(p, nil, 0o600) })
		},
		"a link to nothing": func(t *testing.T, s scene) { replaced(t, s.kept, link("nothing")) },
		"a link to itself":  func(t *testing.T, s scene) { replaced(t, s.kept, link(s.kept)) },
		"a link out":        func(t *testing.T, s scene) { replaced(t, s.kept, link(s.outside)) },
		"moved out, and linked": func(t *testing.T, s scene) {
			require.NoError(t, os.Rename(s.kept, s.outside+"/x"))
			require.NoError(t, os.Symlink(s.outside+"/x", s.kept))
		},
		"a pipe as a table":          func(t *testing.T, s scene) { replaced(t, only(t, s.kept+"/*.sst"), pipe) },
		"a pipe as the list":         func(t *testing.T, s scene) { replaced(t, only(t, s.kept+"/MANIFEST*"), pipe) },
		"zeros for ever as the list": func(t *testing.T, s scene) { replaced(t, only(t, s.kept+"/MANIFEST*"), link("/dev/zero")) },
		"the list is of a terabyte":  func(t *testing.T, s scene) { sparse(t, only(t, s.kept+"/MANIFEST*")) },
		"the options are":            func(t *testing.T, s scene) { sparse(t, only(t, s.kept+"/OPTIONS*")) },
		"a log is":                   func(t *testing.T, s scene) { sparse(t, s.kept+"/000999.log") },
		"a table is":                 func(t *testing.T, s scene) { sparse(t, s.kept+"/000999.sst") },
		"a table is another's file":  func(t *testing.T, s scene) { require.NoError(t, os.Link(s.outside+"/file", s.kept+"/000998.sst")) },
		"a log is another's file":    func(t *testing.T, s scene) { require.NoError(t, os.Link(s.outside+"/file", s.kept+"/000998.log")) },
		"all are another's file": func(t *testing.T, s scene) {
			names, err := filepath.Glob(s.kept + "/*")
			require.NoError(t, err)
			for _, name := range names {
				replaced(t, name, func(p string) error { return os.Link(s.outside+"/file", p) })
			}
		},
		"a directory in it": func(t *testing.T, s scene) { require.NoError(t, os.MkdirAll(s.kept+"/sub/sub", 0o700)) },
		"the last number":   func(t *testing.T, s scene) { require.NoError(t, os.Mkdir(named(s, math.MaxInt), 0o700)) },
		"one below it":      func(t *testing.T, s scene) { require.NoError(t, os.Mkdir(named(s, math.MaxInt-1), 0o700)) },
		"the last of all":   func(t *testing.T, s scene) { require.NoError(t, os.Mkdir(named(s, mostNumber), 0o700)) },
		"before the last":   func(t *testing.T, s scene) { require.NoError(t, os.Mkdir(named(s, mostNumber-1), 0o700)) },
		"links as leftovers": func(t *testing.T, s scene) {
			require.NoError(t, os.Symlink(s.outside, filepath.Join(s.dir, "77")))
			require.NoError(t, os.Symlink(s.outside, filepath.Join(s.dir, strconv.Itoa(math.MaxInt))))
		},
		"hundreds": func(t *testing.T, s scene) {
			for n := range 500 {
				require.NoError(t, os.MkdirAll(named(s, 100+n), 0o700))
			}
		},
	}
	for what, plant := range plants {
		t.Run(what, func(t *testing.T) {
			s := scene{dir: filepath.Join(t.TempDir(), "state"), outside: t.TempDir()}
			require.NoError(t, os.WriteFile(s.outside+"/file", []byte("somebody's"), 0o600))
			open := func() *Store {
				store, err := Open(s.dir, Options{Memory: 1})
				require.NoError(t, err)
				return store
			}
			store, content := open(), make(keptContent)
			g := &traffic{rng: rand.New(rand.NewPCG(5, 6)), keys: 60}
			apply(store, 1, g.block(t, 40))
			require.NoError(t, content.keepNow(t, store))
			s.root = store.State().Root()
			require.NoError(t, store.Close())
			s.kept = only(t, s.dir+"/*.*")
			plant(t, s)

			store = open()
			if store.Resume(s.root) {
				var b bytes.Buffer
				if _, err := store.State().WriteTo(&b); err != nil {
					require.ErrorIs(t, err, merkle.ErrDamaged)
				} else {
					require.Equal(t, content[s.root], b.Bytes())
				}
			}
			if store.place.failed() != nil { // it ends with advice, and the next start is a good one
				_ = store.Close()
				store = open()
			}
			for range 3 { // the third leaves nothing that was planted
				require.NoError(t, store.Restore(bytes.NewReader(content[s.root])))
				require.NoError(t, content.keepNow(t, store))
				apply(store, 2, g.block(t, 5))
				require.NoError(t, store.wait())
				require.NoError(t, store.Close())
				store = open()
			}
			require.True(t, store.Resume(s.root))
			require.Equal(t, content[s.root], snapshotOf(t, store.State()))
			require.NoError(t, store.Close())
			names, err := os.ReadDir(s.dir)
			require.NoError(t, err)
			require.Len(t, names, 1+keptStates, "the lock, and what is kept")
			data, err := os.ReadFile(s.outside + "/file")
			require.NoError(t, err)
			require.Equal(t, "somebody's", string(data))
		})
	}
}
