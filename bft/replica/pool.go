package replica

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
)

// Bounds of the pool. A request beyond them is refused, and its client told so.
const (
	poolBytes     = 64 << 20
	poolRequests  = 1 << 16
	poolPerClient = request.Window
	// blockBytes and blockOperations bound what one block carries: large enough to spread the cost of a block's votes, small enough
	// to travel and to be executed within a fraction of a view.
	blockBytes      = 1 << 20
	blockOperations = 1 << 13
)

var errPoolFull = errors.New("the replica has too many requests waiting; try again, or another replica")

// pooled is a request that waits to be ordered.
type pooled struct {
	request *request.Request
	since   time.Time
	// own is set for a request that a client gave to this replica, which then sees to it that it is ordered.
	own bool
	// inFlight is the height of the block that carries the request, if one does: until that height is final, it is not proposed again.
	inFlight bft.Height
}

// pool holds the verified requests that wait to be ordered, oldest first. Safe for concurrent use.
type pool struct {
	mu       sync.Mutex
	queue    *list.List // of *pooled
	byDigest map[bft.Digest]*list.Element
	clients  map[[32]byte]int
	bytes    int
	wake     chan struct{} // closed and replaced when a request arrives
}

func newPool() *pool {
	return &pool{
		queue:    list.New(),
		byDigest: make(map[bft.Digest]*list.Element),
		clients:  make(map[[32]byte]int),
		wake:     make(chan struct{}),
	}
}

// add keeps a verified request. A request that is there already is no error.
func (p *pool) add(r *request.Request, own bool, now time.Time) error {
	client := [32]byte(r.Client)
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.byDigest[r.Digest()]; ok {
		item := e.Value.(*pooled)
		item.own = item.own || own
		return nil
	}
	if p.bytes+len(r.Raw()) > poolBytes || p.queue.Len() >= poolRequests || p.clients[client] >= poolPerClient {
		return errPoolFull
	}
	p.byDigest[r.Digest()] = p.queue.PushBack(&pooled{request: r, since: now, own: own})
	p.clients[client]++
	p.bytes += len(r.Raw())
	close(p.wake)
	p.wake = make(chan struct{})
	return nil
}

// has reports whether the request is pooled, and therefore verified.
func (p *pool) has(digest bft.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.byDigest[digest]
	return ok
}

// take returns requests for a block at the given height, as many as fit. It returns at once when there are some; else it
// waits for some until wait has passed.
func (p *pool) take(ctx context.Context, height bft.Height, wait time.Duration) []*request.Request {
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		taken, wake := p.tryTake(height)
		if len(taken) > 0 || wait <= 0 {
			return taken
		}
		select {
		case <-wake:
		case <-timeout.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *pool) tryTake(height bft.Height) ([]*request.Request, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var taken []*request.Request
	bytes, operations := 0, 0
	for e := p.queue.Front(); e != nil; e = e.Next() {
		item := e.Value.(*pooled)
		if item.inFlight != 0 {
			continue
		}
		r := item.request
		full := bytes+len(r.Raw()) > blockBytes || operations+len(r.Operations) > blockOperations
		if full && len(taken) > 0 {
			break
		}
		item.inFlight = height
		taken = append(taken, r)
		bytes += len(r.Raw())
		operations += len(r.Operations)
	}
	return taken, p.wake
}

// carried notes that a block of the given height carries these requests, so that they are not proposed again meanwhile.
func (p *pool) carried(height bft.Height, requests []*request.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range requests {
		if e, ok := p.byDigest[r.Digest()]; ok {
			e.Value.(*pooled).inFlight = height
		}
	}
}

// settle drops the requests that the final block of the given height carries. Those that only abandoned blocks of that or a
// lower height carried wait again.
func (p *pool) settle(height bft.Height, requests []*request.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range requests {
		e, ok := p.byDigest[r.Digest()]
		if !ok {
			continue
		}
		p.queue.Remove(e)
		delete(p.byDigest, r.Digest())
		p.bytes -= len(r.Raw())
		client := [32]byte(r.Client)
		if p.clients[client]--; p.clients[client] == 0 {
			delete(p.clients, client)
		}
	}
	freed := false
	for e := p.queue.Front(); e != nil; e = e.Next() {
		if item := e.Value.(*pooled); item.inFlight != 0 && item.inFlight <= height {
			item.inFlight, freed = 0, true
		}
	}
	if freed {
		close(p.wake)
		p.wake = make(chan struct{})
	}
}

// release makes every request eligible again: the blocks that carried them are gone with their epoch.
func (p *pool) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.queue.Front(); e != nil; e = e.Next() {
		e.Value.(*pooled).inFlight = 0
	}
}

// overdue returns the requests that clients gave to this replica and that have waited since before the given time.
func (p *pool) overdue(before time.Time, limit int) []*request.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*request.Request
	for e := p.queue.Front(); e != nil && len(out) < limit; e = e.Next() {
		item := e.Value.(*pooled)
		if !item.since.Before(before) {
			break
		}
		if item.own {
			out = append(out, item.request)
		}
	}
	return out
}

// giveBack makes requests that were taken for a block that was not made eligible again.
func (p *pool) giveBack(requests []*request.Request) {
	p.carried(0, requests)
}
