package replica

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// restFactor is how many times as long as it served a share then rests: what replicas fetch from
// this one takes at most 1/(1 + restFactor), a quarter, of one processor's time (and of the disk's)
// for the log and snapshots, and as much for single blocks, however many ask, however often.
const restFactor = 3

// longestRest bounds a rest: a replica that is slow because its machine is has to let others come
// back all the same.
const longestRest = time.Second

// maxWaiting bounds the calls of one peer that wait.
const maxWaiting = 4

var (
	errMalformedCall = errors.New("malformed call")
	errBusy          = errors.New("too many calls of yours are waiting: make one at a time")
)

// share is the part of a replica's time that serves what others fetch. Calls are served one after
// the other, and of each peer one waits for its turn at a time, so that one that asks much takes no
// other's; votes and blocks of the running consensus wait for none of it. Safe for concurrent use.
type share struct {
	turn chan struct{} // holds a token while a call is served, or the rest after the one before is waited for
	rest time.Time     // nothing is served before; of whoever has the turn

	mu      sync.Mutex
	peers   map[bft.ReplicaID]chan struct{} // holds a token while a call of the peer is served or waits for the turn
	waiting map[bft.ReplicaID]int           // calls of the peer, that one included
}

func newShare() *share {
	return &share{turn: make(chan struct{}, 1), peers: make(map[bft.ReplicaID]chan struct{}), waiting: make(map[bft.ReplicaID]int)}
}

// serve calls work when it is the peer's turn.
func (s *share) serve(ctx context.Context, from *transport.Sender, work func() ([]byte, error)) ([]byte, error) {
	leave, err := s.enter(ctx, from)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := acquire(ctx, s.turn); err != nil {
		return nil, err
	}
	defer func() { <-s.turn }()
	if wait := time.Until(s.rest); wait > 0 && !broken("share-restless") {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	began := time.Now()
	answer, err := work()
	took := time.Since(began)
	s.rest = began.Add(took + min(restFactor*took, longestRest))
	return answer, err
}

// enter waits until no other call of the peer is before this one.
func (s *share) enter(ctx context.Context, from *transport.Sender) (leave func(), err error) {
	if from == nil || broken("share-many-calls") {
		return func() {}, nil
	}
	s.mu.Lock()
	own := s.peers[from.ID]
	if own == nil {
		own = make(chan struct{}, 1)
		s.peers[from.ID] = own
	}
	if s.waiting[from.ID] >= maxWaiting {
		s.mu.Unlock()
		return nil, errBusy
	}
	s.waiting[from.ID]++
	s.mu.Unlock()
	gone := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.waiting[from.ID]--
	}
	if err := acquire(ctx, own); err != nil {
		gone()
		return nil, err
	}
	return func() { <-own; gone() }, nil
}

func acquire(ctx context.Context, token chan struct{}) error {
	select {
	case token <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
