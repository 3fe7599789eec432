package transport

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
		twins := newTwins(slog.New(slog.NewTextHandler(&log, nil)), 1)
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

// accuse listens as a member, and tells whoever connects that another process runs as it already. It
// counts how often.
func (m *member) accuse(t *testing.T) *atomic.Int32 {
	t.Helper()
	credential := m.config(t, nil).Certificate
	config := listenTLS(func() *tls.Certificate { return &credential }, func(*x509.Certificate) error { return nil })
	listener, err := tls.Listen("tcp", m.peer.Address, config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	told := new(atomic.Int32)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := conn.Write([]byte{twice}); err == nil {
					_, _ = conn.Read(make([]byte, 1)) // until it was read, and the connection ends
					told.Add(1)
				}
			}()
		}
	}()
	return told
}

// TestLiarsMakeNoTwin: f liars that tell a replica that it runs twice, however often, do not make it
// say so itself, which would be the word of one more. What f + 1 peers say it does say.
func TestLiarsMakeNoTwin(t *testing.T) {
	members := newMembers(t, 4)
	liar, honest, other := members[0], members[1], members[2]
	told := liar.accuse(t)
	var log syncedLog
	for _, m := range []*member{honest, other} {
		cfg := m.config(t, peersOf(members))
		cfg.F, cfg.Log = 1, slog.New(slog.NewTextHandler(&log, nil))
		m.start(t, cfg)
	}
	eventually(t, func() bool { return told.Load() >= 8 && len(other.Connected()) == 1 }, "the liar was heard often")
	require.Empty(t, other.Twice())
	require.Empty(t, honest.Twice())
	require.NotContains(t, log.String(), "two processes")

	members[3].accuse(t)
	eventually(t, func() bool { return slices.Equal(other.Twice(), []bft.ReplicaID{3}) }, "two of which one is correct")
	require.Contains(t, log.String(), `say="[1 4]"`)
}

// TestAccusationsAgeAndCountOnce: the words of two peers count if they come within a minute, and one
// peer is one however often it speaks.
func TestAccusationsAgeAndCountOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		twins := newTwins(slog.New(slog.DiscardHandler), 1)
		says := func(by bft.ReplicaID) bool {
			require.ErrorIs(t, twins.told(3, by), errTwin)
			return twins.of(3).runsTwice(time.Now())
		}
		require.False(t, says(1))
		require.False(t, says(1))
		<-time.After(twinSeen)
		require.False(t, says(2), "what the other one said is a minute old")
		require.True(t, says(4))
	})
}

// syncedLog is a log that is read while it is written.
type syncedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *syncedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *syncedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
