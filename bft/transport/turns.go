package transport

import (
	"context"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft/internal/fair"
)

// turns shares out the work that callers cause: half of the processors at most are at it, so that
// what is ordered does not wait behind it, and each turn goes to the address that was served least,
// in time, and there to the connection that was (see [fair]). Whoever gives up leaves the queue
// without having cost anything. Safe for concurrent use.
type turns struct {
	mu   sync.Mutex
	free int                       // turns that nobody has; if there are some, nobody waits
	root *fair.Node[chan struct{}] // of addresses, and these of connections; what waits is closed when its turn has come
}

func newTurns(free int) *turns { return &turns{free: free, root: fair.New[chan struct{}]()} }

// enter waits for a turn, which leave ends. It fails when ctx ends before.
func (t *turns) enter(ctx context.Context, address, connection any) (leave func(), err error) {
	return t.wait(ctx, address, connection, nil)
}

// enterFirst is enter, before whoever waits there already.
func (t *turns) enterFirst(ctx context.Context, address, connection any) (leave func(), err error) {
	return t.wait(ctx, address, connection, func(chan struct{}) bool { return true })
}

func (t *turns) wait(ctx context.Context, address, connection any, before func(chan struct{}) bool) (leave func(), err error) {
	t.mu.Lock()
	n := t.root.Child(address).Child(connection)
	n.Hold(0, 1)
	if t.free > 0 {
		t.free--
		n.Begin()
		t.mu.Unlock()
		return t.leave(n), nil
	}
	turn := make(chan struct{})
	place := n.Put(turn, before)
	t.mu.Unlock()
	select {
	case <-turn:
		return t.leave(n), nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if place.Waits() {
		place.Remove()
	} else { // the turn came at the same moment
		t.pass()
	}
	n.Hold(0, -1)
	return nil, context.Cause(ctx)
}

// leave returns what ends a turn.
func (t *turns) leave(n *fair.Node[chan struct{}]) func() {
	began := time.Now()
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		n.Charge(int64(time.Since(began)))
		n.Hold(0, -1)
		t.pass()
	}
}

// pass gives the turn to who was served least; with nobody there it is free.
func (t *turns) pass() {
	next := t.root.Next()
	if next == nil {
		t.free++
		return
	}
	next.Take(0)
	close(next.Value)
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
