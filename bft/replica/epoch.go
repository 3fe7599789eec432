package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/guard"
)

// epochRun is one epoch's core with what carries its effects out:
//
//	peers -> gateway -+                      +-> writer: disk, guard, signatures, network
//	timers -----------+-> inbox -> core -> --+-> certifier: combining and verifying
//	answers ----------+                      +-> executor, proposer, fetcher, timers
//
// Every arrow is a queue; the core's goroutine never waits for a disk, a signature or a peer.
type epochRun struct {
	r          *Replica
	membership *Membership
	config     bft.Config
	keys       EpochKeys
	unheard    bool // too few others were heard to vote
	guard      *guard.Guard
	core       *bft.Core
	observe    func(bft.Now, bft.Event, []bft.Effect) // see Config.Observe

	events inbox[bft.Event]
	writes inbox[bft.Effect]
	checks inbox[bft.Effect]
	finals inbox[bft.Finalized]
	meter  meter // of events, writes and finals

	started  time.Time
	view     atomic.Uint64
	proposed atomic.Uint64 // the latest view that a block was seen of
	turned   chan struct{} // holds a token when another leader's turn may have begun
	final    atomic.Uint64 // height of the last block that the core has announced
	// finalView is that block's view.
	finalView atomic.Uint64
	behind    atomic.Int64 // by how much the wall clock is behind the chain, in nanoseconds
	// What the store holds, for the mark: the last final height, and the highest view voted in, by kind.
	written  atomic.Uint64
	voted    [bft.Finalize + 1]atomic.Uint64
	pledged  atomic.Uint64 // the highest state certified by a block that this replica has voted to notarize
	diverged atomic.Bool
	timers   map[bft.TimerKind]*time.Timer
	headers  headerCache
	fetches  fetches
	scrutiny scrutiny

	group       *errgroup.Group
	ctx         context.Context
	endProposal context.CancelFunc
}

// errEpochEnded ends the run when the epoch's last block is executed.
var errEpochEnded = errors.New("the epoch has ended")

// runEpoch runs the core of one epoch until the epoch ends (nil), the replica falls behind, its
// keys change, or something fails.
func (r *Replica) runEpoch(ctx context.Context, m *Membership, keys EpochKeys) error {
	e, err := r.newRun(ctx, m, keys)
	if err != nil {
		return err
	}
	r.log.Info("epoch begins", "epoch", m.Epoch, "height", m.Base.Height, "voter", e.config.Voter)
	e.group, e.ctx = errgroup.WithContext(ctx)
	r.run.Store(e)
	e.hearEarly()
	e.group.Go(e.stepLoop)
	e.group.Go(e.writeLoop)
	e.group.Go(e.checkLoop)
	e.group.Go(e.executeLoop)
	e.group.Go(e.watch)
	e.group.Go(e.keepMark)
	e.group.Go(e.askAgain)
	signal(e.turned) // for what waits already
	e.group.Go(e.handOnLoop)
	err = e.group.Wait()
	r.run.Store(nil)
	e.close()
	if failed := e.drain(); failed != nil {
		return failed
	}
	exact := e.mark()
	if failed := e.writeMark(&exact); failed != nil {
		r.log.Error("the mark beside the store cannot be written: a store that is put back may go unnoticed", "error", failed)
	}
	r.pool.release() // the views that carried its requests may be over when another run begins
	if errors.Is(err, errEpochEnded) {
		return nil
	}
	return err
}

// newRun makes a core from what the disk holds of the epoch.
func (r *Replica) newRun(ctx context.Context, m *Membership, keys EpochKeys) (*epochRun, error) {
	e := &epochRun{
		r: r, membership: m, keys: keys, started: time.Now(),
		timers: make(map[bft.TimerKind]*time.Timer), headers: newHeaderCache(), turned: make(chan struct{}, 1),
		config: bft.Config{
			Cluster: r.cfg.Cluster, Epoch: m.Epoch, Size: m.Size, Self: r.cfg.Self, Leaders: m.Leaders,
			Window: r.cfg.Window, Base: m.Base, Timeouts: r.cfg.Timeouts,
		},
		guard: guard.New(0),
	}
	var err error
	if e.config.Base.Root, err = r.baseRoot(m); err != nil {
		return nil, err
	}
	e.events.init()
	e.writes.init()
	e.checks.init()
	e.finals.init()
	e.meter.init(r.memory.Received, r.memory.Decided)
	restored, err := r.cfg.Store.Restore(m.Epoch)
	if err != nil {
		return nil, fmt.Errorf("read epoch %d from disk: %w", m.Epoch, err)
	}
	e.unheard = r.remember(ctx, m, &e.keys, &restored)
	e.config.Voter = e.keys.Signer != nil
	for _, v := range restored.Votes {
		e.noteVoted(v)
	}
	if err := e.resign(&restored); err != nil {
		return nil, err
	}
	if restored.Final.Height < m.Base.Height {
		restored.Final, restored.FinalView = m.Base, 0
	}
	e.final.Store(uint64(restored.Final.Height))
	e.finalView.Store(uint64(restored.FinalView))
	e.written.Store(uint64(restored.Final.Height))
	restored.Executed = r.ledger.recent()
	for _, b := range restored.Blocks {
		e.headers.add(b.Digest(), b)
	}
	e.restorePledge(&restored)
	if e.core, err = bft.New(e.config, restored); err != nil {
		return nil, fmt.Errorf("start the core of epoch %d: %w", m.Epoch, err)
	}
	e.view.Store(uint64(e.core.View()))
	if r.cfg.Observe != nil {
		e.observe = r.cfg.Observe(e.config, restored)
	}
	return e, nil
}

// resign gives the stored votes to the guard and makes their partial signatures again: both schemes
// are deterministic.
func (e *epochRun) resign(restored *bft.Restored) error {
	if err := e.guard.Restore(restored.Votes); err != nil {
		return fmt.Errorf("the votes on disk contradict each other: do not run two replicas with one identity; %w", err)
	}
	if e.keys.Signer == nil {
		restored.Votes = nil
		return nil
	}
	for i := range restored.Votes {
		v := &restored.Votes[i]
		partial, err := e.keys.Signer.Sign(v.Statement.Bytes(e.config.Cluster))
		if err != nil {
			return fmt.Errorf("sign again what was signed before the restart: %w", err)
		}
		v.Partial = partial
	}
	return nil
}

func (e *epochRun) close() {
	for _, t := range e.timers {
		t.Stop()
	}
	e.meter.close()
	if e.endProposal != nil {
		e.endProposal()
	}
}

// stepLoop feeds the core: the only goroutine that touches it.
func (e *epochRun) stepLoop() error {
	now := e.now()
	e.perform(now, nil, e.core.Start(now))
	var batch []bft.Event
	for {
		if batch = e.events.take(e.ctx, batch); batch == nil {
			return e.ctx.Err()
		}
		for _, event := range batch {
			now := e.now()
			e.perform(now, event, e.core.Step(now, event))
			if x, ok := event.(bft.Receive); ok {
				e.meter.seen(x.From, x.Message)
			}
		}
		if view := uint64(e.core.View()); e.view.Swap(view) != view {
			signal(e.turned)
		}
	}
}

// perform shows a step to who observes, and then carries its effects out: what was done was shown
// before.
func (e *epochRun) perform(now bft.Now, event bft.Event, effects []bft.Effect) {
	if e.observe != nil {
		e.observe(now, event, effects)
	}
	e.dispatch(effects)
}

// now reads the monotonic clock and the wall clock.
func (e *epochRun) now() bft.Now {
	return bft.Now{Mono: time.Since(e.started).Milliseconds(), Wall: e.r.now()}
}

// clockOff reports what is wrong with the wall clock.
func (e *epochRun) clockOff(x bft.ClockOff) {
	e.behind.Store(int64(x.Behind))
	if x.Jumped != 0 {
		e.r.jumped.Store(int64(x.Jumped))
		e.r.log.Warn("the wall clock jumped: check the machine's time synchronization", "by", x.Jumped)
	}
	switch {
	case x.Behind > 0:
		e.r.log.Warn("the time of the log is ahead of this machine's clock: block time, and every deadline, stands still until the clock has caught up; check the machines' time synchronization",
			"ahead", x.Behind)
	case x.Jumped == 0:
		e.r.log.Info("the wall clock agrees with the log again")
	}
}

// dispatch hands each effect to what carries it out. Effects whose order matters (disk, signatures,
// network) share one queue.
func (e *epochRun) dispatch(effects []bft.Effect) {
	e.meter.decide(decisionSizes(effects))
	for _, effect := range effects {
		switch x := effect.(type) {
		case bft.Combine, bft.Verify:
			e.checks.put(effect)
		case bft.Propose:
			e.propose(x)
		case bft.Fetch:
			e.startFetch(x)
		case bft.SetTimer:
			e.setTimer(x)
		case bft.Accuse:
			e.r.log.Error("a leader signed two blocks for one view", "replica", x.Replica, "view", x.Evidence.A.View)
			if e.r.cfg.OnEvidence != nil {
				e.r.cfg.OnEvidence(x.Replica, x.Evidence)
			}
		case bft.Diverged:
			e.diverged.Store(true)
			e.r.log.Error("this replica's state contradicts a certified one; it stops voting",
				"height", x.Height, "certified", x.Certified, "mine", x.Mine)
		case bft.ClockOff:
			e.clockOff(x)
		case bft.Finalized:
			e.final.Store(uint64(x.Block.Height))
			e.finalView.Store(uint64(x.Block.View))
			e.meter.decide(decisionSize(x)) // in two queues
			e.writes.put(effect)
			e.finals.put(x)
		default:
			e.writes.put(effect)
		}
	}
}

// setTimer replaces the pending timer of the same kind.
func (e *epochRun) setTimer(s bft.SetTimer) {
	if t, ok := e.timers[s.Timer.Kind]; ok {
		t.Stop()
	}
	e.timers[s.Timer.Kind] = time.AfterFunc(s.After, func() { e.events.put(bft.Expired{Timer: s.Timer}) })
}

// watch ends the run when the replica has to be started differently.
func (e *epochRun) watch() error {
	ahead := make(chan struct{}, 1)
	asked := make(map[bft.ReplicaID]time.Time)
	for {
		select {
		case <-e.ctx.Done():
			return e.ctx.Err()
		case <-e.r.rekey:
			return errRekey
		case <-ahead:
			return errBehind
		case peer := <-e.r.behind:
			// Asked now and then, and beside the others: one that lies, or is silent, keeps nobody
			// else from being heard.
			if time.Since(asked[peer]) < askAheadAgain {
				continue
			}
			asked[peer] = time.Now()
			e.group.Go(func() error {
				if e.r.isAhead(e.ctx, peer) {
					signal(ahead)
				}
				return nil
			})
		}
	}
}

// askAheadAgain is how often one peer is asked at most to prove that it is ahead: a call, and
// another, each as long as it is waited for.
const askAheadAgain = firstPatience + headTimeout

// headerCache keeps the headers of recent blocks, so that a notarization can be joined with the
// header that it certifies, whichever comes first: a replica without a share stores a block only
// when it is final.
type headerCache struct {
	mu      *sync.Mutex
	headers map[bft.Digest]cachedHeader
	waiting map[bft.Digest]bft.Certificate // notarizations whose headers are not there yet
	order   []bft.Digest
}

// cachedHeader is a header, and the size of its block's payload.
type cachedHeader struct {
	bft.Header
	bytes int
}

// cachedHeaders bounds the cache: far more than the views between a block and its notarization.
const cachedHeaders = 1024

func newHeaderCache() headerCache {
	return headerCache{mu: new(sync.Mutex), headers: make(map[bft.Digest]cachedHeader), waiting: make(map[bft.Digest]bft.Certificate)}
}

// add keeps a block's header, and returns the notarization that waited for it, if one did.
func (c *headerCache) add(digest bft.Digest, b *bft.Block) *bft.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.headers[digest]; ok {
		return nil
	}
	certificate, waited := c.waiting[digest]
	delete(c.waiting, digest)
	if !waited {
		c.remember(digest)
	}
	c.headers[digest] = cachedHeader{b.Header, len(b.Payload)}
	if !waited {
		return nil
	}
	return &certificate
}

// await returns the header that a notarization certifies, or lets the notarization wait for it.
func (c *headerCache) await(certificate bft.Certificate) (bft.Header, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok := c.headers[certificate.Block]
	if _, waits := c.waiting[certificate.Block]; !ok && !waits {
		c.remember(certificate.Block)
		c.waiting[certificate.Block] = certificate
	}
	return h.Header, ok
}

// remember makes room for what is known of one more block.
func (c *headerCache) remember(digest bft.Digest) {
	if len(c.order) == cachedHeaders {
		delete(c.headers, c.order[0])
		delete(c.waiting, c.order[0])
		c.order = c.order[1:]
	}
	c.order = append(c.order, digest)
}

func (c *headerCache) get(digest bft.Digest) (bft.Header, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok := c.headers[digest]
	return h.Header, ok
}

// payloads is the sum of the payloads of a block and its ancestors above a height, as far as they
// are known here, in bytes.
func (c *headerCache) payloads(digest bft.Digest, above bft.Height) (bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for h, ok := c.headers[digest]; ok && h.Height > above; h, ok = c.headers[h.Parent] {
		bytes += h.bytes
	}
	return bytes
}
