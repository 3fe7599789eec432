package replica

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
)

// A replica whose disk somebody exchanged for the state of a group of his own finds out when f + 1
// others name another group key, and stops with advice. f liars stop nobody.
func TestAStateOfAnotherGroupIsNoDeadEnd(t *testing.T) {
	f := newFar(t)
	lie := func(ctx context.Context, method string, call []byte) ([]byte, error) {
		raw, err := f.good(ctx, method, call)
		if method != methodHead || err != nil {
			return raw, err
		}
		h, err := parseHead(raw[8:])
		if err != nil {
			return nil, err
		}
		h.groupKey = []byte("evil")
		head, err := h.marshal()
		return append(raw[:8:8], head...), err
	}
	for _, c := range []struct {
		mine        string
		honest, lie int
		stops       bool
	}{{"evil", 3, 0, true}, {"evil", 4, 2, true}, {"the group key", 4, 2, false}, {"the group key", 1, 2, false}} {
		m := *f.system.history[0]
		m.GroupKey = []byte(c.mine)
		serve := make(map[bft.ReplicaID]serve)
		for i := range c.honest + c.lie {
			serve[bft.ReplicaID(i+2)] = f.good
			if i < c.lie {
				serve[bft.ReplicaID(i+2)] = lie
			}
		}
		r, err := New(Config{
			Cluster: f.id, Self: 1, Store: f.store(), Network: &peers{serve: serve}, Application: kv.New(), System: newEpochs(&m, f.system.readyAt), Window: worldWindow,
			Verifier: func(m *Membership) (bft.Scheme, error) { return saysGood{string(m.GroupKey)}, nil }, Log: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		_, err = r.catchUp(t.Context())
		if c.stops {
			require.ErrorIs(t, err, errFatal)
			require.ErrorContains(t, err, "move the store directory away")
			continue
		}
		require.NoError(t, err)
	}
}
