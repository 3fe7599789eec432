package replica

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
)

// A leader cannot keep a request from those who lead before it by blocks of its later views that carry
// it.
func TestBlocksOfLaterViewsKeepNoRequests(t *testing.T) {
	for name, c := range map[string]struct {
		window        int
		current, view bft.View
		left          bool
	}{
		"the current view":                         {1, 3, 3, true},
		"the next view, which may have begun":      {1, 3, 4, true},
		"two views ahead":                          {1, 2, 4, false},
		"a rotation ahead":                         {1, 4, 8, false},
		"before the first view":                    {1, 0, 4, false},
		"the last view of the current window":      {4, 13, 16, true},
		"the last view of the window to come":      {4, 12, 16, false},
		"the first view of the window to come":     {4, 12, 13, true},
		"the same leader's window, a rotation on":  {2, 8, 16, false},
		"the second view of the window of the two": {2, 7, 8, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, bft.Size{F: 1}, 1)
			r, err := w.replica(w.store(), &peers{})
			require.NoError(t, err)
			m := r.Membership()
			e := &epochRun{r: r, membership: m, headers: newHeaderCache(), config: bft.Config{
				Cluster: w.id, Epoch: 1, Size: m.Size, Self: 1, Leaders: m.Leaders, Window: c.window, Base: m.Base,
			}}
			e.view.Store(uint64(c.current))
			payload := w.payload(10)
			requests, err := request.ParsePayload(payload)
			require.NoError(t, err)
			require.NoError(t, r.Enqueue(requests[0]))

			h := bft.Header{Epoch: 1, View: c.view, Height: 1, Proposer: e.config.LeaderOf(c.view), Payload: bft.PayloadDigest(payload)}
			require.NoError(t, e.validate(w.sign(h, payload)))
			took := len(r.pool.take(t.Context(), max(1, c.current), 0))
			require.Equal(t, c.left, took == 0)
		})
	}
}

// A leader cannot keep a request by blocks of views that are over and that nobody looks at any more,
// nor have one ordered twice that a block of a later view carries already.
func TestBlocksOfEarlierViewsKeepNoRequests(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	r, err := w.replica(w.store(), &peers{})
	require.NoError(t, err)
	m := r.Membership()
	e := &epochRun{r: r, membership: m, headers: newHeaderCache(), config: bft.Config{
		Cluster: w.id, Epoch: 1, Size: m.Size, Self: 1, Leaders: m.Leaders, Window: 1, Base: m.Base,
	}}
	e.view.Store(21)
	payload := w.payload(10)
	requests, err := request.ParsePayload(payload)
	require.NoError(t, err)
	block := func(view bft.View, height bft.Height) {
		h := bft.Header{Epoch: 1, View: view, Height: height, Proposer: e.config.LeaderOf(view), Payload: bft.PayloadDigest(payload)}
		require.NoError(t, e.validate(w.sign(h, payload)))
	}
	took := func() int { return len(r.pool.take(t.Context(), 22, 0)) }
	settle := func(view bft.View) {
		e.finalView.Store(uint64(view))
		r.pool.settle(view, nil, nil, time.Now())
	}

	settle(18)
	require.True(t, e.ignores(&bft.Block{Header: bft.Header{View: 18}}))
	require.True(t, e.ignores(bft.SignedHeader{Header: bft.Header{View: 18}}))
	require.False(t, e.ignores(&bft.Block{Header: bft.Header{View: 19}}))
	require.NoError(t, r.Enqueue(requests[0]))
	block(4, 1)
	require.Equal(t, 1, took(), "a block of a view below the final one keeps it")

	for _, over := range []bft.View{8, 19} {
		block(21, 20)
		block(over, bft.Height(over))
		settle(20)
		require.Zero(t, took(), "it is given out again while the block of view 21 carries it, because of one of view %d", over)
	}
	settle(22)
	require.Equal(t, 1, took(), "the blocks that carried it were given up")
}
