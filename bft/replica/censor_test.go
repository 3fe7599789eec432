package replica

import (
	"testing"

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
