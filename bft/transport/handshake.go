package transport

import (
	"container/list"
	"context"
	"errors"
	"net"
	"sync"

	"github.com/reseal-bft/reseal/bft/budget"
)

// maxHandshakes bounds the connections that have not authenticated yet: far more than a cluster's
// own at any time. One more ends the oldest of the address that has most, which has had the most
// time of these. Those from addresses of peers have places of their own: whoever has as many
// addresses as there are places could keep a replica that has rebooted from all others.
const (
	maxHandshakes   = budget.Handshakes - peersHandshakes
	peersHandshakes = budget.Handshakes / 4
)

// largestHandshake bounds what is read for a handshake, in bytes; that of a peer takes three thousand.
// crypto/tls would take a certificate of 256 KiB, which becomes 20 MB where it is parsed.
const largestHandshake = 8 << 10

var errLargeHandshake = errors.New("a handshake was too large")

// handshakes are the connections that have not authenticated yet, oldest first. Safe for concurrent use.
type handshakes struct {
	isPeers func(address string) bool // may be nil

	mu    sync.Mutex
	conns places // of whoever is no peer, as far as the address tells
	peers places
}

// places are handshakes of which one more than there are places for ends another one.
type places struct{ list.List } // of *handshake

// handshake is a connection while it authenticates. What a replica computes for it, between two
// reads, takes a turn of its address, where all handshakes stand in one queue: whoever begins them
// as fast as he can waits for himself, and others for one turn of his. The last one is the first of
// the queue: of more than there is time for, some are done, where the other way round all would wait
// until they are over.
type handshake struct {
	net.Conn
	address string
	left    int // bytes that it may still have
	turns   *turns
	ctx     context.Context // until the handshake is over, or has to be
	end     context.CancelFunc
	leave   func() // ends the turn; nil between turns
}

// handshaking is what all handshakes of an address are to [turns], among its connections.
type handshaking struct{}

// enter adds a connection until leave is called. What is computed for it takes turns until it is
// finished.
func (s *handshakes) enter(conn net.Conn, turns *turns) (h *handshake, leave func()) {
	h = &handshake{Conn: conn, address: host(conn.RemoteAddr()), left: largestHandshake, turns: turns}
	h.ctx, h.end = context.WithTimeout(context.Background(), handshakeTimeout)
	in, most := &s.conns, maxHandshakes
	if s.isPeers != nil && s.isPeers(h.address) {
		in, most = &s.peers, peersHandshakes
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.Len() >= most {
		oldest := in.Remove(in.least()).(*handshake)
		oldest.end()
		_ = oldest.Conn.Close()
	}
	e := in.PushBack(h)
	return h, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		in.Remove(e)
	}
}

// least returns the oldest connection of the address that has most.
func (p *places) least() (least *list.Element) {
	of, most := make(map[string]int), 0
	for e := p.Back(); e != nil; e = e.Prev() { // to the oldest
		address := e.Value.(*handshake).address
		of[address]++
		most = max(most, of[address])
	}
	for e := p.Back(); e != nil; e = e.Prev() {
		if of[e.Value.(*handshake).address] == most {
			least = e
		}
	}
	return least
}

// Read waits for its turn when something has arrived, which lasts until it reads again.
func (h *handshake) Read(p []byte) (int, error) {
	if h.turns == nil {
		return h.Conn.Read(p)
	}
	h.pause()
	if h.left == 0 {
		return 0, errLargeHandshake
	}
	n, err := h.Conn.Read(p[:min(len(p), h.left)])
	h.left -= n
	if err == nil {
		h.leave, err = h.turns.enterFirst(h.ctx, h.address, handshaking{})
	}
	return n, err
}

func (h *handshake) pause() {
	if h.leave != nil {
		h.leave()
		h.leave = nil
	}
}

// finish says that the handshake is over. It is called before anybody else has the connection.
func (h *handshake) finish() {
	h.pause()
	h.end()
	h.turns = nil
}
