package replica

import (
	"container/list"
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
)

// Bounds of the pool, beside its bytes: requests of one client, beyond which one is refused, and its
// client told when to come back.
const (
	poolPerClient = request.Window
	// blockWeight bounds what one block carries, in the measure of [weight]: large enough to spread
	// the cost of a block's votes, small enough to travel and to be executed within a fraction of a
	// view.
	blockWeight = 1 << 20
	// awayWeight bounds what another leader was given and has not put into a block yet: one block
	// of his.
	awayWeight = blockWeight
	// largeWeight makes a request large: a block that carries one takes as long as several others.
	largeWeight = blockWeight / 8
)

// Large requests rest after one of them was in a block, for as long as that block took, but only
// while others are served: for lightFor after a request was that is not large.
const (
	lightFor = 200 * time.Millisecond
	mostRest = 250 * time.Millisecond
)

// What a request, and each of its operations, costs besides its bytes: a signature to verify and a
// session's record; a result.
const (
	requestWeight   = 512
	operationWeight = 128
)

// weight is what a request takes of a block: its bytes, or what is worth as much.
func weight(r *request.Request) int {
	return requestWeight + max(len(r.Raw()), operationWeight*len(r.Operations))
}

// What a request that waits takes in memory besides its bytes, and what each of its operations does.
const (
	pooledBytes    = 1 << 10
	operationBytes = 24
)

// footprint is what a request that waits takes in memory, in bytes.
func footprint(r *request.Request) int {
	return pooledBytes + len(r.Raw()) + operationBytes*len(r.Operations)
}

// How long a client that is refused is told to stay away: what it takes to order all that waits,
// within bounds.
const (
	leastAway = 100 * time.Millisecond
	mostAway  = 5 * time.Second
)

// againAfter is how long a peer that was given a request is taken to have it; that doubles with
// each time that it is given one again.
const againAfter = 8 * time.Second

// origin is where a request came from: a peer that handed it on, or a client at an address.
// Neither: it is this process's own.
type origin struct {
	peer    bft.ReplicaID
	address string
}

// pooled is a request that waits to be ordered. It is in the queue of its client, in a block,
// with the leader whose turn it is, or put aside.
type pooled struct {
	request *request.Request
	origin  origin
	client  *flow
	queued  *list.Element // nil: it is not in the queue
	view    bft.View      // of the block that carries it: until a block of that view or a later one is final, it is not proposed again
	away    bool
	aside   bool // it rests, see [pool.next]
	given   map[bft.ReplicaID]giving
}

// giving says that a peer was given a request, so that its body travels there once, unless it was lost.
type giving struct {
	at    time.Time
	holds time.Duration // the peer is taken to have it
}

// pool holds the verified requests that wait to be ordered. Each turn goes to who was served least,
// in weight: first among the replicas that requests came through, this one being one of them, then
// among the addresses of its clients, then among the keys at an address. So whoever asks for little
// is served at once, whatever others have here. What each may keep here is bounded by what is free:
// an address has at most as much as is left to all, a key at most as much as is left to its
// address; so there is always room for somebody else. (Dynamic thresholds: Choudhury, Hahne, 1998.)
// Safe for concurrent use.
type pool struct {
	limit int // bytes of memory

	mu       sync.Mutex
	byDigest map[bft.Digest]*pooled
	root     *flow
	mine     *flow                  // of this replica's clients
	keys     map[[32]byte]int       // requests of a client, through whomever they came
	blocks   map[bft.View][]*pooled // what blocks carry that are not final
	absent   []*pooled              // what was given to the leader of the turn
	turn     uint64
	weight   int           // of what is absent
	wake     chan struct{} // closed and replaced when there is something to take
	free     chan struct{} // holds a token when there may be something to hand on

	rate    float64 // weight that is ordered in a second, a moving average
	settled time.Time

	final bft.View  // of the last block that was settled
	heavy bft.View  // the last that carries a large request: none is taken until it is final or given up,
	rest  time.Time // and until then
	light time.Time // when a request was settled that is not large
	aside []*pooled // large requests whose turn has come, and that rest
}

func newPool(limit int) *pool {
	p := &pool{
		limit:    limit,
		byDigest: make(map[bft.Digest]*pooled), root: newFlow(nil, nil), keys: make(map[[32]byte]int),
		blocks: make(map[bft.View][]*pooled), wake: make(chan struct{}), free: make(chan struct{}, 1),
	}
	p.mine = p.root.child(bft.ReplicaID(0))
	p.mine.requests++ // it is never forgotten
	return p
}

// source is the key of the flows that an origin's requests belong to, and their parent.
func (p *pool) source(o origin) (parent *flow, key any) {
	if o.peer != 0 {
		return p.root, o.peer
	}
	return p.mine, o.address
}

// add keeps a verified request. One that is there already is no error. It returns a
// [transport.BusyError] when there is no room for it.
func (p *pool) add(r *request.Request, o origin, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if item := p.byDigest[r.Digest()]; item != nil {
		p.note(item, o, now)
		return nil
	}
	if err := p.refusal(r, o); err != nil {
		return err
	}
	item := &pooled{request: r, origin: o}
	p.byDigest[r.Digest()] = item
	p.keys[[32]byte(r.Client)]++
	p.place(item)
	p.note(item, o, now)
	p.back(item)
	return nil
}

// note takes note of who has a request, and who wants it ordered.
func (p *pool) note(item *pooled, o origin, now time.Time) {
	if o.peer != 0 {
		item.give(o.peer, now)
	} else if item.origin.peer != 0 { // now it is for this replica to see to it
		p.move(item, o)
	}
}

// admits says whether there is room for a request, which is not verified yet: see add.
func (p *pool) admits(r *request.Request, o origin) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byDigest[r.Digest()] != nil {
		return nil
	}
	return p.refusal(r, o)
}

var errCrowded = errors.New("the replica has too many requests waiting")

// refusal says why a request cannot be kept, nil if it can. This process's own are never refused.
func (p *pool) refusal(r *request.Request, o origin) error {
	if o == (origin{}) {
		return nil
	}
	client := [32]byte(r.Client)
	parent, key := p.source(o)
	var source, own int // bytes that its address, or its replica, has here, and its client there
	if f := parent.children[key]; f != nil {
		source = f.bytes
		if k := f.children[client]; k != nil {
			own = k.bytes
		}
	}
	if own+footprint(r) <= p.limit-p.root.bytes-source && p.keys[client] < poolPerClient {
		return nil
	}
	away := math.MaxFloat64
	if p.rate > 0 {
		away = float64(p.root.bytes) / p.rate * float64(time.Second)
	}
	return &transport.BusyError{After: time.Duration(min(max(away, float64(leastAway)), float64(mostAway))), Err: errCrowded}
}

// place makes an item a request of its client, at its origin.
func (p *pool) place(item *pooled) {
	parent, key := p.source(item.origin)
	item.client = parent.child(key).child([32]byte(item.request.Client))
	item.client.hold(footprint(item.request), 1)
}

// move makes an item one of another origin.
func (p *pool) move(item *pooled, o origin) {
	old, queued := item.client, item.queued != nil
	if queued {
		old.remove(item, 0)
	}
	item.origin = o
	p.place(item)
	old.hold(-footprint(item.request), -1)
	if queued {
		p.back(item)
	}
}

// back puts an item into its client's queue. The order there is that of the sequence numbers,
// almost always that of arrival.
func (p *pool) back(item *pooled) {
	p.fetchBack(item)
	item.view, item.aside = 0, false
	if item.queued == nil {
		item.client.put(item)
		p.news()
		signal(p.free)
	}
}

// news wakes whoever waits for something to take.
func (p *pool) news() {
	close(p.wake)
	p.wake = make(chan struct{})
}

// fetchBack notes that an item is not with the leader of the turn, or no longer.
func (p *pool) fetchBack(item *pooled) {
	if item.away {
		item.away = false
		p.weight -= weight(item.request)
		signal(p.free)
	}
}

// carry notes that a block of a view carries an item.
func (p *pool) carry(item *pooled, view bft.View) {
	if item.queued != nil {
		item.client.remove(item, weight(item.request))
	}
	p.fetchBack(item)
	item.view, item.aside = view, false
	p.blocks[view] = append(p.blocks[view], item)
	if isLarge(item.request) {
		p.heavy = max(p.heavy, view)
	}
}

func isLarge(r *request.Request) bool { return weight(r) > largeWeight }

// resting says whether large requests rest, and until when, when that is known.
func (p *pool) resting(now time.Time) (rests bool, until time.Time) {
	if now.Sub(p.light) >= lightFor {
		return false, now
	}
	if p.heavy > p.final {
		return true, p.light.Add(lightFor)
	}
	return now.Before(p.rest), p.rest
}

// next returns whose turn it is, nil when there is nothing. Large requests that rest are put aside,
// and come back to their clients' queues afterwards.
func (p *pool) next(f *flow, now time.Time) *pooled {
	rests, _ := p.resting(now)
	if !rests {
		aside := p.aside
		p.aside = nil
		for _, item := range aside {
			if item.aside && p.byDigest[item.request.Digest()] == item {
				p.back(item)
			}
		}
	}
	for {
		item := f.next()
		if item == nil || !rests || !isLarge(item.request) {
			return item
		}
		item.client.remove(item, 0)
		item.aside = true
		p.aside = append(p.aside, item)
	}
}

// has reports whether the request is pooled, and therefore verified.
func (p *pool) has(digest bft.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byDigest[digest] != nil
}

// take returns requests for a block of a view, as many as fit. It returns at once when there are
// some; else it waits for some until wait has passed.
func (p *pool) take(ctx context.Context, view bft.View, wait time.Duration) []*request.Request {
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		now := time.Now()
		taken, wake, rested := p.tryTake(view, now)
		if len(taken) > 0 || wait <= 0 {
			return taken
		}
		var again <-chan time.Time
		if !rested.IsZero() {
			again = time.After(rested.Sub(now))
		}
		select {
		case <-wake:
		case <-again:
		case <-timeout.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// tryTake returns what there is for a block of a view; if that is nothing, also what tells that
// there may be something, and when something has rested, zero when nothing rests.
func (p *pool) tryTake(view bft.View, now time.Time) (taken []*request.Request, wake <-chan struct{}, rested time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for left := blockWeight; ; {
		item := p.next(p.root, now)
		if item == nil || weight(item.request) > left && len(taken) > 0 {
			if len(p.aside) > 0 {
				_, rested = p.resting(now)
			}
			return taken, p.wake, rested
		}
		left -= weight(item.request)
		p.carry(item, view)
		taken = append(taken, item.request)
	}
}

// carried notes that a block of a view carries these requests, so that they are not proposed again
// meanwhile.
func (p *pool) carried(view bft.View, requests []*request.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range requests {
		if item := p.byDigest[r.Digest()]; item != nil && item.view != view {
			p.carry(item, view)
		}
	}
}

// giveBack makes requests that were taken for a block that was not made eligible again.
func (p *pool) giveBack(requests []*request.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range requests {
		if item := p.byDigest[r.Digest()]; item != nil {
			p.back(item)
		}
	}
}

// settle drops the requests that the final block of a view carries. Those that only abandoned
// blocks of that or an earlier view carried wait again.
func (p *pool) settle(view bft.View, requests []*request.Request, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ordered, large := 0, false
	for _, r := range requests {
		ordered += weight(r)
		if isLarge(r) {
			large = true
		} else {
			p.light = now
		}
		if item := p.byDigest[r.Digest()]; item != nil {
			p.drop(item)
		}
	}
	p.final = max(p.final, view)
	if large {
		p.rest = now.Add(min(now.Sub(p.settled), mostRest)) // for as long as others waited for this block
	}
	if len(p.aside) > 0 { // they may know now until when they rest
		p.news()
	}
	p.measure(ordered, now)
	for v, items := range p.blocks {
		if v > view {
			continue
		}
		delete(p.blocks, v)
		for _, item := range items {
			if item.view == v && p.byDigest[item.request.Digest()] == item {
				p.back(item)
			}
		}
	}
}

// drop forgets an item.
func (p *pool) drop(item *pooled) {
	if item.queued != nil {
		item.client.remove(item, 0)
	}
	p.fetchBack(item)
	item.client.hold(-footprint(item.request), -1)
	delete(p.byDigest, item.request.Digest())
	client := [32]byte(item.request.Client)
	if p.keys[client]--; p.keys[client] == 0 {
		delete(p.keys, client)
	}
}

// rateOver is the time over which the rate is averaged.
const rateOver = 2 * time.Second

// measure takes note of so much weight that was ordered.
func (p *pool) measure(ordered int, now time.Time) {
	if since := now.Sub(p.settled).Seconds(); !p.settled.IsZero() && since > 0 {
		p.rate += (float64(ordered)/since - p.rate) * (1 - math.Exp(-since/rateOver.Seconds()))
	}
	p.settled = now
}

// release makes every request eligible again: the blocks that carried them are gone with their epoch.
func (p *pool) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, item := range p.byDigest {
		p.back(item)
	}
	clear(p.blocks)
	p.absent, p.aside = nil, nil
	p.final, p.heavy = 0, 0
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
// now, in fair order. What it was given before it has, and does not need again. There are no more
// than it can put into one block: the rest waits here, for a later one or for this replica's own
// turn.
func (p *pool) hand(turn uint64, leader bft.ReplicaID, now time.Time) []*request.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*request.Request
	for turn == p.turn {
		item := p.next(p.mine, now)
		if item == nil || p.weight > 0 && p.weight+weight(item.request) > awayWeight {
			break
		}
		item.client.remove(item, weight(item.request))
		item.away = true
		p.weight += weight(item.request)
		p.absent = append(p.absent, item)
		if item.give(leader, now) {
			out = append(out, item.request)
		}
	}
	return out
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
func (p *pool) notGiven(peer bft.ReplicaID, requests []*request.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range requests {
		if item := p.byDigest[r.Digest()]; item != nil {
			delete(item.given, peer)
		}
	}
}
