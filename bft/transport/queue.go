package transport

import "sync"

// queue holds frames for one peer, bounded in bytes. Safe for concurrent use.
type queue struct {
	limit int
	wake  chan struct{} // holds one signal while frames may wait

	mu      sync.Mutex
	frames  [][]byte
	bytes   int
	dropped uint64
}

func newQueue(limit int) *queue { return &queue{limit: limit, wake: make(chan struct{}, 1)} }

// put adds a frame, and drops the oldest ones while there are too many bytes. The new frame itself
// is kept.
func (q *queue) put(frame []byte) {
	q.mu.Lock()
	q.frames = append(q.frames, frame)
	q.bytes += len(frame)
	for q.bytes > q.limit && len(q.frames) > 1 {
		q.bytes -= len(q.frames[0])
		q.frames[0] = nil
		q.frames = q.frames[1:]
		q.dropped++
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take removes frames from the front: as many as fit into batch bytes, but at least one; none when
// the queue is empty.
func (q *queue) take(batch int) [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < len(q.frames) && (n == 0 || size+len(q.frames[n]) <= batch) {
		size += len(q.frames[n])
		n++
	}
	taken := q.frames[:n:n]
	q.bytes -= size
	if q.frames = q.frames[n:]; len(q.frames) == 0 {
		q.frames = nil
	}
	return taken
}

func (q *queue) stats() (bytes int, dropped uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes, q.dropped
}
