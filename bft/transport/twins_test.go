package transport

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// TestTwoProcessesOfOneReplica: a copied directory runs twice. Peers, and both processes, say so,
// and the connections do not displace each other for ever.
func TestTwoProcessesOfOneReplica(t *testing.T) {
	members := newMembers(t, 2)
	peers := peersOf(members)
	members[0].start(t, members[0].config(t, peers))
	cfg := members[1].config(t, peers)
	members[1].start(t, cfg)
	require.EqualValues(t, 1, <-members[1].connects)

	twin := &member{identity: members[1].identity, peer: members[1].peer, frames: make(chan frame, 1), connects: make(chan bft.ReplicaID, 1024)}
	copied := cfg // the same keys
	copied.Listen, copied.OnConnect = "127.0.0.1:0", func(id bft.ReplicaID) { twin.connects <- id }
	var err error
	copied.Certificate, err = Credential(members[1].identity, cluster, 2, Term{}, members[1].epochKey)
	require.NoError(t, err)
	twin.start(t, copied)
	says := func(m *member) func() bool {
		return func() bool { return len(m.Twice()) == 1 && m.Twice()[0] == 2 }
	}
	eventually(t, says(members[0]), "the peer notices")
	eventually(t, func() bool { return says(members[1])() || says(twin)() }, "who was refused is told")
	require.Less(t, len(members[1].connects)+len(twin.connects), 12, "a connection that lives shortly does not reset the wait for the next")
}

func TestTwins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		twins := newTwins(slog.New(slog.NewTextHandler(&log, nil)))
		appears := func(certificates ...string) (twice bool) {
			for _, c := range certificates {
				<-time.After(time.Second)
				twice = twins.appears(2, []byte(c))
			}
			return twice
		}
		require.False(t, appears("a", "b", "c", "d", "e", "e", "f"), "a process that is started again and again")
		require.False(t, appears("e", "f", "f"), "a connection that was long in coming")
		<-time.After(twinSeen)
		require.False(t, appears("x", "y", "x", "y"))
		require.True(t, appears("x"))
		require.True(t, appears("x", "y", "x", "y"))
		require.Equal(t, 1, strings.Count(log.String(), "two processes run as one replica"))
		<-time.After(twinSeen)
		require.False(t, twins.appears(2, []byte("y")), "the other one was stopped")
		require.True(t, appears("z", "y", "z", "x", "y"), "three of them")
		require.Equal(t, 2, strings.Count(log.String(), "two processes run as one replica"))
	})
}
