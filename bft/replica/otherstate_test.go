package replica

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
)

// Heads of another group, of however many, stop nobody: those who answer may have former keys of
// others, which an old log names. That the group has another key, f + 1 have to vouch for.
func TestHeadsOfAnotherGroupStopNobody(t *testing.T) {
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
	}{{"evil", 3, 0}, {"the group key", 0, 6}, {"the group key", 4, 2}, {"the group key", 1, 2}} {
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
			Cluster: f.id, Self: 1, Store: f.store(), Network: &peers{serve: serve}, Application: kv.New(), System: newEpochs(&m, f.system.readyAt), Window: worldWindow, Retention: worldRetention,
			Verifier: func(m *Membership) (bft.Scheme, error) { return saysGood{string(m.GroupKey)}, nil }, Log: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		_, err = r.catchUp(t.Context())
		require.NoError(t, err)
	}
}
