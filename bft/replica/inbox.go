package replica

import (
	"context"
	"sync"
)

// inboxLimit is the length beyond which peers wait.
const inboxLimit = 4096

// inbox is a queue with one reader. Answers to effects are put without waiting, since they are as
// many as the effects; what peers send waits while the queue is long, so that a peer is slowed by
// its own connection.
type inbox[T any] struct {
	mu    sync.Mutex
	room  sync.Cond
	items []T
	some  chan struct{} // holds a token while there may be items
	done  bool
}

func (q *inbox[T]) init() {
	q.room.L = &q.mu
	q.some = make(chan struct{}, 1)
}

// put appends an item; it never blocks.
func (q *inbox[T]) put(item T) {
	q.mu.Lock()
	q.items = append(q.items, item)
	q.mu.Unlock()
	signal(q.some)
}

// putPeer appends an item that a peer sent, when there is room.
func (q *inbox[T]) putPeer(item T) {
	q.mu.Lock()
	for len(q.items) >= inboxLimit && !q.done {
		q.room.Wait()
	}
	q.items = append(q.items, item)
	q.mu.Unlock()
	signal(q.some)
}

// take returns all items in the order in which they were put, waiting for the first. It takes back
// the slice that it returned before. It returns nil when the context ends.
func (q *inbox[T]) take(ctx context.Context, used []T) []T {
	clear(used)
	for {
		q.mu.Lock()
		if len(q.items) > 0 {
			items := q.items
			q.items = used[:0]
			q.room.Broadcast()
			q.mu.Unlock()
			return items
		}
		q.mu.Unlock()
		select {
		case <-q.some:
		case <-ctx.Done():
			return nil
		}
	}
}

// close lets go of those who wait for room.
func (q *inbox[T]) close() {
	q.mu.Lock()
	q.done = true
	q.room.Broadcast()
	q.mu.Unlock()
}
