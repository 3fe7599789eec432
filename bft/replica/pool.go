package replica

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/internal/fair"
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
	// awayWeight bounds what another leader was given and has not put into a block yet: one block of
	// his, and as much that is large, which nothing else waits for.
	awayWeight = blockWeight
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

// origin is where a request came from: a client at an address, or a peer that handed it on, with the
// number that stands for the address there. None of it: it is this process's own.
type origin struct {
	address string
	peer    bft.ReplicaID
	source  uint64
}

// at names an address among those of its replica's clients.
func (o origin) at() any {
	if o.peer != 0 {
		return o.source
	}
	return o.address
}

// pooled is a request that waits to be ordered. It is in the queue of its client, in a block,
// with the leader whose turn it is, or put aside.
type pooled struct {
	request *request.Request
	origin  origin
	client  *flow
	queued  *fair.Item[*pooled]
	cost    int      // what it was taken to weigh in its turn
	view    bft.View // of the block that carries it: until a block of that view or a later one is final, it is not proposed again
	away    bool
	large   bool // while it is away
	aside   bool // it rests, see [pool.next]
	given   map[bft.ReplicaID]giving
}

// flow is one of those that turns are shared out among, with the requests of a client. Its size is
// their footprint, also of what was taken and is not ordered yet.
type flow = fair.Node[*pooled]

// pool holds the verified requests that wait to be ordered. Each turn goes to who was served least,
// in weight, results included: first among the replicas that requests came through, this one being
// one of them, then among the addresses of a replica's clients, as it tells them apart, then among
// the keys at an address. So whoever asks for little is served at once, whatever others have here,
// and a peer that lies about addresses harms what comes through it alone. What each may keep here is
// bounded by what is free: an address of this replica's clients, and a peer, has at most as much as
// is left to all, an address at a peer at most as much as is left to the peer, a key at most as much
// as is left to its address; so there is always room for somebody else. (Dynamic thresholds:
// Choudhury, Hahne, 1998.) Safe for concurrent use.
type pool struct {
	limit int // bytes of memory

	mu       sync.Mutex
	byDigest map[bft.Digest]*pooled
	root     *flow
	mine     *flow                  // of this replica's clients
	sources  map[string]uint64      // what stands for their addresses at leaders
	named    uint64                 // the last of these
	keys     map[[32]byte]int       // requests of a client, through whomever they came
	blocks   map[bft.View][]*pooled // what blocks carry that are not final
	absent   []*pooled              // what was given to the leader of the turn
	turn     uint64
	given    [2]int        // what it costs: of what is not large, and of what is
	wake     chan struct{} // closed and replaced when there is something to take
	free     chan struct{} // holds a token when there may be something to hand on

	rate    float64 // weight that is ordered in a second, a moving average
	settled time.Time

	pace  pace
	aside []*pooled // large requests whose turn has come, and that rest
}

func newPool(limit int) *pool {
	p := &pool{
		limit:    limit,
		byDigest: make(map[bft.Digest]*pooled), root: fair.New[*pooled](), keys: make(map[[32]byte]int),
		sources: make(map[string]uint64), blocks: make(map[bft.View][]*pooled), wake: make(chan struct{}), free: make(chan struct{}, 1),
	}
	p.mine = p.root.Child(bft.ReplicaID(0))
	p.mine.Hold(0, 1) // it is never forgotten
	return p
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
	client, peer := [32]byte(r.Client), p.root.Find(o.peer)
	address := peer.Find(o.at())
	left := p.limit - p.root.Size() - address.Size()
	if o.peer != 0 {
		left -= peer.Size()
	}
	if address.Find(client).Size()+footprint(r) <= left && p.keys[client] < poolPerClient {
		return nil
	}
	away := math.MaxFloat64
	if p.rate > 0 {
		away = float64(p.root.Size()) / p.rate * float64(time.Second)
	}
	return &transport.BusyError{After: time.Duration(min(max(away, float64(leastAway)), float64(mostAway))), Err: errCrowded}
}

// place makes an item a request of its client, at its origin.
func (p *pool) place(item *pooled) {
	o := item.origin
	if o.peer == 0 && p.mine.Find(o.at()) == nil {
		p.named++
		p.sources[o.address] = p.named
	}
	item.client = p.root.Child(o.peer).Child(o.at()).Child([32]byte(item.request.Client))
	item.client.Hold(footprint(item.request), 1)
}

// leave makes an item no more what it was: a request of a client, at an origin.
func (p *pool) leave(item *pooled, client *flow, o origin) {
	client.Hold(-footprint(item.request), -1)
	if o.peer == 0 && p.mine.Find(o.at()) == nil {
		delete(p.sources, o.address)
	}
}

// move makes an item one of another origin.
func (p *pool) move(item *pooled, o origin) {
	client, from, queued := item.client, item.origin, item.queued.Waits()
	if queued {
		item.queued.Remove()
	}
	item.origin = o
	p.place(item)
	p.leave(item, client, from)
	if queued {
		p.back(item)
	}
}

// back makes an item wait for its turn again, and tells who may take it.
func (p *pool) back(item *pooled) {
	if p.queue(item) {
		p.news()
		signal(p.free)
	}
}

// queue puts an item into its client's queue, if it is not there. The order there is that of the
// sequence numbers, almost always that of arrival.
func (p *pool) queue(item *pooled) bool {
	p.fetchBack(item)
	item.view, item.aside = 0, false
	if item.queued.Waits() {
		return false
	}
	item.queued = item.client.Put(item, func(other *pooled) bool { return item.request.Sequence < other.request.Sequence })
	return true
}

// turnOf gives an item its turn, if it waits for it.
func (p *pool) turnOf(item *pooled) {
	if item.queued.Waits() {
		item.cost = p.pace.cost(item.request)
		item.queued.Take(int64(item.cost))
	}
}

// news wakes whoever waits for something to take.
func (p *pool) news() {
	close(p.wake)
	p.wake = make(chan struct{})
}

// carry notes that a block of a view carries an item.
func (p *pool) carry(item *pooled, view bft.View, now time.Time) {
	p.turnOf(item)
	p.fetchBack(item)
	item.view, item.aside = view, false
	p.blocks[view] = append(p.blocks[view], item)
	if p.large(item) {
		p.pace.carries(view, now)
	}
}

func (p *pool) givenOf(item *pooled) *int {
	if item.large {
		return &p.given[1]
	}
	return &p.given[0]
}

func (p *pool) large(item *pooled) bool { return p.pace.cost(item.request) > largeWeight }

// next returns whose turn it is, nil when there is nothing. Large requests that rest are put aside,
// and come back to their clients' queues when they do not.
func (p *pool) next(f *flow, rest bool) *pooled {
	if !rest {
		aside := p.aside
		p.aside = nil
		for _, item := range aside {
			if item.aside && p.byDigest[item.request.Digest()] == item {
				p.queue(item)
			}
		}
	}
	for {
		next := f.Next()
		if next == nil {
			return nil
		}
		item := next.Value
		if !rest || !p.large(item) {
			return item
		}
		next.Remove()
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
	contested := p.pace.contested(now)
	for left, room := blockWeight, p.pace.room(now); ; {
		rests, until := p.pace.resting(now)
		item := p.next(p.root, rests)
		fits := item != nil && (len(taken) == 0 || weight(item.request) <= left &&
			(p.pace.cost(item.request) <= room || contested && p.large(item)))
		if !fits {
			if len(p.aside) > 0 {
				rested = until
			}
			return taken, p.wake, rested
		}
		p.carry(item, view, now)
		left, room = left-weight(item.request), room-item.cost
		taken = append(taken, item.request)
	}
}

// carried notes that a block of a view carries these requests, so that they are not proposed again
// meanwhile. What a block of a later view carries stays with that: if it were taken for that of an
// earlier one, it would be proposed again as soon as the earlier one is over.
func (p *pool) carried(view bft.View, requests []*request.Request, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range requests {
		if item := p.byDigest[r.Digest()]; item != nil && item.view < view {
			p.carry(item, view, now)
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

// settle drops the requests that the final block of a view carries, whose results have so many bytes
// each. Those that only abandoned blocks of that or an earlier view carried wait again.
func (p *pool) settle(view bft.View, requests []*request.Request, results []int, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ordered, total, large := 0, 0, false
	keys, addresses := make(map[[32]byte]int), make(map[origin]int) // what each had of the block
	for i, r := range requests {
		client, made := [32]byte(r.Client), resultWeight(results[i])
		cost := weight(r) + made
		large = large || p.pace.cost(r) > largeWeight // as it was taken to be before
		p.pace.learn(client, made)
		ordered, total = ordered+weight(r), total+cost
		keys[client] += cost
		if item := p.byDigest[r.Digest()]; item != nil {
			if item.origin != (origin{}) {
				addresses[item.origin] += cost
			}
			item.client.Charge(int64(cost - item.cost))
			p.drop(item)
		}
	}
	p.pace.keys.note(keys, now)
	p.pace.addresses.note(addresses, now)
	p.pace.took(view, large && total > largeWeight, p.settled, now)
	if len(p.aside) > 0 { // they may know now until when they rest
		p.news()
		signal(p.free)
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
	if item.queued.Waits() {
		item.queued.Remove()
	}
	p.fetchBack(item)
	p.leave(item, item.client, item.origin)
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
	p.pace.final, p.pace.heavy = 0, 0
}
