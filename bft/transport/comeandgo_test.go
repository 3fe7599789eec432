package transport

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// A peer that has ended is noticed; one that hears nothing, and is heard, is not taken for it.
func TestAPeerThatEndsIsNoticed(t *testing.T) {
	members, lost := newMembers(t, 3), make(chan bft.ReplicaID, 1024)
	for i, m := range members {
		cfg := m.config(t, peersOf(members))
		if i == 0 {
			cfg.Peers[2].Address = reserve(t) // where nobody listens
			cfg.OnLost = func(id bft.ReplicaID) { lost <- id }
		}
		m.start(t, cfg)
	}
	eventually(t, func() bool { return members[0].hears(3) && len(members[0].Connected()) == 1 }, "the replicas connect")
	for len(lost) > 0 {
		<-lost // before they had started
	}
	require.NoError(t, members[1].Close())
	require.EqualValues(t, 2, <-lost)
	require.NoError(t, members[2].Close())
	for id := range lost {
		if id == 3 {
			return
		}
	}
}

// Who calls a replica that is still starting, as a peer or as a client, hears that, and when to come
// back.
func TestCallsOfAReplicaThatIsStarting(t *testing.T) {
	members := newMembers(t, 2)
	var started atomic.Bool
	for _, m := range members {
		cfg := m.config(t, peersOf(members))
		cfg.Starting = func() bool { return !started.Load() }
		m.start(t, cfg)
	}
	eventually(t, func() bool { return len(members[0].Connected()) == 1 }, "the replicas connect")
	client, err := Dial(cluster, members[1].peer)
	require.NoError(t, err)
	defer client.Close()
	calls := map[string]func() error{
		"peer":   func() error { _, err := members[0].Call(t.Context(), 2, "reseal/read", nil); return err },
		"client": func() error { _, err := client.Call(t.Context(), "reseal/read", nil); return err },
	}
	for who, call := range calls {
		busy := new(BusyError)
		require.ErrorAs(t, call(), &busy, who)
		require.ErrorContains(t, busy, "the replica is starting", who)
		require.Equal(t, startingAway, busy.After, who)
	}
	started.Store(true)
	for who, call := range calls {
		require.ErrorContains(t, call(), "no such method", who)
	}
}
