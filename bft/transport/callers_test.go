package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/budget"
)

// crowded is a replica that takes few clients and holds little for them, and another one that
// connects to it.
func crowded(t *testing.T, clients, bytes int) (busy, peer *member) {
	members := newMembers(t, 2)
	cfg := members[0].config(t, peersOf(members))
	cfg.MaxClients, cfg.Memory = clients, &budget.Table{Clients: bytes, Calls: 64 << 20, Queue: 64 << 20}
	members[0].start(t, cfg)
	members[0].HandleClient("reseal/echo", func(_ context.Context, _ *Sender, request []byte) ([]byte, error) { return request, nil })
	members[0].HandleClient("reseal/large", func(context.Context, *Sender, []byte) ([]byte, error) { return make([]byte, 1<<20), nil })
	return members[0], members[1]
}

// letsIn checks that a client and a replica get in.
func letsIn(t *testing.T, busy, peer *member) {
	answer, err := dialClient(t, cluster, busy.peer).Call(t.Context(), "reseal/echo", []byte("hello"))
	require.NoError(t, err)
	require.Equal(t, "hello", string(answer))
	peer.start(t, peer.config(t, []Peer{busy.peer, peer.peer}))
	eventually(t, func() bool { return len(peer.Connected()) == 1 }, "a replica gets in")
	answer, err = peer.Call(t.Context(), 1, "reseal/echo", []byte("hello"))
	require.NoError(t, err)
	require.Equal(t, "hello", string(answer))
}

func TestSilentConnectionsLockNobodyOut(t *testing.T) {
	for name, secure := range map[string]bool{"no handshake": false, "no call": true} {
		t.Run(name, func(t *testing.T) {
			busy, peer := crowded(t, 8, 8<<20)
			for range maxHandshakes + 20 {
				conn, err := net.Dial("tcp", busy.peer.Address)
				require.NoError(t, err)
				t.Cleanup(func() { _ = conn.Close() })
				if secure {
					secured := tls.Client(conn, hostile(busy))
					require.NoError(t, secured.Handshake())
					_, err := io.WriteString(secured, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
					require.NoError(t, err)
				}
			}
			letsIn(t, busy, peer)
		})
	}
}

func hostile(to *member) *tls.Config {
	cfg := dialTLS(cluster, to.peer, nil, nil)
	cfg.NextProtos = []string{"h2"}
	return cfg
}

// call begins a call with a body that goes on as the caller likes.
func begin(t *testing.T, client *http.Client, to *member, method string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+to.peer.Address+"/"+method, body)
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("TE", "trailers")
	return client.Do(request)
}

func hostileClient(t *testing.T, to *member) *http.Client {
	transport := &http.Transport{TLSClientConfig: hostile(to), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// announce is the head of a gRPC message with so many bytes.
func announce(bytes int) []byte { return binary.BigEndian.AppendUint32([]byte{0}, uint32(bytes)) }

// A request that is too large is refused at its head; none of the rest is waited for.
func TestALargeRequestIsRefusedAtItsFirstBytes(t *testing.T) {
	busy, _ := crowded(t, 8, 8<<20)
	read, write := io.Pipe()
	t.Cleanup(func() { _ = write.Close() })
	go func() { _, _ = write.Write(announce(bft.MaxRequest + 1<<10 + 1)) }()
	response, err := begin(t, hostileClient(t, busy), busy, "reseal/echo", read)
	require.NoError(t, err)
	_, err = io.ReadAll(response.Body)
	require.NoError(t, err)
	status := response.Trailer.Get("Grpc-Status") + response.Header.Get("Grpc-Status")
	require.Equal(t, "8", status, "RESOURCE_EXHAUSTED")
}

// Header fields that were said once cost a byte each from then on, and memory for as long as the
// call lasts.
func TestALargeHeaderIsRefused(t *testing.T) {
	busy, _ := crowded(t, 8, 8<<20)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+busy.peer.Address+"/reseal/echo", bytes.NewReader(announce(0)))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/grpc")
	for range 2 * headerBytes / 36 {
		request.Header.Add("A", "bcd") // 32 bytes are counted beside the name and the value
	}
	client := hostileClient(t, busy)
	_, err = begin(t, client, busy, "reseal/echo", bytes.NewReader(announce(0)))
	require.NoError(t, err, "by now it knows the limit")
	_, err = client.Do(request)
	require.Error(t, err)
}

// Calls that are given up leave nothing behind that would end their connection.
func TestCancelledCallsAreHeldNoMore(t *testing.T) {
	busy, _ := crowded(t, 8, 64<<20)
	client := dialClient(t, cluster, busy.peer)
	for i := range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*20*time.Microsecond)
		_, _ = client.Call(ctx, "reseal/large", nil)
		cancel()
	}
	c := busy.clients.callers
	eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.held < 1<<20 && c.ended == 0
	}, "all is given back")
}

// Requests that lack their last byte hold memory within a budget; then their connection ends, and
// others are served.
func TestUnfinishedRequestsHaveABudget(t *testing.T) {
	const budget = 8 << 20
	busy, peer := crowded(t, 8, budget)
	client := hostileClient(t, busy)
	ended := make(chan struct{}, 20)
	for range cap(ended) {
		read, write := io.Pipe()
		t.Cleanup(func() { _ = write.Close() })
		go func() {
			_, _ = write.Write(announce(1 << 20))
			_, _ = write.Write(make([]byte, 1<<20-1))
		}()
		go func() {
			response, err := begin(t, client, busy, "reseal/echo", read)
			if err == nil {
				_, _ = io.ReadAll(response.Body)
				_ = response.Body.Close()
			}
			ended <- struct{}{}
		}()
	}
	<-ended
	busy.clients.callers.mu.Lock()
	held := busy.clients.callers.held
	busy.clients.callers.mu.Unlock()
	require.LessOrEqual(t, held, budget)
	letsIn(t, busy, peer)
}

// Answers that nobody takes hold memory within the same budget.
func TestAnswersThatAreNotTakenHaveABudget(t *testing.T) {
	busy, peer := crowded(t, 8, 8<<20)
	client := hostileClient(t, busy)
	for range 20 {
		response, err := begin(t, client, busy, "reseal/large", bytes.NewReader(announce(0)))
		if err != nil {
			break // the connection has ended
		}
		t.Cleanup(func() { _ = response.Body.Close() }) // its body is never read
	}
	eventually(t, func() bool {
		c := busy.clients.callers
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.held <= c.budget
	}, "within the budget")
	letsIn(t, busy, peer)
}

// An honest client that sends and takes much, for long, is never over its budget for what has come
// and gone.
func TestWhatIsAnsweredIsHeldNoMore(t *testing.T) {
	busy, _ := crowded(t, 8, 8<<20)
	client := dialClient(t, cluster, busy.peer)
	request := make([]byte, 1<<20)
	for range 40 {
		_, err := client.Call(t.Context(), "reseal/echo", request)
		require.NoError(t, err)
	}
	c := busy.clients.callers
	eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.held < 1<<20 && len(c.conns) == 1 && c.ended == 0
	}, "only overheads are left")
}

// Who makes room, and for whom.
func TestWhoMakesRoom(t *testing.T) {
	now := time.Now()
	conn := func(address string, calls int, idle time.Duration) *caller {
		return &caller{address: address, calls: calls, last: now.Add(-idle), connected: true}
	}
	var (
		greedyIdle = conn("greedy", 0, time.Second)
		greedyLong = conn("greedy", 0, time.Minute)
		greedyBusy = conn("greedy", 1, time.Hour)
		honestIdle = conn("honest", 0, time.Hour)
		honestBusy = conn("honest", 1, time.Hour)
	)
	for name, c := range map[string]struct {
		there []*caller
		comes string
		goes  *caller
	}{
		"of the address with most, the longest idle":             {[]*caller{greedyIdle, greedyLong, greedyBusy, honestIdle}, "new", greedyLong},
		"idle before busy":                                       {[]*caller{greedyBusy, conn("greedy", 1, 0), honestIdle}, "new", honestIdle},
		"the greedy address makes room for its own":              {[]*caller{greedyBusy, greedyIdle, honestBusy}, "greedy", greedyIdle},
		"a busy one of the greedy address makes room for others": {[]*caller{conn("greedy", 1, 0), greedyBusy, conn("greedy", 2, 0), honestBusy}, "new", greedyBusy},
		"and not for its own":                                    {[]*caller{conn("greedy", 1, 0), greedyBusy, honestBusy}, "greedy", nil},
		"an address with as many does not displace a busy one":   {[]*caller{honestBusy, greedyBusy}, "new", nil},
	} {
		t.Run(name, func(t *testing.T) {
			of := newCallers("clients", 0, 0, 0, nil)
			for _, k := range c.there {
				of.conns[k] = struct{}{}
			}
			require.Same(t, c.goes, of.least(conn(c.comes, 0, 0)))
		})
	}
}

// Calls whose requests do not arrive are calls in flight, with what their headers take.
func TestCallsThatAreOnlyBegunAreBounded(t *testing.T) {
	members := newMembers(t, 1)
	busy := members[0]
	cfg := busy.config(t, nil)
	cfg.MaxClientCalls = 30
	busy.start(t, cfg)
	busy.HandleClient("reseal/echo", func(_ context.Context, _ *Sender, request []byte) ([]byte, error) { return request, nil })
	client := hostileClient(t, busy)
	refused := make(chan struct{}, 60)
	for range cap(refused) {
		read, write := io.Pipe()
		t.Cleanup(func() { _ = write.Close() })
		go func() {
			if response, err := begin(t, client, busy, "reseal/echo", read); err == nil { // its header comes with the refusal
				_ = response.Body.Close()
				refused <- struct{}{}
			}
		}()
	}
	for range cap(refused) - 30/3 {
		<-refused
	}
	require.LessOrEqual(t, inFlight(busy), 30/3, "a connection has as many as are left to its address, and that as many as are left to all")
	c := busy.clients.callers
	c.mu.Lock()
	held := c.held
	c.mu.Unlock()
	require.GreaterOrEqual(t, held, 30/3*budget.Stream)
	_, err := dialClient(t, cluster, busy.peer).Call(t.Context(), "reseal/echo", nil)
	require.NoError(t, err)
}

// untaken has a client call a method, on a connection that takes no answer, until done is called.
func untaken(t *testing.T, to *member, method string, calls int) (done func()) {
	conn, err := tls.Dial("tcp", to.peer.Address, hostile(to))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	request := calling(t, method, nil, calls, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	_, err = conn.Write(request)
	require.NoError(t, err)
	return func() { require.NoError(t, conn.Close()) }
}

// Calls whose answers are not taken are calls in flight, with what gRPC keeps for them, however
// small the answers are; when the connection has ended they are no more.
func TestCallsThatAreNotTakenAreBounded(t *testing.T) {
	members := newMembers(t, 1)
	busy := members[0]
	cfg := busy.config(t, nil)
	cfg.MaxClientCalls = 30
	busy.start(t, cfg)
	var served atomic.Int64
	busy.HandleClient("reseal/small", func(context.Context, *Sender, []byte) ([]byte, error) {
		served.Add(1)
		return []byte("small"), nil
	})
	done := untaken(t, busy, "/reseal/small", 100)
	eventually(t, func() bool { return served.Load() == 30/3 }, "as many as are left")
	c := busy.clients.callers
	eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.calls == 30/3 && c.held >= 30/3*budget.Stream
	}, "they are in flight, and held")
	_, err := dialClient(t, cluster, busy.peer).Call(t.Context(), "reseal/none", nil)
	require.Error(t, err, "others are answered")
	done()
	eventually(t, func() bool { return inFlight(busy) == 0 }, "nothing stays behind")
}

// fromAddress is a connection of which only the address matters.
type fromAddress struct {
	net.Conn
	address string
	closed  bool
}

func (c *fromAddress) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.ParseIP(c.address), Port: 1}
}
func (c *fromAddress) Close() error { c.closed = true; return nil }
