package transport

import (
	"container/list"
	"context"
	"runtime"
	"sync"
	"time"
)

// turns shares out the work that callers cause: half of the processors at most are at it, so that
// what is ordered does not wait behind it, and each turn goes to the address that was served least,
// in time, and there to the connection that was. (Start-time fair queueing: Goyal, Vin, Cheng,
// SIGCOMM 1996.) Whoever gives up leaves the queue without having cost anything. Safe for concurrent
// use.
type turns struct {
	mu   sync.Mutex
	free int // turns that nobody has; if there are some, nobody waits
	root *share
}

func newTurns() *turns {
	return &turns{free: max(1, runtime.GOMAXPROCS(0)/2), root: newShare(nil, nil)}
}

// share is what all callers have, or an address, or a connection. It is forgotten when nobody of it
// works or waits.
type share struct {
	parent   *share
	key      any
	children map[any]*share
	queue    list.List     // of chan struct{}, which are closed when the turn has come; only of a connection
	present  int           // who work or wait here
	waiting  int           // of these
	served   time.Duration // a share that comes back after having had nothing starts where the others are
	begin    time.Duration // what the child had been served that came last: where others start
}

func newShare(parent *share, key any) *share {
	return &share{parent: parent, key: key, children: make(map[any]*share)}
}

func (s *share) child(key any) *share {
	c := s.children[key]
	if c == nil {
		c = newShare(s, key)
		c.served = s.begin
		s.children[key] = c
	}
	return c
}

// enter waits for a turn, which leave ends. It fails when ctx ends before.
func (t *turns) enter(ctx context.Context, address, connection any) (leave func(), err error) {
	t.mu.Lock()
	s := t.root.child(address).child(connection)
	for at := s; at != nil; at = at.parent {
		at.present++
	}
	if t.free > 0 {
		t.free--
		s.comes()
		t.mu.Unlock()
		return t.leave(s), nil
	}
	turn := make(chan struct{})
	place := s.queue.PushBack(turn)
	for at := s; at != nil; at = at.parent {
		if at.waiting++; at.waiting == 1 && at.parent != nil {
			at.served = max(at.served, at.parent.begin)
		}
	}
	t.mu.Unlock()
	select {
	case <-turn:
		return t.leave(s), nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-turn: // it came at the same moment
		t.pass()
	default:
		s.queue.Remove(place)
		s.waits(-1)
	}
	s.goes(0)
	return nil, context.Cause(ctx)
}

// leave returns what ends a turn.
func (t *turns) leave(s *share) func() {
	began := time.Now()
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		s.goes(time.Since(began))
		t.pass()
	}
}

// pass gives the turn to who was served least; with nobody there it is free.
func (t *turns) pass() {
	s := t.root
	if s.waiting == 0 {
		t.free++
		return
	}
	for s.queue.Len() == 0 {
		var least *share
		for _, c := range s.children {
			if c.waiting > 0 && (least == nil || c.served < least.served) {
				least = c
			}
		}
		s = least
	}
	s.waits(-1)
	s.comes()
	close(s.queue.Remove(s.queue.Front()).(chan struct{}))
}

// comes notes that a turn begins.
func (s *share) comes() {
	for ; s.parent != nil; s = s.parent {
		s.parent.begin = max(s.parent.begin, s.served)
	}
}

func (s *share) waits(n int) {
	for ; s != nil; s = s.parent {
		s.waiting += n
	}
}

// goes notes that somebody is here no more, who was served for so long.
func (s *share) goes(served time.Duration) {
	for ; s != nil; s = s.parent {
		s.served += served
		if s.present--; s.present == 0 && s.parent != nil {
			delete(s.parent.children, s.key)
		}
	}
}

// seat is where a call waits for its turns.
type seat struct {
	turns               *turns
	address, connection any
}

type seatKey struct{}

func (s seat) in(ctx context.Context) context.Context {
	return context.WithValue(ctx, seatKey{}, s)
}

// Turn waits until it is the turn of the caller of ctx, the context of a [Method]: what takes a
// processor's time, or memory, for an answer is done between that and leave. Nobody waits for
// anything else meanwhile. It returns at once for a context that is not a call's, and an error when
// the context ends.
func Turn(ctx context.Context) (leave func(), err error) {
	s, ok := ctx.Value(seatKey{}).(seat)
	if !ok {
		return func() {}, ctx.Err()
	}
	return s.turns.enter(ctx, s.address, s.connection)
}
