package sim

import (
	"slices"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/guard"
	"github.com/reseal-bft/reseal/bft/monitor"
)

// replica is one simulated machine: the core, and around it what package bft/replica does with real
// parts.
type replica struct {
	c  *cluster
	id bft.ReplicaID
	// twin is not 0 for a second machine with the same identity.
	twin int
	evil adversary

	up    bool
	life  int // counts starts; what belongs to an earlier life is void
	core  *bft.Core
	judge *monitor.Monitor // nil for a Byzantine replica
	guard *guard.Guard
	disk  *disk
	// barred is the first epoch in which it may vote: the disk was lost in the one before.
	barred bft.Epoch

	epoch    bft.Epoch
	config   bft.Config
	keys     keys
	state    *service
	pool     []op
	offered  map[op]bft.View // operations that were proposed, and the view
	backlog  []bft.Finalized // final blocks not yet executed
	busy     bool
	timers   [bft.TimerResend + 1]int
	proposal int // counts the proposals asked for
	skew     time.Duration
	slowness time.Duration // factor on the time of writes
	asked    time.Duration // when a snapshot was last asked for
}

// later schedules work of this life.
func (r *replica) later(d time.Duration, do func()) {
	life := r.life
	r.c.world.after(d, func() {
		if r.up && r.life == life {
			do()
		}
	})
}

// clock reads the replica's own clocks. Only the wall clock may be wrong.
func (r *replica) clock() bft.Now {
	now := r.c.world.now
	return bft.Now{Mono: now.Milliseconds(), Wall: startTime + (now + r.skew).Milliseconds()}
}

const startTime = 1_700_000_000_000

// start begins a life from what is on disk.
func (r *replica) start() {
	r.up = true
	r.life++
	r.busy, r.backlog = false, nil
	r.begin()
}

// begin makes the core of the epoch that the disk is in.
func (r *replica) begin() {
	d := r.disk
	r.state = d.state.clone()
	if err := r.state.wake(); err != nil {
		r.c.check.fail(r, "%v", err)
	}
	r.epoch = r.state.epoch
	r.config = r.c.config(r.epoch, r.id)
	r.config.Base = d.base
	r.config.Voter = r.epoch >= r.barred
	r.keys = r.c.keys(r.epoch)
	r.offered = make(map[op]bft.View)
	r.guard = guard.New(0)
	restored := d.restored()
	for i := range restored.Votes { // the guard kept the votes; the key makes the same partial signatures again
		v := &restored.Votes[i]
		v.Partial = r.keys.partial(r.id, r.c.signedBytes(v.Statement))
	}
	if err := r.guard.Restore(restored.Votes); err != nil {
		r.c.check.fail(r, "guard: %v", err)
	}
	r.judge = nil
	if r.evil == nil {
		r.judge = monitor.New(r.config, restored, func(sentence string) { r.c.check.fail(r, "%s", sentence) })
	}
	core, err := bft.New(r.config, restored)
	if err != nil {
		r.c.check.fail(r, "restart: %v", err)
		r.up = false
		return
	}
	r.core = core
	r.c.check.restarted(r, d.final.Height, restored.Votes)
	r.c.note(r, "starts in epoch %d at height %d, view %d", r.epoch, d.final.Height, core.View())
	r.perform(core.Start(r.clock()))
	r.dealWhenDue()
}

// crash ends a life; amnesia loses the disk as well.
func (r *replica) crash(amnesia bool) {
	r.c.note(r, "crashes%s", map[bool]string{true: " and loses its disk"}[amnesia])
	r.cut()
	r.up = false
	r.life++
	r.c.notice(r)
	if amnesia {
		r.barred = max(r.barred, r.epoch+1)
		r.disk = newDisk(r.c.genesis)
		r.pool = nil
	}
}

// step feeds the core and carries out what it says.
func (r *replica) step(ev bft.Event) {
	if r.c.steps++; r.c.steps%64 == 0 {
		r.c.check.held(r)
	}
	if r.judge != nil {
		r.judge.Observe(r.clock(), ev)
	}
	r.perform(r.core.Step(r.clock(), ev))
}

// perform has the effects of a step judged, and carries them out.
func (r *replica) perform(effects []bft.Effect) {
	if r.judge != nil {
		r.judge.Judge(r.clock(), effects)
	}
	r.act(effects)
}

// act carries out effects in order. The core's slice is valid until the next step, and no step
// happens in here.
func (r *replica) act(effects []bft.Effect) {
	for _, e := range effects {
		r.c.record(r, e)
		switch e := e.(type) {
		case bft.Sign:
			r.sign(e.Vote)
		case bft.Broadcast:
			r.say(func() { r.c.net.broadcast(r, e.Message) })
		case bft.Send:
			r.say(func() { r.c.net.send(r, e.To, e.Message) })
		case bft.Combine:
			r.c.check.combined(r, e)
			r.combine(e)
		case bft.Verify:
			r.verify(e)
		case bft.Propose:
			r.propose(e)
		case bft.StoreBlock:
			r.storeBlock(e.Block)
		case bft.StoreCertificate:
			r.c.check.certificate(r, e.Certificate)
			r.put(func(d *disk) { d.putCertificate(e.Certificate) }, nil)
		case bft.Finalized:
			r.c.check.finalized(r, e)
			r.backlog = append(r.backlog, e)
			r.execute()
		case bft.Fetch:
			r.fetch(e)
		case bft.SetTimer:
			r.setTimer(e)
		case bft.Accuse:
			r.c.check.accused(r, e)
		case bft.Diverged:
			if r.evil == nil {
				r.c.check.fail(r, "state diverged at height %d", e.Height)
			}
		}
	}
}

// sign records the vote, then signs it.
func (r *replica) sign(v bft.Vote) {
	if err := r.guard.Check(v); err != nil {
		if r.evil == nil {
			r.c.check.fail(r, "guard: %v", err)
		}
		r.later(0, func() { r.step(bft.Signed{Vote: v, Err: err}) })
		return
	}
	core := r.core
	r.put(func(d *disk) { d.putVote(v) }, func() {
		if r.core == core {
			v.Partial = r.keys.partial(r.id, r.c.signedBytes(v.Statement))
			r.c.check.signed(r, v)
			r.c.check.voted(r, r.id, v)
			r.step(bft.Signed{Vote: v})
		}
	})
}

// storeBlock writes a block.
func (r *replica) storeBlock(b *bft.Block) {
	if b.Proposer != r.id {
		r.put(func(d *disk) { d.putBlock(b) }, nil)
		return
	}
	r.disk.own++
	r.put(func(d *disk) { d.putBlock(b); d.own-- }, nil)
}

// say sends something, but not before the own blocks stored so far are on disk.
func (r *replica) say(send func()) {
	if r.disk.own > 0 {
		r.put(func(*disk) {}, send)
		return
	}
	send()
}

func (r *replica) combine(e bft.Combine) {
	core := r.core
	r.later(cryptoTime, func() {
		if r.core == core {
			signature, bad, _ := r.keys.Combine(r.c.signedBytes(e.Statement), e.Partials)
			r.step(bft.Combined{Statement: e.Statement, Signature: signature, Bad: bad})
		}
	})
}

func (r *replica) verify(e bft.Verify) {
	core := r.core
	r.later(cryptoTime, func() {
		if r.core == core {
			ok := r.keys.verify(r.c.signedBytes(e.Certificate.Statement), e.Certificate.Signature)
			r.step(bft.Verified{Certificate: e.Certificate, From: e.From, OK: ok})
		}
	})
}

// propose makes a block when there is something to order, or when the time for waiting has passed.
func (r *replica) propose(p bft.Propose) {
	if r.c.planted("mute-leader") && r.id == 1 {
		return
	}
	r.proposal++
	mine := r.proposal
	core := r.core
	deadline := r.c.world.now + p.MayIdle
	var try func()
	try = func() {
		if r.core != core || r.proposal != mine {
			return
		}
		var ops []op
		if !p.Empty {
			ops = r.choose(p.Header.View)
		}
		if len(ops) == 0 && r.c.world.now < deadline {
			r.later(pollTime, try)
			return
		}
		payload := encodeOps(ops)
		b := &bft.Block{Header: p.Header, Payload: payload}
		b.Header.Payload = bft.PayloadDigest(payload)
		b.Time = max(p.MinTime, r.clock().Wall)
		b.Signature = r.c.signBlock(b)
		r.step(bft.Proposed{Block: b})
	}
	r.later(0, try)
}

// blockOps bounds the operations of a simulated block.
const blockOps = 8

// reoffer is after how many views an operation that was proposed and not executed is proposed again.
const reoffer = 12

// choose picks operations that are not executed and were not proposed lately.
func (r *replica) choose(v bft.View) []op {
	r.pool = slices.DeleteFunc(r.pool, func(o op) bool {
		done := r.state.executed[o.source] >= o.number
		if o.kind == opDeal {
			done = r.state.epoch > bft.Epoch(o.number) || r.state.dealers[o.source]
		}
		if done {
			delete(r.offered, o)
		}
		return done
	})
	var ops []op
	for _, o := range r.pool {
		if at, ok := r.offered[o]; ok && v < at+reoffer || o.kind == opDeal && bft.Epoch(o.number) != r.epoch {
			continue
		}
		r.offered[o] = v
		if ops = append(ops, o); len(ops) == blockOps {
			break
		}
	}
	return ops
}

// execute applies the final blocks, one after the other.
func (r *replica) execute() {
	if r.busy || len(r.backlog) == 0 {
		return
	}
	r.busy = true
	r.later(executionTime, func() {
		r.busy = false
		f := r.backlog[0]
		r.backlog = r.backlog[1:]
		if f.Last {
			r.c.check.handedOff(r, len(r.state.dealers))
		}
		effective, err := r.state.apply(f.Block, f.Last)
		if err != nil {
			r.c.check.fail(r, "%v", err)
		}
		r.c.check.executed(r, f.Block, effective, r.state.root)
		state := r.state.clone()
		r.put(func(d *disk) { d.putBlock(f.Block); d.putState(f.Block, state, f.Last) }, nil)
		if f.Last {
			r.put(func(*disk) {}, r.begin)
			return
		}
		r.step(bft.Executed{Height: f.Block.Height, Root: r.state.root, HandoffReady: r.state.ready()})
		r.dealWhenDue()
		r.execute()
	})
}

// dealWhenDue submits this replica's dealing once the epoch is long enough.
func (r *replica) dealWhenDue() {
	if !r.config.Voter || r.state.height < r.config.Base.Height+r.c.options.EpochBlocks || r.state.dealers[uint32(r.id)] {
		return
	}
	o := op{opDeal, uint32(r.id), uint32(r.epoch)}
	if !slices.Contains(r.pool, o) {
		r.c.submit(o)
	}
}

func (r *replica) setTimer(e bft.SetTimer) {
	r.timers[e.Timer.Kind]++
	mine := r.timers[e.Timer.Kind]
	core := r.core
	r.later(e.After, func() {
		if r.core == core && r.timers[e.Timer.Kind] == mine {
			r.step(bft.Expired{Timer: e.Timer})
		}
	})
}

// fetch asks a peer for blocks.
func (r *replica) fetch(e bft.Fetch) {
	core := r.core
	read := func(peer *replica) ([]*bft.Block, bool) {
		blocks := peer.disk.chain(e.Block, e.Above)
		if a, ok := peer.evil.(unseen); ok && len(blocks) == 0 {
			blocks = a.serve(e.Block)
		}
		return blocks, len(blocks) > 0
	}
	request(r.c.net, r, e.Hint, read, func(blocks []*bft.Block) {
		if r.core == core {
			r.step(bft.Fetched{Blocks: blocks})
		}
	})
}

// deliver takes in a message as the gateway does: checked, or dropped.
func (r *replica) deliver(from bft.ReplicaID, m bft.Message) {
	if !r.up {
		return
	}
	if a, ok := r.evil.(*replayer); ok {
		a.heard(m)
	}
	e := bft.EpochOf(m)
	_, asks := m.(bft.Status)
	switch {
	case e < r.epoch && asks:
		r.answerOld(from, e)
	case e > r.epoch+1:
		r.transferState(from)
	}
	if !r.c.planted("old-epoch") && r.config.Check(m) != nil || !r.c.genuine(m) {
		return
	}
	if v, ok := m.(bft.Vote); ok {
		r.c.check.voted(r, from, v)
	}
	r.step(bft.Receive{From: from, Message: m})
}

// answerOld helps a peer out of an epoch that is over.
func (r *replica) answerOld(to bft.ReplicaID, e bft.Epoch) {
	if proof, ok := r.disk.proofs[e]; ok {
		r.c.net.send(r, to, proof)
	}
}

// transferState asks a peer that is epochs ahead for the state below its epoch.
func (r *replica) transferState(from bft.ReplicaID) {
	if r.asked != 0 && r.c.world.now-r.asked < timeouts.Resend {
		return
	}
	r.asked = r.c.world.now
	read := func(peer *replica) (snapshot, bool) {
		return peer.disk.below, peer.evil == nil && peer.disk.below.state != nil
	}
	request(r.c.net, r, []bft.ReplicaID{from}, read, func(s snapshot) {
		if s.state.epoch > r.epoch {
			r.put(func(d *disk) { d.adopt(s) }, r.begin)
		}
	})
}
