package replica

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/merkle"
	"github.com/reseal-bft/reseal/bft/request"
)

// Bounds of the results that are held for clients that wait or ask again: those of so many recent
// blocks, and of so many bytes as their budget says. Large ones, of more than their part of it, are
// let go first: who asks for much takes nothing from who asks for little. Those of the last block
// are held in any case; a client whose result is let go before it is certified hears that it is no
// longer held.
const (
	keptResults  = 4096
	outcomeBytes = 256 // of an outcome beside its results
	resultBytes  = 24  // of a result, beside its own
)

// state is the replicated state after one block. Immutable.
type state struct {
	height         bft.Height
	app            bft.State
	sessions       merkle.Map
	systemSnapshot []byte
	appRoot        bft.Digest
	systemRoot     bft.Digest
	root           bft.Digest
	handoffReady   bool
	groupKey       []byte
}

// certifiedState is a state whose root a certificate proves.
type certifiedState struct {
	*state
	header      bft.Header
	certificate bft.Certificate
}

// ledger executes final blocks in order and knows which state is certified. One goroutine executes;
// the rest is safe for concurrent use.
type ledger struct {
	cluster bft.ClusterID
	app     bft.Application
	system  System
	limit   int // bytes of results

	latest    atomic.Pointer[state]
	certified atomic.Pointer[certifiedState]

	mu      sync.Mutex
	news    chan struct{}         // closed when a later state is certified
	states  map[bft.Height]*state // from the certified one to the latest
	results map[sessionKey]outcome
	held    []heldBlock // whose results are held, oldest first
	light   int         // so many of them hold no large ones any more
	bytes   int         // of these
	waiters map[sessionKey][]chan<- *request.Reply

	sessions sessions
}

// sessionKey names a request by client and sequence number.
type sessionKey struct {
	client   [32]byte
	sequence uint64
}

func keyOf(r *request.Request) sessionKey { return sessionKey{[32]byte(r.Client), r.Sequence} }

// outcome is what became of an executed request.
type outcome struct {
	record  request.Record
	results [][]byte
}

func newLedger(cluster bft.ClusterID, app bft.Application, system System, limit int) *ledger {
	l := &ledger{
		cluster: cluster, app: app, system: system, limit: limit, news: make(chan struct{}),
		states:  make(map[bft.Height]*state),
		results: make(map[sessionKey]outcome),
		waiters: make(map[sessionKey][]chan<- *request.Reply), sessions: newSessions(),
	}
	l.adopt(0, merkle.Map{})
	return l
}

// adopt makes the state that the application and the system have now the ledger's, as of the given
// height.
func (l *ledger) adopt(height bft.Height, sessions merkle.Map) *state {
	s := &state{
		height: height, app: l.app.State(), sessions: sessions,
		systemSnapshot: l.system.Snapshot(), systemRoot: l.system.Root(), handoffReady: l.system.HandoffReady(),
		groupKey: l.system.Membership().GroupKey,
	}
	s.appRoot = s.app.Root()
	s.root = request.StateRoot(height, s.appRoot, bft.Digest(sessions.Root()), s.systemRoot)
	l.mu.Lock()
	l.states[height] = s
	l.mu.Unlock()
	l.latest.Store(s)
	return s
}

// execute applies the next final block and returns the state after it. Last says that the block is
// its epoch's last.
func (l *ledger) execute(block *bft.Block, digest bft.Digest, requests []*request.Request, last bool) (*state, error) {
	before := l.latest.Load()
	if block.Height != before.height+1 {
		return nil, fmt.Errorf("block of height %d does not follow the state of height %d", block.Height, before.height)
	}
	if epoch := l.system.Membership().Epoch; block.Epoch != epoch {
		return nil, fmt.Errorf("block %d is of epoch %d, and the state of epoch %d", block.Height, block.Epoch, epoch)
	}
	if last && !before.handoffReady {
		return nil, fmt.Errorf("block %d ends epoch %d, and the state is not ready for it", block.Height, block.Epoch)
	}
	info := BlockInfo{Epoch: block.Epoch, Height: block.Height, Digest: digest, Time: block.Time}
	if last {
		l.system.EndEpoch(info)
		return l.adopt(block.Height, before.sessions), nil
	}
	fresh, records := l.fresh(before.sessions, requests, block.Height)
	results, err := l.apply(info, fresh)
	if err != nil {
		return nil, err
	}
	changes := make([]merkle.Change, 0, len(fresh))
	outcomes := make([]outcome, len(fresh))
	for i, r := range fresh {
		records[i].Results = request.ResultsDigest(results[i])
		outcomes[i] = outcome{records[i], results[i]}
		changes = append(changes, merkle.Change{Key: request.SessionLeaf(r.Client, r.Sequence), Value: records[i].MarshalBinary()})
	}
	next := l.adopt(block.Height, l.sessions.update(before.sessions, block.Height, changes))
	l.remember(block.Height, fresh, outcomes)
	l.turnAway(requests)
	return next, nil
}

// fresh returns the requests that are to be executed: each (client, sequence) once, none that its
// session has passed or that is of a session that has ended, and none that is bound to a height
// that nobody could know.
func (l *ledger) fresh(sessions merkle.Map, requests []*request.Request, height bft.Height) ([]*request.Request, []request.Record) {
	type slot struct {
		client [32]byte
		slot   uint64
	}
	inBlock := make(map[slot]int, len(requests))
	var fresh []*request.Request
	var records []request.Record
	for _, r := range requests {
		at := slot{[32]byte(r.Client), r.Sequence % request.Window}
		if i, ok := inBlock[at]; ok && r.Sequence <= records[i].Sequence {
			continue
		}
		if l.sessions.passed(sessions, r, height) != nil || request.Bound(r.Sequence) >= height {
			continue
		}
		inBlock[at] = len(fresh)
		fresh = append(fresh, r)
		records = append(records, request.Record{Sequence: r.Sequence, Height: height})
	}
	return fresh, records
}

// apply hands the operations to the application and to the system, each in order, and returns the
// results by request.
func (l *ledger) apply(info BlockInfo, requests []*request.Request) ([][][]byte, error) {
	var operations [2][]bft.Operation
	var counts [2][]int // operations of each request
	for _, r := range requests {
		space := r.Space
		for _, data := range r.Operations {
			operations[space] = append(operations[space], bft.Operation{Client: r.Client, Data: data})
		}
		counts[space] = append(counts[space], len(r.Operations))
	}
	var made [2]*bft.Results
	for space := range made {
		made[space] = bft.NewResults(counts[space])
	}
	if err := l.app.Apply(info.Height, info.Time, operations[request.Application], made[request.Application]); err != nil {
		return nil, fmt.Errorf("%w: the application cannot go on at block %d: %w", errFatal, info.Height, err)
	}
	for _, result := range l.system.Apply(info, operations[request.System]) {
		made[request.System].Add(result)
	}
	results := make([][][]byte, len(requests))
	var next [2]int
	for i, r := range requests {
		results[i] = made[r.Space].Of(next[r.Space])
		next[r.Space]++
	}
	return results, nil
}

// remember keeps the outcomes of a block for the clients that wait for them.
func (l *ledger) remember(height bft.Height, requests []*request.Request, outcomes []outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(requests) > 0 {
		block := heldBlock{height: height, keys: make([]sessionKey, len(requests))}
		for i, r := range requests {
			block.keys[i] = keyOf(r)
			l.results[block.keys[i]] = outcomes[i]
			l.bytes += outcomes[i].bytes()
		}
		l.held = append(l.held, block)
	}
	for ; l.light < len(l.held)-1 && l.bytes > l.limit; l.light++ {
		l.letGo(&l.held[l.light], l.limit/keptResults)
	}
	for len(l.held) > 1 && (l.bytes > l.limit || l.held[0].height+keptResults <= height) {
		l.letGo(&l.held[0], 0)
		l.held[0] = heldBlock{}
		l.held, l.light = l.held[1:], max(0, l.light-1)
	}
}

// letGo lets go of a block's outcomes of more bytes than that, and tells who still waits for their
// state to be certified.
func (l *ledger) letGo(b *heldBlock, above int) {
	b.keys = slices.DeleteFunc(b.keys, func(key sessionKey) bool {
		out := l.results[key]
		size := out.bytes()
		if size <= above {
			return false
		}
		delete(l.results, key)
		l.tell(key, nil)
		l.bytes -= size
		return true
	})
}

// made returns how many bytes of results requests of the last block have.
func (l *ledger) made(requests []*request.Request) []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	bytes := make([]int, len(requests))
	for i, r := range requests {
		out := l.results[keyOf(r)]
		if out.record.Height < l.latest.Load().height {
			continue // it was not executed now
		}
		for _, result := range out.results {
			bytes[i] += len(result)
		}
	}
	return bytes
}

// turnAway tells those who wait for requests that were in a block and were not executed, now or
// lately, that they wait in vain.
func (l *ledger) turnAway(requests []*request.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range requests {
		if _, held := l.results[keyOf(r)]; !held {
			l.tell(keyOf(r), nil)
		}
	}
}

// heldBlock is a block whose results are held.
type heldBlock struct {
	height bft.Height
	keys   []sessionKey
}

func (o *outcome) bytes() int {
	n := outcomeBytes + resultBytes*len(o.results)
	for _, result := range o.results {
		n += len(result)
	}
	return n
}

// certify takes note that a certificate proves the state that the header names, and answers the
// clients that waited for it. It returns the state if it is news. Certificates of epoch 0 prove
// nothing under the group key, so they do not count.
func (l *ledger) certify(header bft.Header, certificate bft.Certificate) *certifiedState {
	if header.Epoch == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.states[header.StateHeight]
	current := l.certified.Load()
	if s == nil || s.root != header.StateRoot || current != nil && current.height >= s.height {
		return nil
	}
	c := &certifiedState{s, header, certificate}
	l.certified.Store(c)
	close(l.news)
	l.news = make(chan struct{})
	from := bft.Height(0)
	if current != nil {
		from = current.height
	}
	for h := from; h < s.height; h++ {
		delete(l.states, h)
	}
	l.answer(c, from)
	return c
}

// proven returns the last certified state, nil if there is none, and what is closed when there is a
// later one.
func (l *ledger) proven() (*certifiedState, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.certified.Load(), l.news
}

// answer tells the clients that wait for outcomes above a height what is proven now.
func (l *ledger) answer(c *certifiedState, above bft.Height) {
	first, _ := slices.BinarySearchFunc(l.held, above+1, func(b heldBlock, h bft.Height) int { return cmp.Compare(b.height, h) })
	for _, block := range l.held[first:] {
		if block.height > c.height {
			break
		}
		for _, key := range block.keys {
			l.tell(key, c)
		}
	}
}

// tell answers those who wait for an outcome; without a state, that it is no longer held.
func (l *ledger) tell(key sessionKey, c *certifiedState) {
	var reply *request.Reply
	if c != nil && len(l.waiters[key]) > 0 {
		reply = l.reply(c, key)
	}
	for _, waiter := range l.waiters[key] {
		waiter <- reply // buffered: never blocks
	}
	delete(l.waiters, key)
}

// reply proves the outcome of an executed request under a certified state; nil if its session has
// moved on or the outcome is no longer held.
func (l *ledger) reply(c *certifiedState, key sessionKey) *request.Reply {
	out, ok := l.results[key]
	leaf := request.SessionLeaf(key.client[:], key.sequence)
	if !ok || out.record.Height > c.height {
		return nil
	}
	if value, there := c.sessions.Get(leaf); !there || recordOf(value) != out.record {
		return nil
	}
	return &request.Reply{
		Results: out.results, Record: out.record,
		Proof:   c.sessions.Prove(leaf),
		AppRoot: c.appRoot, SystemRoot: c.systemRoot,
		Header: c.header, Certificate: c.certificate,
	}
}

// await returns a channel that will carry the reply to a request, or nil when it can no longer be
// given. Forget must be called in the end.
func (l *ledger) await(key sessionKey) chan *request.Reply {
	ch := make(chan *request.Reply, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if out, ok := l.results[key]; ok {
		if c := l.certified.Load(); c != nil && c.height >= out.record.Height {
			ch <- l.reply(c, key)
			return ch
		}
	}
	l.waiters[key] = append(l.waiters[key], ch)
	return ch
}

// forget ends the wait on a channel that await returned.
func (l *ledger) forget(key sessionKey, ch chan *request.Reply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.waiters[key][:0]
	for _, w := range l.waiters[key] {
		if w != ch {
			waiting = append(waiting, w)
		}
	}
	if len(waiting) == 0 {
		delete(l.waiters, key)
		return
	}
	l.waiters[key] = waiting
}

// passed says why a request will not be executed any more, nil if it may be. Held says that its
// outcome is.
func (l *ledger) passed(r *request.Request) (held bool, why error) {
	latest := l.latest.Load()
	why = l.sessions.passed(latest.sessions, r, latest.height+1)
	l.mu.Lock()
	defer l.mu.Unlock()
	_, held = l.results[keyOf(r)]
	return held, why
}

// stateAt returns the state after the block at a height, nil when it is not held.
func (l *ledger) stateAt(h bft.Height) *state {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.states[h]
}

// recent returns the executed roots from the certified state to the latest, oldest first, for a
// core that starts.
func (l *ledger) recent() []bft.Executed {
	latest := l.latest.Load()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []bft.Executed
	for h := latest.height; ; h-- {
		s := l.states[h]
		if s == nil {
			break
		}
		out = append([]bft.Executed{{Height: h, Root: s.root, HandoffReady: s.handoffReady}}, out...)
		if h == 0 {
			break
		}
	}
	return out
}
