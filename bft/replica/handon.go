package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
)

// methodHandOn takes requests of another replica's clients: see appendHandOn. The answer has a byte
// for each of them, 1 if it was taken.
const methodHandOn = "reseal/hand-on"

// handedOn is a request that is handed on, with a number that stands for the address that it is
// from: those from one address have the same, and it tells nothing else of the address.
type handedOn struct {
	source  uint64
	request *request.Request
}

// appendHandOn appends requests to what is called with: the number of each before it, and else like
// a block's payload.
func appendHandOn(b []byte, given []handedOn) []byte {
	for _, g := range given {
		b = request.AppendPayload(binary.BigEndian.AppendUint64(b, g.source), []*request.Request{g.request})
	}
	return b
}

// parseHandOn parses what appendHandOn makes. The requests are slices of it; their signatures are not
// checked.
func parseHandOn(data []byte) (given []handedOn, err error) {
	for s := cryptobyte.String(data); !s.Empty(); {
		var g handedOn
		var raw cryptobyte.String
		if !s.ReadUint64(&g.source) || !s.ReadUint24LengthPrefixed(&raw) {
			return nil, errors.New("what was handed on ends inside a request")
		}
		if g.request, err = request.Parse(raw); err != nil {
			return nil, err
		}
		given = append(given, g)
	}
	return given, nil
}

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
	var rested <-chan time.Time
	for {
		select {
		case <-e.ctx.Done():
			return e.ctx.Err()
		case <-e.turned:
		case <-e.r.pool.free:
		case <-rested:
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
		now := time.Now()
		given, until := e.r.pool.hand(turn, leader, now)
		if rested = nil; !until.IsZero() {
			rested = time.After(until.Sub(now))
		}
		if len(given) == 0 {
			<-under
			continue
		}
		e.group.Go(func() error {
			e.giveTo(leader, given)
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
func (e *epochRun) giveTo(peer bft.ReplicaID, given []handedOn) {
	ctx, cancel := context.WithTimeout(e.ctx, handOnTimeout)
	defer cancel()
	answer, err := e.r.cfg.Network.Call(ctx, peer, methodHandOn, appendHandOn(nil, given))
	if err == nil && len(answer) != len(given) {
		err = errors.New("it answers with another number of requests")
	}
	if err == nil {
		var refused []handedOn
		for i, taken := range answer {
			if taken == 0 {
				refused = append(refused, given[i])
			}
		}
		e.r.pool.notGiven(peer, refused)
		return
	}
	e.r.pool.notGiven(peer, given)
	if !transport.Unavailable(err) && e.ctx.Err() == nil {
		e.r.log.Warn("a replica did not take what clients asked for", "replica", peer, "error", err)
	}
}

// serveHandOn takes requests of a peer's clients into the pool.
func (r *Replica) serveHandOn(_ context.Context, from *transport.Sender, data []byte) ([]byte, error) {
	if member := r.Membership().Member(from.ID); member == nil || !member.Accepts(from.EpochKey) {
		return nil, errors.New("only members of the epoch hand requests on")
	}
	given, err := parseHandOn(data)
	if err != nil {
		return nil, err
	}
	taken := make([]byte, len(given))
	for i, g := range given {
		err := r.admit(g.request, origin{peer: from.ID, source: g.source})
		if errors.Is(err, request.ErrSignature) {
			return nil, err
		}
		if err == nil {
			taken[i] = 1
		}
	}
	return taken, nil
}

// againAfter is how long a peer that was given a request is taken to have it; that doubles with
// each time that it is given one again.
const againAfter = 8 * time.Second

// giving says that a peer was given a request, so that its body travels there once, unless it was lost.
type giving struct {
	at    time.Time
	holds time.Duration // the peer is taken to have it
}

// fetchBack notes that an item is not with the leader of the turn, or no longer.
func (p *pool) fetchBack(item *pooled) {
	if !item.away {
		return
	}
	item.away = false
	*p.givenOf(item) -= item.cost
	signal(p.free)
}

// begin begins the turn of a leader: what leaders before had and did not put into a block waits
// here again.
func (p *pool) begin(turn uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if turn == p.turn {
		return
	}
	p.turn = turn
	for _, item := range p.absent {
		if item.away {
			p.back(item)
		}
	}
	p.absent = p.absent[:0]
}

// hand returns the requests of this replica's clients that the leader of the turn is to be given
// now, in fair order, and when something has rested, zero when nothing rests. What it was given
// before it has, and does not need again. There are no more than it can put into one block: the rest
// waits here, for a later one or for this replica's own turn.
func (p *pool) hand(turn uint64, leader bft.ReplicaID, now time.Time) (out []handedOn, rested time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for turn == p.turn {
		rests, until := p.pace.resting(now)
		item := p.next(p.mine, rests || p.given[1] > awayWeight-largeWeight)
		if rests && len(p.aside) > 0 {
			rested = until
		}
		if item == nil {
			break
		}
		item.large = p.large(item)
		if !item.large && p.given[0] > 0 && p.given[0]+p.pace.cost(item.request) > p.pace.room(now) {
			break
		}
		p.turnOf(item)
		item.away = true
		*p.givenOf(item) += item.cost
		p.absent = append(p.absent, item)
		if item.give(leader, now) {
			out = append(out, handedOn{p.sources[item.origin.address], item.request})
		}
	}
	return out, rested
}

// give notes that a peer is given a request, unless it is taken to have it.
func (item *pooled) give(peer bft.ReplicaID, now time.Time) bool {
	g, before := item.given[peer]
	if before && now.Sub(g.at) < g.holds {
		return false
	}
	if item.given == nil {
		item.given = make(map[bft.ReplicaID]giving)
	}
	item.given[peer] = giving{now, max(againAfter, 2*g.holds)}
	return true
}

// notGiven notes that a peer did not get requests after all.
func (p *pool) notGiven(peer bft.ReplicaID, given []handedOn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range given {
		if item := p.byDigest[g.request.Digest()]; item != nil {
			delete(item.given, peer)
		}
	}
}
