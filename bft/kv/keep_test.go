package kv

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/merkle"
)

// keptContent is the snapshot of each state that was to be kept, by root.
type keptContent map[bft.Digest][]byte

// keepNow has a store keep its content, and waits until that is done.
func (k keptContent) keepNow(t require.TestingT, s *Store) error {
	k[s.State().Root()] = snapshotOf(t, s.State())
	if err := s.wait(); err != nil {
		return err
	}
	require.True(t, s.Keep())
	return s.wait()
}

// linking is a file system in memory that is not copied while it links: it may hang otherwise.
type linking struct {
	*vfs.MemFS
	mu sync.Mutex
}

func (l *linking) Link(from, to string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.MemFS.Link(from, to)
}

// Whatever the moment of a crash: a state is there in whole or not at all, and once it was kept, it
// is there.
func TestKeptStatesSurviveACrash(t *testing.T) {
	fs := &linking{MemFS: vfs.NewCrashableMem()}
	rng := rand.New(rand.NewPCG(1, 2))
	type crash struct {
		fs   *vfs.MemFS
		last bft.Digest // that was surely kept
	}
	var mu sync.Mutex
	var crashes []crash
	var last bft.Digest
	s := onDisk(t, errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			mu.Lock()
			defer mu.Unlock()
			fs.mu.Lock()
			defer fs.mu.Unlock()
			crashes = append(crashes, crash{fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * (len(crashes) % 3), RNG: rng}), last})
		}
		return nil
	})), 4<<10)
	g, content := &traffic{rng: rand.New(rand.NewPCG(3, 4)), keys: 60}, make(keptContent) // rng is of those who crash
	for height := range bft.Height(24) {
		apply(s, height+1, g.block(t, 10))
		if height%6 == 5 {
			require.NoError(t, content.keepNow(t, s))
			mu.Lock()
			last = s.State().Root()
			mu.Unlock()
		}
	}
	require.NoError(t, s.Close())
	resumed := 0
	for i, c := range crashes {
		if i%7 != 0 { // some will do: each opens a database or two
			continue
		}
		again := onDisk(t, c.fs, 4<<10)
		require.False(t, again.Resume(bft.Digest{1}))
		for root, want := range content {
			ok := again.Resume(root)
			require.True(t, ok || root != c.last, "crash point %d", i)
			if ok {
				resumed++
				require.Equal(t, root, again.State().Root())
				require.Equal(t, want, snapshotOf(t, again.State()), "crash point %d", i)
			}
		}
		apply(again, 100, g.block(t, 10))
		require.NoError(t, again.wait())
		require.NoError(t, again.Close())
	}
	require.Greater(t, resumed, 10)
}

// A state that was gone on from is kept as it was, whatever happens to it afterwards.
func TestResumeLeavesWhatWasKept(t *testing.T) {
	fs := vfs.NewMem()
	s := onDisk(t, fs, 4<<10)
	g, content := &traffic{rng: rand.New(rand.NewPCG(1, 2)), keys: 100}, make(keptContent)
	var root bft.Digest
	for round := range 4 {
		for height := range bft.Height(10) {
			apply(s, height+1, g.block(t, 20))
		}
		if round == 0 {
			require.NoError(t, content.keepNow(t, s))
			root = s.State().Root()
		}
		require.NoError(t, s.Close())
		s = onDisk(t, fs, 4<<10)
		require.True(t, s.Resume(root))
		require.Equal(t, content[root], snapshotOf(t, s.State()))
	}
	require.NoError(t, s.Close())
	names, err := fs.List("state")
	require.NoError(t, err)
	require.Len(t, names, 2, "the lock, and what is kept")
}

// keptStore makes a store that has kept one state of some size, and returns its root.
func keptStore(t *testing.T, fs vfs.FS) (bft.Digest, keptContent) {
	s := onDisk(t, fs, 4<<10)
	g, content := &traffic{rng: rand.New(rand.NewPCG(3, 4)), keys: 60}, make(keptContent)
	for height := range bft.Height(8) {
		apply(s, height+1, g.block(t, 15))
	}
	require.NoError(t, content.keepNow(t, s))
	root := s.State().Root()
	require.NoError(t, s.Close())
	return root, content
}

// TestDamagedKept does to each file of a kept state what disks and intruders do. The store does not
// resume then, or what it answers is right, or it fails and says what to do; and the next start,
// from a snapshot, is a good one.
func TestDamagedKept(t *testing.T) {
	harm := map[string]func(fs vfs.FS, name string, data []byte) []byte{
		"flip first": func(_ vfs.FS, _ string, data []byte) []byte { return flip(data, 0) },
		"flip third": func(_ vfs.FS, _ string, data []byte) []byte { return flip(data, len(data)/3) },
		"flip two":   func(_ vfs.FS, _ string, data []byte) []byte { return flip(data, 2*len(data)/3) },
		"flip last":  func(_ vfs.FS, _ string, data []byte) []byte { return flip(data, len(data)-1) },
		"cut":        func(_ vfs.FS, _ string, data []byte) []byte { return data[:len(data)/2] },
		"empty":      func(vfs.FS, string, []byte) []byte { return []byte{} },
		"longer":     func(_ vfs.FS, _ string, data []byte) []byte { return append(data, data...) },
		"gone":       func(vfs.FS, string, []byte) []byte { return nil },
	}
	outcomes := make(map[string]int)
	for what, damage := range harm {
		probe := vfs.NewMem()
		root, content := keptStore(t, probe)
		dir := "state/" + keptDir(t, probe)
		names, err := probe.List(dir)
		require.NoError(t, err)
		for _, name := range names {
			fs := vfs.NewMem()
			_, err := vfs.Clone(probe, fs, "state", "state")
			require.NoError(t, err)
			rewrite(t, fs, dir+"/"+name, func(data []byte) []byte { return damage(fs, name, data) })
			s := onDisk(t, fs, 4<<10)
			ok := s.Resume(root)
			outcome := "not resumed"
			if ok {
				outcome = "right"
				require.Equal(t, root, s.State().Root())
				var b bytes.Buffer
				if _, err := s.State().WriteTo(&b); err != nil {
					require.ErrorIs(t, err, merkle.ErrDamaged, "%s of %s", what, name)
					require.ErrorContains(t, err, "start again")
					outcome = "failed with advice"
				} else {
					require.Equal(t, content[root], b.Bytes(), "%s of %s", what, name)
				}
			}
			outcomes[outcome]++
			_ = s.Close()
			again := onDisk(t, crashed(t, fs), 4<<10)
			if outcome != "right" {
				require.False(t, again.Resume(root), "%s of %s", what, name)
			}
			require.NoError(t, again.Restore(bytes.NewReader(content[root])))
			require.Equal(t, root, again.State().Root())
			require.NoError(t, again.Close())
		}
	}
	t.Log(outcomes)
	require.Greater(t, outcomes["not resumed"], 5)
	require.Greater(t, outcomes["failed with advice"], 3)
}

// crashed is what a process finds that starts when this one has ended, however it did.
func crashed(t *testing.T, fs *vfs.MemFS) *vfs.MemFS {
	left := vfs.NewMem()
	_, err := vfs.Clone(fs, left, "state", "state")
	require.NoError(t, err)
	return left
}

func flip(data []byte, at int) []byte {
	if len(data) > 0 {
		data[at] ^= 0x40
	}
	return data
}

func keptDir(t *testing.T, fs vfs.FS) string {
	names, err := fs.List("state")
	require.NoError(t, err)
	for _, name := range names {
		if strings.Contains(name, ".") {
			return name
		}
	}
	require.Fail(t, "nothing is kept")
	return ""
}

// rewrite changes the content of a file; nil removes it.
func rewrite(t *testing.T, fs vfs.FS, name string, change func([]byte) []byte) {
	f, err := fs.Open(name)
	require.NoError(t, err)
	data, err := io.ReadAll(f)
	require.NoError(t, errors.Join(err, f.Close()))
	require.NoError(t, fs.Remove(name))
	if data = change(data); data == nil {
		return
	}
	f, err = fs.Create(name, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write(data)
	require.NoError(t, errors.Join(err, f.Sync(), f.Close()))
}

// A copy of an older state, put in the place of a kept one, is not taken for it: it is refused, or
// what is read of it is.
func TestAnotherStateInItsPlace(t *testing.T) {
	fs := vfs.NewMem()
	s := onDisk(t, fs, 4<<10)
	content := make(keptContent)
	put := func(height bft.Height, value string) bft.Digest {
		op, err := Put([]byte("key"), []byte(value))
		require.NoError(t, err)
		apply(s, height, []bft.Operation{{Data: op}})
		require.NoError(t, content.keepNow(t, s))
		return s.State().Root()
	}
	put(1, "old")
	older := keptDir(t, fs)
	newer := put(2, "new")
	require.NoError(t, s.Close())
	require.NoError(t, fs.RemoveAll("state/"+kept{3, newer}.name()))
	_, err := vfs.Clone(fs, fs, "state/"+older, "state/"+kept{3, newer}.name())
	require.NoError(t, err)
	s = onDisk(t, fs, 4<<10)
	require.False(t, s.Resume(newer))
	require.NoError(t, s.Restore(bytes.NewReader(content[newer])))
	require.NoError(t, s.Close())
}
