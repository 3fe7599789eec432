package replica

import (
	"context"
	"errors"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
)

// methodHandOn takes requests of another replica's clients: a list like a block's payload. The
// answer has a byte for each of them, 1 if it was taken.
const methodHandOn = "reseal/hand-on"

// Hand-ons travel as calls, on connections of their own: votes and blocks never wait behind them.
const (
	handOnCalls   = 4 // under way to one peer: what comes meanwhile is gathered
	handOnTimeout = 5 * time.Second
)

// handOnLoop gives the requests of this replica's clients to the leader that will make the next
// block, as they come and as leaders take turns. What a leader has not put into a block when its
// turn is over, the next one gets; in its own turn the replica proposes them itself.
func (e *epochRun) handOnLoop() error {
	calls := make(map[bft.ReplicaID]chan struct{}) // one element for each call under way
	for {
		select {
		case <-e.ctx.Done():
			return e.ctx.Err()
		case <-e.turned:
		case <-e.r.pool.free:
		}
		leader, turn := e.turn()
		e.r.pool.begin(turn)
		if leader == e.config.Self {
			continue
		}
		under := calls[leader]
		if under == nil {
			under = make(chan struct{}, handOnCalls)
			calls[leader] = under
		}
		select {
		case under <- struct{}{}:
		default:
			continue // the end of a call comes back here
		}
		requests := e.r.pool.hand(turn, leader, time.Now())
		if len(requests) == 0 {
			<-under
			continue
		}
		e.group.Go(func() error {
			e.giveTo(leader, requests)
			<-under
			signal(e.turned)
			return nil
		})
	}
}

// turn is the leader that makes the next block, as far as this replica knows, and a number that is
// another one when another leader's turn begins.
func (e *epochRun) turn() (bft.ReplicaID, uint64) {
	view := bft.View(max(1, e.view.Load()))
	if proposed := bft.View(e.proposed.Load()); proposed >= view {
		view = min(proposed, view+1) + 1 // the leader makes one block ahead; who claims more is not believed
	}
	return e.config.LeaderOf(view), uint64(view-1) / uint64(e.config.Window)
}

// noteProposed takes note of a leader's block.
func (e *epochRun) noteProposed(view bft.View) {
	for {
		seen := e.proposed.Load()
		if uint64(view) <= seen {
			return
		}
		if e.proposed.CompareAndSwap(seen, uint64(view)) {
			signal(e.turned)
			return
		}
	}
}

// giveTo gives requests to a peer. What it does not take stays here, until its turn is over.
func (e *epochRun) giveTo(peer bft.ReplicaID, requests []*request.Request) {
	ctx, cancel := context.WithTimeout(e.ctx, handOnTimeout)
	defer cancel()
	answer, err := e.r.cfg.Network.Call(ctx, peer, methodHandOn, request.AppendPayload(nil, requests))
	if err == nil && len(answer) != len(requests) {
		err = errors.New("it answers with another number of requests")
	}
	if err == nil {
		var refused []*request.Request
		for i, taken := range answer {
			if taken == 0 {
				refused = append(refused, requests[i])
			}
		}
		e.r.pool.notGiven(peer, refused)
		return
	}
	e.r.pool.notGiven(peer, requests)
	if !transport.Unavailable(err) && e.ctx.Err() == nil {
		e.r.log.Warn("a replica did not take what clients asked for", "replica", peer, "error", err)
	}
}

// serveHandOn takes requests of a peer's clients into the pool.
func (r *Replica) serveHandOn(_ context.Context, from *transport.Sender, payload []byte) ([]byte, error) {
	if member := r.Membership().Member(from.ID); member == nil || !member.Accepts(from.EpochKey) {
		return nil, errors.New("only members of the epoch hand requests on")
	}
	requests, err := request.ParsePayload(payload)
	if err != nil {
		return nil, err
	}
	taken := make([]byte, len(requests))
	for i, req := range requests {
		err := r.admit(req, origin{peer: from.ID})
		if errors.Is(err, request.ErrSignature) {
			return nil, err
		}
		if err == nil {
			taken[i] = 1
		}
	}
	return taken, nil
}
