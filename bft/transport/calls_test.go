package transport

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft/budget"
)

// A peer that opens many connections and leaves its calls unfinished holds a budget's worth of
// memory and few connections; another peer's calls are served meanwhile.
func TestPeersCallsHaveABudget(t *testing.T) {
	const bytes = 32 << 20
	members := newMembers(t, 3)
	callee, honest, thief := members[0], members[1], members[2]
	cfg := callee.config(t, peersOf(members))
	cfg.Memory = &budget.Table{Clients: 8 << 20, Calls: bytes, Queue: 8 << 20}
	callee.start(t, cfg)
	callee.Handle("reseal/echo", func(_ context.Context, _ *Sender, request []byte) ([]byte, error) { return request, nil })
	honest.start(t, honest.config(t, peersOf(members)))
	eventually(t, func() bool { return len(honest.Connected()) == 1 }, "the honest peer connects")

	certificate := thief.config(t, nil).Certificate
	ended := make(chan struct{}, 2*peerConnections)
	for range cap(ended) {
		secure := dialTLS(cluster, callee.peer, func() *tls.Certificate { return &certificate }, nil)
		secure.NextProtos = []string{"h2"}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: secure, ForceAttemptHTTP2: true}}
		t.Cleanup(client.CloseIdleConnections)
		read, write := io.Pipe()
		t.Cleanup(func() { _ = write.Close() })
		go func() {
			_, _ = write.Write(announce(4 << 20))
			_, _ = write.Write(make([]byte, 4<<20-1))
		}()
		go func() {
			if response, err := begin(t, client, callee, "reseal/echo", read); err == nil {
				_, _ = io.ReadAll(response.Body)
				_ = response.Body.Close()
			}
			ended <- struct{}{}
		}()
	}
	for range cap(ended) / 2 { // what is beyond the budget, and beyond the number, ends
		<-ended
		answer, err := honest.Call(t.Context(), 1, "reseal/echo", make([]byte, 1<<20))
		require.NoError(t, err)
		require.Len(t, answer, 1<<20)
		callee.calls.mu.Lock()
		require.LessOrEqual(t, callee.calls.held, bytes)
		require.LessOrEqual(t, len(callee.calls.of("replica 3")), peerConnections)
		callee.calls.mu.Unlock()
	}
}

// A call that says nothing takes memory too: a client that begins calls on many connections, and
// sends not a byte in them, has the budget of all others.
func TestCallsWithoutAByteHaveABudget(t *testing.T) {
	const bytes = 1 << 20
	busy, peer := crowded(t, 64, bytes)
	ended := make(chan struct{}, 1<<10)
	for range 2 { // of 128 calls each, and the budget bears 64
		client := hostileClient(t, busy)
		for range clientStreams {
			read, write := io.Pipe()
			t.Cleanup(func() { _ = write.Close() })
			go func() {
				if response, err := begin(t, client, busy, "reseal/echo", read); err == nil {
					_, _ = io.ReadAll(response.Body)
					_ = response.Body.Close()
				}
				ended <- struct{}{}
			}()
		}
	}
	for range clientStreams {
		<-ended
	}
	c := busy.clients.callers
	c.mu.Lock()
	require.LessOrEqual(t, c.held, bytes)
	c.mu.Unlock()
	letsIn(t, busy, peer)
}
