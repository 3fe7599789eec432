package replica

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
)

// Whatever a client, or a peer, calls with: there is an answer or an error, and what is allocated is
// bounded by what it sent and by the largest answer.
func FuzzCalls(f *testing.F) {
	w := newWorld(f, bft.Size{F: 1}, 1)
	w.order(1000)
	w.order(0)
	r, err := w.replica(w.store(), &peers{})
	require.NoError(f, err)
	c, err := r.check(w.piece(1, 2))
	require.NoError(f, err)
	require.NoError(f, r.executePiece(c))
	methods := []struct {
		serve transport.Method
		peer  bool
	}{
		{r.serveSubmit, false}, {r.serveHeight, false}, {r.serveRead, false}, {r.serveAncestors, true}, {r.serveLog, true}, {r.serveHead, true},
		{r.serveSnapshot, true}, {r.serveRecall, true}, {r.serveHandOn, true}, {r.serveClock, true},
	}
	good, err := request.New(w.id, w.client, 1<<20, request.Application, [][]byte{{1}})
	require.NoError(f, err)
	for i := range methods {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), make([]byte, 16))
		f.Add(uint8(i), good.Raw())
		f.Add(uint8(i), append(make([]byte, 8), "key"...))
	}
	f.Add(uint8(len(methods)-1), appendHandOn(nil, []handedOn{{1, good}}))
	f.Fuzz(func(t *testing.T, method uint8, data []byte) {
		m := methods[int(method)%len(methods)]
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // who calls waits for nothing
		var from *transport.Sender
		if m.peer {
			from = &transport.Sender{ID: 2}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		answer, err := m.serve(ctx, from, data)
		runtime.ReadMemStats(&after)
		require.True(t, err == nil || answer == nil)
		require.LessOrEqual(t, len(answer), bft.MaxReply)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2*bft.MaxReply+64*len(data)), "allocated")
	})
}
