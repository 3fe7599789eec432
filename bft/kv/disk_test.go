package kv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/merkle"
)

// onDisk opens a store which writes to disk what is more than limit bytes.
func onDisk(t require.TestingT, fs vfs.FS, limit int64) *Store {
	s, err := Open("state", Options{FS: fs, Memory: 1})
	require.NoError(t, err)
	s.place.limit = limit
	return s
}

func TestStoreOnDiskAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := onDisk(t, vfs.NewMem(), 1)
		checkAgainstModel(t, s)
		require.NoError(t, s.Close())
	})
}

// traffic draws blocks of operations on some keys, with values of all sizes.
type traffic struct {
	rng  *rand.Rand
	keys int
}

func (g *traffic) block(t require.TestingT, n int) []bft.Operation {
	ops := make([]bft.Operation, n)
	for i := range ops {
		key := fmt.Appendf(nil, "key %d", g.rng.IntN(g.keys))
		var err error
		switch g.rng.IntN(5) {
		case 0:
			ops[i].Data, err = Get(key)
		case 1:
			ops[i].Data, err = Delete(key)
		case 2:
			ops[i].Data, err = CompareAndSwap(key, nil, bytes.Repeat([]byte{byte(i)}, g.rng.IntN(3000)))
		default:
			ops[i].Data, err = Put(key, bytes.Repeat([]byte{byte(i)}, g.rng.IntN(300)))
		}
		require.NoError(t, err)
	}
	return ops
}

func snapshotOf(t require.TestingT, s bft.State) []byte {
	var b bytes.Buffer
	_, err := s.WriteTo(&b)
	require.NoError(t, err)
	return b.Bytes()
}

// TestOnDiskAsInMemory executes the same operations in memory and on disk. Old states stay as they
// were, for who reads them and for who writes a snapshot of them meanwhile; a snapshot of one
// restores either.
func TestOnDiskAsInMemory(t *testing.T) {
	const blocks, keys = 120, 400
	plain, disk := New(), onDisk(t, vfs.NewMem(), 16<<10)
	g := &traffic{rng: rand.New(rand.NewPCG(1, 2)), keys: keys}
	type at struct{ plain, disk bft.State }
	var kept []at
	var read io.Reader
	var whole []byte
	var streamed bytes.Buffer
	for height := range bft.Height(blocks) {
		ops := g.block(t, 40)
		require.Equal(t, apply(plain, height+1, ops), apply(disk, height+1, ops))
		now := at{plain.State(), disk.State()}
		require.Equal(t, now.plain.Root(), now.disk.Root())
		require.Less(t, disk.content.Unsaved(), int64(150<<10), "what is only in memory")
		if height%10 == 0 {
			kept = append(kept, now)
			runtime.GC() // versions that nobody has any more are let go of
		}
		if height == 40 {
			require.Positive(t, disk.place.made)
			require.NotNil(t, disk.content.Reader(), "some of it is on disk")
			pipe, out := io.Pipe()
			go func() { _, err := now.disk.WriteTo(out); out.CloseWithError(err) }()
			read, whole = pipe, snapshotOf(t, now.plain)
		}
		if read != nil { // a part of the snapshot for each block
			_, err := io.CopyN(&streamed, read, int64(len(whole)/40))
			require.NoError(t, err)
		}
		if height == 75 {
			_, err := io.Copy(&streamed, read)
			require.NoError(t, err)
			require.Equal(t, whole, streamed.Bytes())
			read = nil
			require.NoError(t, disk.Restore(&streamed), "back to what it was")
			require.NoError(t, plain.Restore(bytes.NewReader(whole)))
			require.Equal(t, plain.State().Root(), disk.State().Root())
		}
	}
	for _, at := range append(kept, at{plain.State(), disk.State()}) {
		require.Equal(t, snapshotOf(t, at.plain), snapshotOf(t, at.disk))
		for i := range keys {
			key := fmt.Appendf(nil, "key %d", i)
			answer, proof, err := at.plain.Query(key)
			require.NoError(t, err)
			got, path, err := at.disk.Query(key)
			require.NoError(t, err)
			require.Equal(t, [][]byte{answer, proof}, [][]byte{got, path})
		}
	}
	old := kept[0].disk.(State)
	require.NoError(t, disk.Close())
	if old.content.Reader() != nil {
		_, _, err := old.Get([]byte("key 1"))
		require.ErrorIs(t, err, errClosed)
	}
}

// A process that ended at any point leaves nothing that keeps the next one from starting, or that
// it would believe.
func TestOpenAfterACrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	var mu sync.Mutex
	var crashed []*vfs.MemFS
	rng := rand.New(rand.NewPCG(1, 2))
	wrapped := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			mu.Lock()
			defer mu.Unlock()
			crashed = append(crashed, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * (len(crashed) % 3), RNG: rng}))
		}
		return nil
	}))
	s := onDisk(t, wrapped, 4<<10)
	g := &traffic{rng: rng, keys: 100}
	for height := range bft.Height(20) {
		apply(s, height+1, g.block(t, 20))
	}
	require.NoError(t, s.wait())
	require.NoError(t, s.disk.db.Flush())
	snapshot := snapshotOf(t, s.State())
	require.NoError(t, s.Close())
	require.Greater(t, len(crashed), 50)
	for i, fs := range crashed {
		again := onDisk(t, fs, 4<<10)
		require.True(t, again.State().Root().IsZero(), "crash point %d", i)
		require.NoError(t, again.Restore(bytes.NewReader(snapshot)))
		require.NoError(t, again.Close())
	}
}

// What is not a store's is not removed, and two processes do not share a directory.
func TestOpenRefuses(t *testing.T) {
	fs := vfs.NewMem()
	require.NoError(t, fs.MkdirAll("state", 0o700))
	f, err := fs.Create("state/letters", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = Open("state", Options{FS: fs})
	require.ErrorContains(t, err, "letters")
	require.NoError(t, fs.Remove("state/letters"))
	s, err := Open("state", Options{FS: fs})
	require.NoError(t, err)
	_, err = Open("state", Options{FS: fs})
	require.ErrorContains(t, err, "in use")
	require.NoError(t, s.Close())
}

// TestDamagedFiles changes one byte of what is on disk after the other. What is read is right, or
// there is an error, and then nothing is executed any more.
func TestDamagedFiles(t *testing.T) {
	const keys = 100
	found := 0
	for at := range 20 {
		fs := vfs.NewMem()
		s := onDisk(t, fs, 1)
		plain := New()
		var ops []bft.Operation
		for i := range keys {
			op, err := Put(fmt.Appendf(nil, "key %d", i), bytes.Repeat([]byte{byte(i)}, 100))
			require.NoError(t, err)
			ops = append(ops, bft.Operation{Data: op})
		}
		apply(plain, 1, ops)
		apply(s, 1, ops)
		require.NoError(t, s.wait())
		require.NoError(t, s.disk.db.Flush())
		names, err := fs.List("state/1")
		require.NoError(t, err)
		table := slices.IndexFunc(names, func(n string) bool { return strings.HasSuffix(n, ".sst") })
		flipByte(t, fs, "state/1/"+names[table], at, 20)

		var failure error
		for i := range keys {
			key := fmt.Appendf(nil, "key %d", i)
			answer, proof, err := s.State().Query(key)
			if err != nil {
				failure = err
				continue
			}
			value, ok, err := VerifyQuery(plain.State().Root(), key, answer, proof)
			require.NoError(t, err)
			require.True(t, ok && bytes.Equal(value, bytes.Repeat([]byte{byte(i)}, 100)))
		}
		if _, err := s.State().WriteTo(io.Discard); err != nil {
			failure = err
		}
		get, err := Get([]byte("key 1"))
		require.NoError(t, err)
		err = s.Apply(2, 0, []bft.Operation{{Data: get}}, bft.NewResults([]int{1}))
		if failure != nil {
			found++
			require.ErrorIs(t, failure, merkle.ErrDamaged)
			require.ErrorIs(t, err, merkle.ErrDamaged)
			require.ErrorContains(t, err, "start again")
		} else {
			require.NoError(t, err)
		}
		_ = s.Close()
	}
	require.Greater(t, found, 10)
}

func flipByte(t *testing.T, fs vfs.FS, name string, at, of int) {
	f, err := fs.Open(name)
	require.NoError(t, err)
	data, err := io.ReadAll(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	data[at*len(data)/of] ^= 0x40
	f, err = fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.WriteAt(data, 0)
	require.NoError(t, errors.Join(err, f.Close()))
}

// TestFullDisk: when nothing can be written any more, the store says so, and nobody waits for ever.
func TestFullDisk(t *testing.T) {
	var full errorfs.Toggle
	full.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	s := onDisk(t, errorfs.Wrap(vfs.NewMem(), &full), 64<<10)
	g := &traffic{rng: rand.New(rand.NewPCG(1, 2)), keys: 1 << 30}
	full.On()
	var err error
	for height := bft.Height(1); err == nil; height++ {
		require.Less(t, height, bft.Height(1000))
		ops := g.block(t, 100)
		err = s.Apply(height, 0, ops, bft.NewResults([]int{len(ops)}))
	}
	require.ErrorIs(t, err, ErrFull)
	require.ErrorContains(t, err, "free some space")
	full.Off()
	require.ErrorIs(t, s.Apply(2000, 0, nil, bft.NewResults(nil)), ErrFull, "it stays so")
	_ = s.Close()
}

// A value that there is no room for is not read: a block of reads of large values costs no more
// than what it answers.
func TestWhatThereIsNoRoomForIsNotRead(t *testing.T) {
	s := onDisk(t, vfs.NewMem(), 1)
	put, err := Put([]byte("big"), make([]byte, MaxValue))
	require.NoError(t, err)
	apply(s, 1, []bft.Operation{{Data: put}})
	require.NoError(t, s.wait())
	get, err := Get([]byte("big"))
	require.NoError(t, err)
	swap, err := CompareAndSwap([]byte("big"), []byte("small"), nil)
	require.NoError(t, err)
	ops := make([]bft.Operation, 4096)
	for i := range ops {
		ops[i].Data = []([]byte){get, swap}[i%2]
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	apply(s, 2, ops)
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4*bft.MaxResults), "bytes allocated")
	require.NoError(t, s.Close())
}

// BenchmarkApplyOnDisk puts 1000 new values of 128 bytes a block, under keys out of a million: more
// than fits in memory.
func BenchmarkApplyOnDisk(b *testing.B) {
	const batch, keys = 1000, 1_000_000
	s, err := Open(b.TempDir(), Options{Memory: 64 << 20})
	require.NoError(b, err)
	rng := rand.New(rand.NewPCG(1, 2))
	height := bft.Height(0)
	put := func(key func(i int) int) {
		ops := make([]bft.Operation, batch)
		value := make([]byte, 128)
		for i := range ops {
			for j := range value {
				value[j] = byte(rng.Uint32())
			}
			ops[i].Data, err = Put(fmt.Appendf(nil, "key %d", key(i)), value)
			require.NoError(b, err)
		}
		height++
		apply(s, height, ops)
	}
	for from := 0; from < keys; from += batch {
		put(func(i int) int { return from + i })
	}
	b.ReportAllocs()
	for b.Loop() {
		put(func(int) int { return rng.IntN(keys) })
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/op-in-block")
	require.NoError(b, s.Close())
}
