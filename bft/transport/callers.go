package transport

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/reseal-bft/reseal/bft/budget"
	"github.com/reseal-bft/reseal/bft/internal/seldom"
)

// callTime is how long a request may take to arrive, and an answer to be taken.
const callTime = 30 * time.Second

// reportEvery is how often at most it is reported that clients are turned away.
const reportEvery = 10 * time.Second

// callers are the connections of clients, or those on which peers call. There are so many at most:
// one more takes the place of the one that is missed least. What their calls hold in memory has a
// budget: when it is exceeded, the connection ends that holds most, of the address that does. Calls
// in flight, whole or not, have a bound, of which an address has as many as are left to all, and a
// connection as many as are left to its address: so there is always room for somebody else. Safe for
// concurrent use.
type callers struct {
	who    string // calls
	limit  int    // connections; 0: no limit but each's
	each   int    // connections of an address, of which one more ends the longest idle; 0: no limit
	most   int    // calls in flight; 0: no limit but the budget
	budget int    // bytes
	log    *slog.Logger
	teller *seldom.Teller[string] // of who calls

	mu      sync.Mutex
	conns   map[*caller]struct{}
	calls   int            // in flight
	callsOf map[string]int // of these, by address
	held    int            // bytes
	refused int            // connections, since the last report
	ended   int
}

func newCallers(who string, limit, each, bytes int, log *slog.Logger) *callers {
	return &callers{
		who: who, limit: limit, each: each, budget: bytes, log: log, teller: seldom.New[string](reportEvery),
		conns: make(map[*caller]struct{}), callsOf: make(map[string]int),
	}
}

// caller is one connection. What is read from it counts as held until the request that
// it is part of is served, as do answers that wait to be sent. What is on its way for longer than
// callTime counts no more, since nothing lasts that long without ending the connection.
type caller struct {
	net.Conn
	of      *callers
	address string // of a client, without the port; of a peer, its name
	// The rest is guarded by of.mu.
	open      int // calls in flight
	waiting   int // of these, whose answers are not taken; when the connection ends, none will be
	calls     int // of these, whose requests are complete
	last      time.Time
	held      [2]int // bytes: since turned, and in the time before that
	serving   int    // bytes of calls that are not done, and of their requests that are complete
	turned    time.Time
	connected bool
}

// callerInfo is how a call finds its connection.
type callerInfo struct {
	credentials.TLSInfo
	conn *caller
}

var errCrowded = errors.New("too many clients are connected")

// admit takes a connection in, or refuses it when nobody is missed less.
func (c *callers) admit(conn net.Conn, address string) (*caller, error) {
	now := time.Now()
	k := &caller{Conn: conn, of: c, address: address, last: now, turned: now, connected: true}
	c.mu.Lock()
	defer c.mu.Unlock()
	if own := c.of(address); c.each > 0 && len(own) >= c.each {
		c.end(slices.MinFunc(own, func(a, b *caller) int {
			return cmp.Or(cmp.Compare(min(a.calls, 1), min(b.calls, 1)), a.last.Compare(b.last))
		}))
		c.report(now)
	}
	if c.limit > 0 && len(c.conns) >= c.limit {
		least := c.least(k)
		if least == nil {
			c.refused++
			c.report(now)
			return nil, errCrowded
		}
		c.end(least)
		c.report(now)
	}
	c.conns[k] = struct{}{}
	return k, nil
}

// host is the address without the port; of IPv6 the network of 64 bits, which is what one
// subscriber has.
func host(address net.Addr) string {
	tcp, ok := address.(*net.TCPAddr)
	if !ok {
		return address.String()
	}
	ip := tcp.AddrPort().Addr().Unmap()
	if ip.Is6() && !ip.IsLoopback() {
		if network, err := ip.Prefix(64); err == nil {
			return network.String()
		}
	}
	return ip.String()
}

// least returns the connection that is to make room for another one; nil when that one has to go
// without. Connections without a call go first; among these, and among those with calls, those of
// the address that has most; of these the one that has been idle for longest. One with calls makes
// room only for an address that has fewer connections.
func (c *callers) least(k *caller) *caller {
	of := c.byAddress()
	var least *caller
	for other := range c.conns {
		if other.calls > 0 && of[other.address] <= of[k.address]+1 {
			continue
		}
		if least == nil || cmp.Or(
			cmp.Compare(min(other.calls, 1), min(least.calls, 1)),
			cmp.Compare(of[least.address], of[other.address]),
			other.last.Compare(least.last)) < 0 {
			least = other
		}
	}
	return least
}

// of returns the connections of an address.
func (c *callers) of(address string) (own []*caller) {
	for k := range c.conns {
		if k.address == address {
			own = append(own, k)
		}
	}
	return own
}

// byAddress counts the connections.
func (c *callers) byAddress() map[string]int {
	of := make(map[string]int)
	for k := range c.conns {
		of[k.address]++
	}
	return of
}

// end lets go of a connection; of.mu is held. What is in use of it notices.
func (c *callers) end(k *caller) {
	c.drop(k)
	c.ended++
	_ = k.Conn.Close()
}

func (c *callers) drop(k *caller) {
	if k.connected {
		k.connected = false
		delete(c.conns, k)
		c.held -= k.holds()
		c.over(k, k.waiting)
	}
}

// over says that calls of a connection are in flight no more; the lock is held.
func (c *callers) over(k *caller, calls int) {
	k.open -= calls
	c.calls -= calls
	if c.callsOf[k.address] -= calls; c.callsOf[k.address] == 0 {
		delete(c.callsOf, k.address)
	}
}

// report says, now and then, that clients were turned away.
func (c *callers) report(now time.Time) {
	if _, due := c.teller.Due(c.who, now); !due {
		return
	}
	busiest, n := "", 0
	for address, connections := range c.byAddress() {
		if connections > n {
			busiest, n = address, connections
		}
	}
	c.log.Warn(c.who+" are crowding: connections were refused, or made to end for others",
		"refused", c.refused, "ended", c.ended, "connections", len(c.conns), "most_from", busiest, "of_these", n, "held_bytes", c.held)
	c.refused, c.ended = 0, 0
}

// hold counts bytes of a connection that arrive, or wait to be sent, or lets go of some.
func (c *callers) hold(k *caller, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count(k, bytes, 0)
}

// count counts bytes of a connection that are under way, and of its complete requests; or,
// negative, lets go of some. While all hold too much, it ends the connection that holds most, of
// the address that does. The lock is held.
func (c *callers) count(k *caller, bytes, serving int) {
	if !k.connected {
		return
	}
	now := time.Now()
	before := k.holds()
	if now.Sub(k.turned) > callTime {
		k.held[1], k.held[0], k.turned = k.held[0], 0, now
	}
	k.held[0] += bytes
	if k.held[0] < 0 {
		k.held[1], k.held[0] = max(0, k.held[1]+k.held[0]), 0
	}
	k.serving += serving
	c.held += k.holds() - before
	for c.held > c.budget {
		holds := make(map[string]int)
		for k := range c.conns {
			holds[k.address] += k.holds()
		}
		c.end(slices.MaxFunc(slices.Collect(maps.Keys(c.conns)), func(a, b *caller) int {
			return cmp.Or(cmp.Compare(holds[a.address], holds[b.address]), cmp.Compare(a.holds(), b.holds()))
		}))
		c.report(now)
	}
}

// holds is what counts of a connection.
func (k *caller) holds() int { return k.held[0] + k.held[1] + k.serving }

// Read counts what arrives.
func (k *caller) Read(p []byte) (int, error) {
	n, err := k.Conn.Read(p)
	k.of.hold(k, n)
	return n, err
}

// Write has its time: who reads nothing would have gRPC keep his calls.
func (k *caller) Write(p []byte) (int, error) {
	defer k.overdue()()
	return k.Conn.Write(p)
}

// opened says whether there is room for a call that has begun, which then is in flight until closed.
// It takes memory before its first byte.
func (k *caller) opened() bool {
	c := k.of
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.most > 0 && k.open >= c.most-c.calls-c.callsOf[k.address] {
		return false
	}
	k.open++
	c.calls++
	c.callsOf[k.address]++
	c.count(k, 0, budget.Stream)
	return true
}

// closed says that a call is over, without an answer that would wait.
func (k *caller) closed() {
	k.of.mu.Lock()
	defer k.of.mu.Unlock()
	k.of.over(k, 1)
	k.of.count(k, 0, -budget.Stream)
}

// answered says that the answer to a call, of a size, is there. The call is over when it is taken,
// or the connection ends.
func (k *caller) answered(bytes int) {
	k.of.mu.Lock()
	defer k.of.mu.Unlock()
	if !k.connected {
		k.of.over(k, 1)
		return
	}
	k.waiting++
	k.of.count(k, bytes, 0)
}

// taken says that an answer was sent, or never will be.
func (k *caller) taken(bytes int) {
	k.of.mu.Lock()
	defer k.of.mu.Unlock()
	if !k.connected {
		return
	}
	k.waiting--
	k.of.over(k, 1)
	k.of.count(k, -bytes, -budget.Stream)
}

// began says that a request has arrived whole. It counts until the call is done, however long that
// takes.
func (k *caller) began(bytes int) {
	k.of.mu.Lock()
	defer k.of.mu.Unlock()
	k.calls++
	k.of.count(k, -bytes, bytes)
}

// done says that a call was served.
func (k *caller) done(bytes int) {
	k.of.mu.Lock()
	defer k.of.mu.Unlock()
	k.calls--
	k.last = time.Now()
	k.of.count(k, 0, -bytes)
}

// overdue ends the connection if the returned function is not called in time.
func (k *caller) overdue() (inTime func()) {
	timer := time.AfterFunc(callTime, func() {
		k.of.mu.Lock()
		defer k.of.mu.Unlock()
		if k.connected {
			k.of.end(k)
			k.of.report(time.Now())
		}
	})
	return func() { timer.Stop() }
}

// Close gives the place back.
func (k *caller) Close() error {
	k.of.mu.Lock()
	k.of.drop(k)
	k.of.mu.Unlock()
	return k.Conn.Close()
}
