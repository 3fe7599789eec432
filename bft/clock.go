package bft

import "time"

// clock keeps the deadlines of a core, by the monotonic clock, and watches the wall clock. A timer
// is set only when none is pending that expires in time, so that views that go well cost none.
type clock struct {
	// origin is the first reading of the monotonic clock, less one; offset the last distance of the
	// wall clock from it.
	origin, offset int64
	// highest is the largest offset so far: how late it ever was by the wall clock.
	highest int64
	running bool
	// behind: the chain's time is ahead of the wall clock by more than a block's time may be.
	behind bool

	// deadline and pending are, by kind of timer, when it is due and when the pending timer
	// expires; 0 for none.
	deadline, pending [TimerResend + 1]int64
	// entered is when the current view began.
	entered int64
	// nullified counts the leaders that failed in a row, failed is the view in which the last did.
	nullified int
	failedIn  View
	// suspected are the leaders whose last window failed, or that are lost, and that have given no
	// sign of life since: they get less.
	suspected [MaxReplicas + 1]bool
	// lost are those of which only a message shows that they are up again: the last block of one that
	// has ended may be notarized, or become final, after that.
	lost [MaxReplicas + 1]bool
	// seen and final are the view and the final height at the last resend.
	seen  View
	final Height
}

// clockJump is the change of the wall clock against the monotonic one, between two events, that is
// reported.
const clockJump = int64(time.Second / time.Millisecond)

// read takes a reading of both clocks, and reports what is wrong with the wall clock when that changes.
func (k *clock) read(c *Core, now Now) {
	offset := now.Wall - now.Mono
	if !k.running {
		k.running, k.origin, k.offset, k.highest = true, now.Mono-1, offset, offset
	}
	c.now, c.wall = max(c.now, now.Mono-k.origin), now.Wall
	jumped := offset - k.offset
	k.offset, k.highest = offset, max(k.highest, offset)
	if -clockJump < jumped && jumped < clockJump {
		jumped = 0
	}
	ahead := c.final.Time - c.wall
	behind := ahead > milliseconds(c.cfg.Timeouts.Ahead)
	if jumped != 0 || behind != k.behind {
		k.behind = behind
		off := ClockOff{Jumped: time.Duration(jumped) * time.Millisecond}
		if behind {
			off.Behind = time.Duration(ahead) * time.Millisecond
		}
		c.do(off)
	}
}

// latest is the wall clock's reading, had it never been set back. Who votes for a block as a
// fallback judges its time by that. Live: clocks that are all put right may be so between one
// replica's first vote and the others' look at the block, which then come to find right what the
// first found right.
func (k *clock) latest(c *Core) int64 { return c.wall + k.highest - k.offset }

// arm moves the deadline of a timer.
func (k *clock) arm(c *Core, kind TimerKind, at int64) {
	k.deadline[kind] = at
	if k.pending[kind] != 0 && k.pending[kind] <= at {
		return
	}
	k.pending[kind] = at
	c.do(SetTimer{Timer{c.view, kind}, time.Duration(at-c.now) * time.Millisecond})
}

// enter starts the timer of a new view. Whoever failed in the view before gets no more time in this one.
func (k *clock) enter(c *Core) {
	k.entered = c.now
	if k.inFailedWindow(c) {
		c.giveUp()
		return
	}
	k.arm(c, TimerView, c.now+milliseconds(k.patience(c)))
}

// patience is the time for the current view: doubled with every leader that failed in a row, up to
// ViewMax; less for a suspected leader; and doubled again with every strainViews views without a
// final block.
func (k *clock) patience(c *Core) time.Duration {
	t := c.cfg.Timeouts
	after := t.View
	for i := 0; i < k.nullified && after < t.ViewMax; i++ {
		after *= 2
	}
	if k.suspected[c.cfg.LeaderOf(c.view)] {
		after /= suspectedShare
	}
	return c.strained(min(after, t.ViewMax))
}

// strained doubles a wait with every strainViews views that have passed without a final block.
// Live: the wait stays a small part of the time that has passed, since it took a thousand waits to
// double it; and of views that are held there are never maxViews.
func (c *Core) strained(d time.Duration) time.Duration {
	const longest = 365 * 24 * time.Hour
	for open := c.view - c.finalView; open >= strainViews && d < longest; open -= strainViews {
		d *= 2
	}
	return d
}

// inFailedWindow reports whether the current view continues the window of a leader whose last view
// was nullified.
func (k *clock) inFailedWindow(c *Core) bool {
	return (c.view-1)%View(c.cfg.Window) != 0 && c.isNullified(c.view-1)
}

// failed counts a leader that failed, once in its window.
func (k *clock) failed(c *Core, v View) {
	k.failedIn = max(k.failedIn, v)
	if (v-1)%View(c.cfg.Window) == 0 || !c.isNullified(v-1) {
		k.nullified++
		if leader := c.cfg.LeaderOf(v); leader != c.cfg.Self {
			k.suspected[leader] = true
		}
	}
}

// suspectedShare divides the time of a leader whose last window failed or that is lost, and that
// has said nothing since, so that a crashed replica that is still scheduled costs the others little.
// Live: whoever is up votes and says so, which gives it its full time again ([clock.readmit]); nobody
// suspects itself, as it hears nothing from itself; and the time doubles with every leader that fails
// in a row.
const suspectedShare = 64

// succeeded takes note of a view in which a block was notarized, by whatever path that is learned:
// the certificate, the finality of the block or of a descendant. What is older than the last
// failure says nothing about now.
func (k *clock) succeeded(c *Core, v View) {
	if v > k.failedIn {
		k.nullified = 0
		if leader := c.cfg.LeaderOf(v); !k.lost[leader] {
			k.readmit(c, leader)
		}
	}
}

// readmit takes any message on a replica's own channel for a sign of life: it gets a leader's full
// time again, at once if it leads.
func (k *clock) readmit(c *Core, id ReplicaID) {
	k.lost[id] = false
	if !k.suspected[id] {
		return
	}
	k.suspected[id] = false
	k.again(c, id)
}

// suspect gives a replica that is lost little time to lead, at once if it leads.
func (k *clock) suspect(c *Core, id ReplicaID) {
	k.lost[id] = true
	if !k.suspected[id] {
		k.suspected[id] = true
		k.again(c, id)
	}
}

// again sets the timer of the current view again, if it runs and the view's leader is this one.
func (k *clock) again(c *Core, id ReplicaID) {
	if c.cfg.LeaderOf(c.view) == id && k.deadline[TimerView] != 0 {
		k.arm(c, TimerView, max(c.now, k.entered+milliseconds(k.patience(c))))
	}
}

// expired takes in the expiry of a timer, which may be early or stale.
func (c *Core) expired(t Timer) {
	if t.Kind < TimerView || t.Kind > TimerResend {
		return
	}
	k := &c.clock
	k.pending[t.Kind] = 0
	at := k.deadline[t.Kind]
	if at == 0 {
		return
	}
	if c.now < at {
		k.arm(c, t.Kind, at)
		return
	}
	k.deadline[t.Kind] = 0
	switch t.Kind {
	case TimerView:
		c.giveUp()
	case TimerFinalize:
		c.finalizeLate()
	case TimerResend:
		c.resend()
		k.arm(c, TimerResend, c.now+max(1, milliseconds(c.cfg.Timeouts.Resend)))
	}
}

// giveUp first-votes to nullify the current view, if nothing else was voted.
func (c *Core) giveUp() {
	r := c.at(c.view)
	if c.mayVote() && c.rules.mayFirst(r.own) {
		c.cast(r, Vote{Statement: Statement{c.cfg.Epoch, c.view, Nullify, Digest{}}, First: true})
		c.tryFallback(r)
	}
}

// finalizeLate casts the finalize votes of views whose fast path did not complete in time.
func (c *Core) finalizeLate() {
	wait := milliseconds(c.cfg.Timeouts.Finalize)
	next := int64(0)
	c.eachRound(max(c.firmView+1, c.view-min(c.view, recentViews)), func(r *round) {
		if r.notarizedAt == 0 || r.view >= c.view {
			return
		}
		if due := r.notarizedAt + wait; due > c.now {
			if next == 0 {
				next = due
			}
			return
		}
		c.slow = true
		for i := 0; i < len(r.tallies); i++ {
			if t := &r.tallies[i]; t.Kind == Notarize && t.certificate != nil {
				c.tryFinalize(r, t.Block)
			}
		}
	})
	if next != 0 {
		c.clock.arm(c, TimerFinalize, next)
	}
}

// resend says again what may have been lost, when nothing has moved since the last time.
func (c *Core) resend() {
	k := &c.clock
	stuck := k.seen == c.view
	behind := k.final == c.final.Height && c.hasOpen()
	k.seen, k.final = c.view, c.final.Height
	for _, m := range c.missing {
		c.fetch(m)
	}
	c.seek()
	c.eachRound(c.finalView+1, c.signAgain)
	if stuck || behind || c.unresolved() < c.view {
		c.do(Broadcast{c.status()})
	}
	if stuck {
		c.repeat(c.basis(), func(m Message) { c.do(Broadcast{m}) })
	}
}

// hasOpen reports whether blocks are notarized and not final, or not so that anybody can be shown it.
func (c *Core) hasOpen() bool {
	open := false
	c.eachRound(c.firmView+1, func(r *round) { open = open || r.notarizedAt != 0 })
	return open
}

// signAgain asks again for the signatures that the key refused or that a restart cut off.
func (c *Core) signAgain(r *round) {
	for _, v := range r.own {
		if v.Partial == nil && c.mayVote() {
			c.do(Sign{v})
		}
	}
}

// basis is the first view whose certificates the others need to vote as this replica has in the
// current view: that of its block's parent.
func (c *Core) basis() View {
	from := c.view - 1
	for _, v := range c.at(c.view).own {
		if n := c.tree[v.Block]; v.Kind == Notarize && n != nil {
			from = min(from, n.ParentView)
		}
	}
	return from
}

// unresolved returns the first view that is not known to be resolved, counted from the highest
// notarized block or the last final one: to build on that block the nullifications of all views
// above it are needed. It is the current view when none is missing.
func (c *Core) unresolved() View {
	c.solid = max(c.solid, c.finalView+1)
	for c.solid < c.view && c.at(c.solid).isResolved() {
		c.solid++
	}
	return min(c.solid, c.view)
}

// isResolved reports whether the view has a certificate that ends it.
func (r *round) isResolved() bool {
	return r != nil && (r.certified(Nullify) != nil || r.certified(Notarize) != nil)
}

// repeat says all that this replica has said, and can prove, in the views from one on.
func (c *Core) repeat(from View, say func(Message)) {
	c.eachRound(max(from, c.finalView+1), func(r *round) {
		r.prove(say)
		if r.view < c.view && r.certified(Nullify) != nil {
			return
		}
		for _, n := range r.nodes {
			if r.proposed && n.Proposer == c.cfg.Self && r.view >= c.view {
				say(n.Block)
			}
		}
		if r.convicted {
			say(r.evidence)
		} else if r.heard && r.view == c.view && r.disputed() {
			say(r.header)
		}
		for _, v := range r.own {
			if v.Partial != nil {
				say(v)
			}
		}
	})
}

// disputed reports whether first votes for different blocks were seen.
func (r *round) disputed() bool {
	blocks := 0
	for i := range r.tallies {
		if r.tallies[i].Kind == Notarize && r.tallies[i].firsts > 0 {
			blocks++
		}
	}
	return blocks > 1
}

// status tells the others where this replica stands.
func (c *Core) status() Status {
	return Status{Epoch: c.cfg.Epoch, View: c.unresolved(), FinalView: c.firmView, FinalHeight: c.final.Height, WantFinality: c.hasOpen()}
}

// onStatus sends a peer what it lacks, at most so often: how far finality is proven, the highest
// notarized block, and what resolves the views above it from the one that the peer asks for.
func (c *Core) onStatus(from ReplicaID, s Status) {
	p := &c.peers[from]
	if p.answered != 0 && c.now-p.answered < milliseconds(c.cfg.Timeouts.Resend)/4 {
		return
	}
	p.answered = c.now
	say := func(m Message) { c.do(Send{from, m}) }
	if c.proof.View > s.FinalView {
		say(c.proof)
	}
	if s.WantFinality {
		c.lendRecent(from)
	}
	since := max(s.View, c.highestNotarized(), c.views.low)
	for v := since; v < min(since+maxProofs, c.view); v++ {
		if r := c.at(v); r != nil {
			r.prove(say)
		}
	}
	c.repeat(c.basis(), say)
}

// highestNotarized returns the highest view with a notarization, 0 when none is held.
func (c *Core) highestNotarized() View {
	for v := c.view; v >= max(c.views.low, 1); v-- {
		if r := c.at(v); r != nil && r.certified(Notarize) != nil {
			return v
		}
	}
	return 0
}

// prove says the certificates of the view, but for finality.
func (r *round) prove(say func(Message)) {
	for i := range r.tallies {
		if t := &r.tallies[i]; t.certificate != nil && t.Kind != Finalize {
			say(Certificate{t.Statement, t.certificate})
		}
	}
}

// lendRecent answers a peer that holds notarized blocks which it does not know to be final, in the
// highest of them.
func (c *Core) lendRecent(to ReplicaID) {
	views := 0
	for v := c.view; v > 0 && v >= c.views.low && views < lentViews; v-- {
		r := c.at(v)
		if r == nil {
			continue
		}
		if t := r.certified(Notarize); t != nil {
			c.lend(r, t.Block, to)
			views++
		}
	}
}
