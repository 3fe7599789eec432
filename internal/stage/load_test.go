package stage

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/internal/load"
)

// memory is a client of a store in memory.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
	puts   int
	gets   int
	onPut  func(requests int)
	fail   error
}

func newMemory() *memory { return &memory{values: map[string][]byte{}, onPut: func(int) {}} }

func (m *memory) Put(_ context.Context, pairs []load.Pair) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range pairs {
		m.values[p.Key] = p.Value
	}
	m.puts++
	m.onPut(m.puts)
	return m.fail
}

func (m *memory) Get(_ context.Context, keys []string) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gets++
	values := make([][]byte, len(keys))
	for i, key := range keys {
		values[i] = m.values[key]
	}
	return values, m.fail
}

func TestWorkKeepsAccountOfEveryAcknowledgedWrite(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m, l := newMemory(), NewLoad()
	m.onPut = func(requests int) {
		if requests == 7 {
			cancel()
		}
	}
	require.NoError(t, l.Work(ctx, []load.Store{m}))
	require.Equal(t, 7*RequestPairs, l.Ledger.Count())
	require.Equal(t, (7+m.gets)*RequestPairs, l.Meter.Mark().Operations, "reads count too")

	lost, err := l.ReadBack(t.Context(), []load.Store{m, m}, func(int) {})
	require.NoError(t, err)
	require.Zero(t, lost)
	for key := range m.values {
		m.values[key] = []byte("something else")
		break
	}
	for key := range m.values {
		if string(m.values[key]) != "something else" {
			delete(m.values, key)
			break
		}
	}
	var most int
	lost, err = l.ReadBack(t.Context(), []load.Store{m}, func(read int) { most = max(most, read) })
	require.NoError(t, err)
	require.Equal(t, 2, lost)
	require.Equal(t, 7*RequestPairs, most)
}

func TestWorkNoticesAWriteThatIsGone(t *testing.T) {
	m, l := newMemory(), NewLoad()
	m.onPut = func(int) { clear(m.values) }
	require.ErrorIs(t, l.Work(t.Context(), []load.Store{m, m}), load.ErrLost)
}

func TestAWriteThatFailedIsNotAcknowledged(t *testing.T) {
	m, l := newMemory(), NewLoad()
	m.fail = errors.New("no answer")
	require.ErrorIs(t, l.Work(t.Context(), []load.Store{m}), m.fail)
	require.Zero(t, l.Ledger.Count())
	require.Zero(t, l.Meter.Mark().Operations)

	m.fail = nil
	require.NoError(t, l.Put(t.Context(), m, []load.Pair{{Key: "a", Value: []byte("1")}}))
	m.fail = errors.New("no answer")
	_, err := l.ReadBack(t.Context(), []load.Store{m, m}, func(int) {})
	require.ErrorIs(t, err, m.fail)
}

func TestInputTravelsInRequestsOfBoundedSize(t *testing.T) {
	input := []load.Pair{{Key: "small", Value: []byte("s")}, {Key: "big", Value: bytes.Repeat([]byte{1}, chunkBytes)}, {Key: "x"}, {Key: "y", Value: []byte{}}}
	m, l := newMemory(), NewLoad()
	var requests int
	m.onPut = func(n int) { requests = n }
	require.NoError(t, l.PutInput(t.Context(), m, input))
	require.Equal(t, 2, requests)
	require.Len(t, m.values, 4)

	var keys []string
	for _, chunk := range l.Ledger.chunks() {
		keys = append(keys, chunk...)
	}
	require.ElementsMatch(t, []string{"small", "big", "x", "y"}, keys)
	require.GreaterOrEqual(t, len(l.Ledger.chunks()), 2)
}
