package kv

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/merkle"
)

// model is a plain map that executes operations by itself, for comparison.
type model map[string]string

func (m model) draw(t *rapid.T) (op []byte, want Result) {
	key := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key")
	value := rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "value")
	old, present := m[key]
	var err error
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		op, err = Put([]byte(key), []byte(value))
		m[key], want = value, Result{Status: OK}
	case 1:
		op, err = Get([]byte(key))
		want = Result{Status: NotFound}
		if present {
			want = Result{OK, []byte(old)}
		}
	case 2:
		op, err = Delete([]byte(key))
		want = Result{Status: NotFound}
		if present {
			want.Status = OK
		}
		delete(m, key)
	case 3:
		var expected []byte
		if rapid.Bool().Draw(t, "expect a value") {
			expected = []byte(rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "expected"))
		}
		op, err = CompareAndSwap([]byte(key), expected, []byte(value))
		want = Result{Status: Mismatch}
		if present == (expected != nil) && old == string(expected) {
			m[key], want = value, Result{Status: OK}
		}
	case 4:
		op, want = rapid.SliceOfN(rapid.Byte(), 0, 1).Draw(t, "nonsense"), Result{Status: Invalid}
	}
	require.NoError(t, err)
	return op, want
}

func TestStoreAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkAgainstModel(t, New()) })
}

func checkAgainstModel(t *rapid.T, store *Store) {
	plain := model{}
	for height := range bft.Height(rapid.IntRange(1, 6).Draw(t, "blocks")) {
		var ops []bft.Operation
		var want []Result
		for range rapid.IntRange(0, 8).Draw(t, "operations") {
			op, result := plain.draw(t)
			ops, want = append(ops, bft.Operation{Data: op}), append(want, result)
		}
		before := store.State()
		root := before.Root()
		results := apply(store, height+1, ops)
		require.Len(t, results, len(ops))
		for i := range results {
			got, err := ParseResult(results[i])
			require.NoError(t, err)
			require.Equal(t, want[i].Status, got.Status)
			require.True(t, bytes.Equal(want[i].Value, got.Value))
			clear(ops[i].Data) // the store must not keep it
		}
		require.Equal(t, root, before.Root())
	}
	state := store.State().(State)
	require.Equal(t, len(plain), state.Len())
	for key, value := range plain {
		got, ok, err := state.Get([]byte(key))
		require.NoError(t, err)
		require.True(t, ok && string(got) == value)
	}
}

func TestLimits(t *testing.T) {
	_, err := Put(nil, nil)
	require.Error(t, err)
	_, err = Get(make([]byte, MaxKey+1))
	require.Error(t, err)
	_, err = Put([]byte("k"), make([]byte, MaxValue+1))
	require.Error(t, err)
	_, err = CompareAndSwap([]byte("k"), make([]byte, MaxValue), make([]byte, MaxValue))
	require.Error(t, err)

	op, err := Put(make([]byte, MaxKey), make([]byte, MaxValue))
	require.NoError(t, err)
	require.LessOrEqual(t, len(op), bft.MaxOperation)
	get, err := Get(make([]byte, MaxKey))
	require.NoError(t, err)
	results := apply(New(), 1, []bft.Operation{{Data: op}, {Data: get}})
	require.LessOrEqual(t, len(results[1]), bft.MaxResult)
	require.Len(t, results[1], 1+MaxValue)
	require.LessOrEqual(t, 2+MaxKey+MaxValue, merkle.MaxValue)
}

// apply executes the operations of one request, in a block of its own.
func apply(s *Store, height bft.Height, operations []bft.Operation) [][]byte {
	results := bft.NewResults([]int{len(operations)})
	if err := s.Apply(height, 0, operations, results); err != nil {
		panic(err)
	}
	return results.Of(0)
}

// A result that there is no room for is not made: a block of 4 096 reads of a megabyte costs no
// memory for what is dropped.
func TestResultsWithoutRoomAreNotMade(t *testing.T) {
	put, err := Put([]byte("big"), make([]byte, MaxValue))
	require.NoError(t, err)
	get, err := Get([]byte("big"))
	require.NoError(t, err)
	store := New()
	apply(store, 1, []bft.Operation{{Data: put}})
	reads := make([]bft.Operation, 4096)
	for i := range reads {
		reads[i].Data = get
	}
	allocated := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.TotalAlloc
	}
	before := allocated()
	results := apply(store, 2, reads)
	require.Less(t, allocated()-before, uint64(4*bft.MaxResults), "bytes allocated for results, and by databases of other tests")
	for i, raw := range results {
		result, err := ParseResult(raw)
		require.NoError(t, err)
		require.Equal(t, i < 8, result.Status == OK, "result %d", i)
		require.Equal(t, i >= 8, result.Status == Dropped, "result %d", i)
	}
}

// filled returns a store with n keys.
func filled(t testing.TB, n int) *Store {
	t.Helper()
	ops := make([]bft.Operation, n)
	for i := range ops {
		op, err := Put(fmt.Appendf(nil, "key %d", i), fmt.Appendf(nil, "value %d", i))
		require.NoError(t, err)
		ops[i].Data = op
	}
	store := New()
	apply(store, 1, ops)
	return store
}

func TestQuery(t *testing.T) {
	state := filled(t, 100).State()
	for i := range 120 {
		key := fmt.Appendf(nil, "key %d", i)
		answer, proof, err := state.Query(key)
		require.NoError(t, err)
		value, found, err := VerifyQuery(state.Root(), key, answer, proof)
		require.NoError(t, err)
		require.Equal(t, i < 100, found)
		if found {
			require.Equal(t, fmt.Sprintf("value %d", i), string(value))
		}

		_, _, err = VerifyQuery(state.Root(), append(key, 'x'), answer, proof)
		require.Error(t, err, "the answer to another question")
		_, _, err = VerifyQuery(bft.Digest{1}, key, answer, proof)
		require.ErrorIs(t, err, merkle.ErrProof)
		for _, wrong := range [][]byte{nil, {0}, {1}, {2}, {0, 1}, []byte("\x01other")} {
			if !bytes.Equal(wrong, answer) {
				_, _, err = VerifyQuery(state.Root(), key, wrong, proof)
				require.Error(t, err)
			}
		}
	}
	_, _, err := state.Query(nil)
	require.Error(t, err)
	_, _, err = state.Query(make([]byte, MaxKey+1))
	require.Error(t, err)
}

func TestSnapshot(t *testing.T) {
	store := filled(t, 50)
	var snapshot bytes.Buffer
	_, err := store.State().WriteTo(&snapshot)
	require.NoError(t, err)

	restored := filled(t, 3)
	require.NoError(t, restored.Restore(bytes.NewReader(snapshot.Bytes())))
	require.Equal(t, store.State().Root(), restored.State().Root())

	require.Error(t, restored.Restore(bytes.NewReader(snapshot.Bytes()[:40])))
	require.Equal(t, store.State().Root(), restored.State().Root(), "a failed restore changes nothing")

	var foreign bytes.Buffer
	_, err = merkle.Map{}.Update([]merkle.Change{{Key: bft.Digest{1}, Value: newEntry([]byte("k"), nil)}}).WriteTo(&foreign)
	require.NoError(t, err)
	require.Error(t, restored.Restore(&foreign), "a key that does not hash to its leaf")
}

func TestParseResult(t *testing.T) {
	for _, bad := range [][]byte{{0}, {byte(Dropped)}, {9}, {byte(NotFound), 1}} {
		_, err := ParseResult(bad)
		require.Error(t, err)
	}
	got, err := ParseResult(nil)
	require.NoError(t, err)
	require.Equal(t, Dropped, got.Status)
	for s := range Dropped + 2 {
		require.NotEmpty(t, s.String())
	}
}

func FuzzDecode(f *testing.F) {
	for _, op := range []operation{
		{kind: kindPut, key: []byte("k"), value: []byte("v")},
		{kind: kindGet, key: []byte("k")},
		{kind: kindDelete, key: []byte("k")},
		{kind: kindSwap, key: []byte("k"), value: []byte("v"), old: []byte("o"), oldPresent: true},
		{kind: kindSwap, key: []byte("k")},
	} {
		data, err := encode(op)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		op, err := decode(data)
		if err != nil {
			return
		}
		again, err := encode(op)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, again))
	})
}

// BenchmarkApply puts 1000 new values of 128 bytes a block, under keys out of 100,000.
func BenchmarkApply(b *testing.B) {
	const batch = 1000
	store := filled(b, 100_000)
	rng := rand.New(rand.NewPCG(1, 2))
	value := make([]byte, 128)
	blocks := make([][]bft.Operation, 50)
	for i := range blocks {
		blocks[i] = make([]bft.Operation, batch)
		for j := range blocks[i] {
			op, err := Put(fmt.Appendf(nil, "key %d", rng.IntN(100_000)), value)
			require.NoError(b, err)
			blocks[i][j].Data = op
		}
	}
	b.ReportAllocs()
	height := 0
	for b.Loop() {
		block := blocks[height%len(blocks)]
		for _, op := range block {
			binary.BigEndian.PutUint64(op.Data[len(op.Data)-8:], uint64(height))
		}
		apply(store, bft.Height(height), block)
		height++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/op-in-block")
}
