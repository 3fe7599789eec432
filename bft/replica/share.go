package replica

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// restFactor is how many times as long as it served a share then rests: what replicas fetch from this one takes at most 1/(1 + restFactor), a quarter, of
// one processor's time (and of the disk's) for the log and snapshots, and as much for single blocks, however many ask, however often.
const restFactor = 3

var (
	errMalformedCall = errors.New("malformed call")
	errBusy          = errors.New("the replica is serving a call of yours already: make one at a time")
)

// share is the part of a replica's time that serves what others fetch. Calls are served one after the other, each peer's once at a time, so that one that
// asks much takes no other's turn; votes and blocks of the running consensus wait for none of it. Safe for concurrent use.
type share struct {
	turn chan struct{} // holds a token while a call is served, or the rest after the one before is waited for

	mu    sync.Mutex
	calls map[bft.ReplicaID]bool
	rest  time.Time // nothing is served before
}

func newShare() *share {
	return &share{turn: make(chan struct{}, 1), calls: make(map[bft.ReplicaID]bool)}
}

// serve calls work when it is the peer's turn.
func (s *share) serve(ctx context.Context, from *transport.Sender, work func() ([]byte, error)) ([]byte, error) {
	var peer bft.ReplicaID
	if from != nil {
		peer = from.ID
	}
	if !s.enter(peer) {
		return nil, errBusy
	}
	defer s.leave(peer)
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if wait := time.Until(s.rest); wait > 0 && !broken("share-restless") { // rest is changed by whoever has the turn
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
	s.rest = began.Add(took + restFactor*took)
	return answer, err
}

func (s *share) enter(peer bft.ReplicaID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls[peer] && !broken("share-many-calls") {
		return false
	}
	s.calls[peer] = true
	return true
}

func (s *share) leave(peer bft.ReplicaID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, peer)
}
