package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/credentials"

	"github.com/reseal-bft/reseal/bft/budget"
)

// A flood of handshakes from one address ends its own, not the slower one of somebody else.
func TestHandshakesOfOneAddressEndItsOwn(t *testing.T) {
	var h handshakes
	enter := func(conn net.Conn) {
		_, leave := h.enter(conn, nil)
		t.Cleanup(leave)
	}
	honest, first := &fromAddress{address: "192.0.2.1"}, &fromAddress{address: "192.0.2.2"}
	enter(honest)
	enter(first)
	for range 3 * maxHandshakes {
		enter(&fromAddress{address: "192.0.2.2"})
	}
	require.False(t, honest.closed)
	require.True(t, first.closed)
	require.Equal(t, maxHandshakes, h.conns.Len())
}

// However many addresses a flood comes from, it ends no handshake from a peer's.
func TestHandshakesOfManyAddressesEndNoPeers(t *testing.T) {
	members := startAll(t, 2)
	h := handshakes{isPeers: members[0].isPeers}
	enter := func(conn net.Conn) {
		_, leave := h.enter(conn, nil)
		t.Cleanup(leave)
	}
	peers, other := &fromAddress{address: "127.0.0.1"}, &fromAddress{address: "192.0.2.1"}
	enter(peers)
	enter(other)
	for i := range 3 * maxHandshakes {
		enter(&fromAddress{address: fmt.Sprintf("198.51.%d.%d", i/256, i%256)})
	}
	require.False(t, peers.closed)
	require.True(t, other.closed)
	for range peersHandshakes {
		enter(&fromAddress{address: "127.0.0.1"})
	}
	require.True(t, peers.closed, "they are bounded")
	require.Equal(t, budget.Handshakes, h.conns.Len()+h.peers.Len())
}

// from is a connection on which a hello has arrived, and then nothing. It says when it is answered.
type from struct {
	fed
	address  string
	answered func(address string)
	ended    chan struct{}
	end      sync.Once
}

func (c *from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.address), Port: 1} }

func (c *from) Read(p []byte) (int, error) {
	n, err := c.fed.Read(p)
	if err != nil {
		<-c.ended
	}
	return n, err
}

func (c *from) Write(p []byte) (int, error) {
	c.answered(c.address)
	return len(p), nil
}

func (c *from) Close() error {
	c.end.Do(func() { close(c.ended) })
	return nil
}

// However many handshakes one address has begun, that of another one is computed next, and so is
// each step of it; one that waits for its turn when it has to end does not wait on.
func TestHandshakesTakeTurnsByAddress(t *testing.T) {
	members := newMembers(t, 1)
	certificate, err := Credential(members[0].identity, cluster, 1, Term{}, newEpochKey(t))
	require.NoError(t, err)
	first := hello(t, "h2")
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1)
		tr := &Transport{cfg: Config{Cluster: cluster, Self: 1, Log: slog.New(slog.DiscardHandler)}, ctx: context.Background(), turns: turns}
		g := &gate{credentials.NewTLS(listenTLS(func() *tls.Certificate { return &certificate }, nil)), tr, new(handshakes)}
		var mu sync.Mutex
		var answered []string
		var over atomic.Int64
		begin := func(address string) *from {
			conn := &from{fed: fed{Reader: bytes.NewReader(first)}, address: address, ended: make(chan struct{}), answered: func(address string) {
				mu.Lock()
				answered = append(answered, address)
				mu.Unlock()
				<-time.After(time.Millisecond) // it takes its time
			}}
			go func() {
				_, _, err := g.ServerHandshake(conn)
				require.Error(t, err)
				over.Add(1)
			}()
			return conn
		}
		leave, err := turns.enter(t.Context(), "somebody", "working")
		require.NoError(t, err)
		const flood = 100
		var conns []*from
		for range flood {
			conns = append(conns, begin("192.0.2.2"))
		}
		synctest.Wait()
		conns = append(conns, begin("192.0.2.1"))
		synctest.Wait()
		require.Empty(t, answered, "nothing is computed out of turn")
		leave()
		<-time.After(time.Second)
		require.Len(t, answered, flood+1)
		require.Contains(t, answered[:2], "192.0.2.1", "it waits for one of the flood at most")
		for _, conn := range conns {
			require.NoError(t, conn.Close())
		}
		<-time.After(time.Second)
		require.EqualValues(t, flood+1, over.Load())
		require.Equal(t, 1, turns.free)
		require.Zero(t, turns.root.Children(), "nothing stays behind")

		// Who waits for a turn when the time is over, or its place is another's, is let go.
		leave, err = turns.enter(t.Context(), "somebody", "working")
		require.NoError(t, err)
		begin("192.0.2.3")
		<-time.After(handshakeTimeout + time.Second)
		require.EqualValues(t, flood+2, over.Load())
		for range maxHandshakes + 1 {
			begin("192.0.2.3")
		}
		<-time.After(time.Second)
		require.EqualValues(t, flood+3, over.Load(), "one more than there are places")
		<-time.After(handshakeTimeout + time.Second)
		require.EqualValues(t, flood+3+maxHandshakes, over.Load())
		leave()
		synctest.Wait()
		require.Zero(t, turns.root.Children())
	})
}

// Whoever begins handshakes as fast as they are answered, from one address, keeps nobody out who has
// another one. It prints how long a handshake takes meanwhile.
func TestAFloodOfHandshakesKeepsNobodyOut(t *testing.T) {
	members := newMembers(t, 1)
	members[0].start(t, members[0].config(t, nil))
	// dial connects from a loopback address of its own, and waits until the replica says something.
	dial := func(from byte, handshake func(net.Conn) (net.Conn, error)) {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}}).Dial("tcp", members[0].peer.Address)
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		conn, err = handshake(conn)
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		require.True(t, err == nil || from == 1, "%v", err)
	}
	measure := func(when string) {
		config := dialTLS(cluster, members[0].peer, nil, nil)
		config.NextProtos = []string{"h2"}
		var took []time.Duration
		for range 20 {
			began := time.Now()
			dial(2, func(conn net.Conn) (net.Conn, error) {
				secure := tls.Client(conn, config)
				return secure, secure.Handshake()
			})
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		t.Logf("%s: a handshake takes %v at the median, %v at most", when, took[len(took)/2], took[len(took)-1])
	}
	measure("alone")
	first := hello(t, "h2")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var answered atomic.Int64
	var flood sync.WaitGroup
	for range 32 {
		flood.Go(func() {
			for ctx.Err() == nil {
				dial(1, func(conn net.Conn) (net.Conn, error) {
					_, err := conn.Write(first)
					return conn, err
				})
				answered.Add(1)
			}
		})
	}
	eventually(t, func() bool { return answered.Load() > 100 }, "the flood begins")
	before, began := answered.Load(), time.Now()
	measure("beside a flood")
	t.Logf("%.0f others a second meanwhile", float64(answered.Load()-before)/time.Since(began).Seconds())
	cancel()
	flood.Wait()
}
