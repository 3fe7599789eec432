package replica

import (
	"context"
	"sync"
)

// inbox is a queue with one reader. It is not bounded itself: answers to effects are as many as the
// effects, and what peers send goes through a [meter] first.
type inbox[T any] struct {
	mu    sync.Mutex
	items []T
	some  chan struct{} // holds a token while there may be items
}

func (q *inbox[T]) init() { q.some = make(chan struct{}, 1) }

// put appends an item; it never blocks.
func (q *inbox[T]) put(item T) {
	q.mu.Lock()
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
