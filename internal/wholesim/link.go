package wholesim

import (
	"time"

	"github.com/reseal-bft/reseal/bft/transport"
)

// queueBytes bounds what waits for a peer, as package transport does.
const queueBytes = 64 << 20

// link is the connection of frames from one endpoint to a peer. The endpoint's lock guards it.
type link struct {
	e         *endpoint
	peer      transport.Peer
	frames    [][]byte
	bytes     int
	connected bool
	wake      chan struct{}
	again     chan struct{} // the credential has changed
}

// put queues frames, and drops the oldest where there are too many bytes. The caller holds the lock.
func (l *link) put(frames [][]byte) {
	for _, frame := range frames {
		l.frames = append(l.frames, frame)
		l.bytes += len(frame)
	}
	for l.bytes > queueBytes && len(l.frames) > 1 {
		l.bytes -= len(l.frames[0])
		l.frames = l.frames[1:]
	}
	signal(l.wake)
}

func (l *link) take() [][]byte {
	l.e.mu.Lock()
	defer l.e.mu.Unlock()
	frames := l.frames
	l.frames, l.bytes = nil, 0
	return frames
}

func (l *link) connect(to bool) {
	l.e.mu.Lock()
	l.connected = to
	l.e.mu.Unlock()
	if to && l.e.cfg.OnConnect != nil {
		l.e.cfg.OnConnect(l.peer.ID)
	}
}

func (l *link) arrow() arrow { return arrow{l.e.cfg.Self, l.peer.ID} }

// run keeps the connection until its process ends.
func (l *link) run() {
	ctx := l.e.ctx
	for retry := firstRetry; ctx.Err() == nil; retry = min(2*retry, lastRetry) {
		if l.session() {
			retry = firstRetry
		}
		l.connect(false)
		// With nobody there, look again when something has changed, and after a while.
		_, _, changed := l.e.w.reach(l.arrow())
		if pause(ctx, retry) != nil {
			return
		}
		end, cut, now := l.e.w.reach(l.arrow())
		if end == nil && !cut && l.e.cfg.OnLost != nil {
			l.e.cfg.OnLost(l.peer.ID)
		}
		if (end == nil || cut) && now == changed {
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}

// session is one connection, from the handshake until it breaks. It reports whether there was one.
func (l *link) session() bool {
	e := l.e
	server, cut, _ := e.w.reach(l.arrow())
	if server == nil || cut || pause(e.ctx, e.w.delay()) != nil {
		return false
	}
	select {
	case <-l.again:
	default:
	}
	from, err := e.authenticate(server, e.worn())
	if err != nil {
		return false
	}
	if _, err := server.authenticate(e, server.worn()); err != nil {
		return false
	}
	handled, ok := server.hear(from)
	if !ok {
		return false
	}
	defer close(handled)
	l.connect(true)
	for {
		frames := l.take()
		if len(frames) == 0 {
			select {
			case <-l.wake:
				continue
			case <-l.again:
				return true
			case <-server.ctx.Done():
				return true
			case <-e.ctx.Done():
				return true
			}
		}
		if pause(e.ctx, e.w.delay()) != nil || !l.passes(server) {
			return true
		}
		for _, frame := range frames {
			select {
			case handled <- frame:
			case <-server.ctx.Done():
				return true
			case <-e.ctx.Done():
				return true
			}
		}
	}
}

// passes waits while the network is cut; it reports whether the connection outlives that.
func (l *link) passes(server *endpoint) bool {
	timer := time.NewTimer(stallTime)
	defer timer.Stop()
	for {
		end, cut, changed := l.e.w.reach(l.arrow())
		if end != server {
			return false
		}
		if !cut {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		case <-l.e.ctx.Done():
			return false
		}
	}
}
