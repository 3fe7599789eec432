package bft

import "time"

// clock keeps the deadlines of a core. A timer is set only when none is pending that expires in time, so that views that
// go well cost none.
type clock struct {
	// deadline and pending are, by kind of timer, when it is due and when the pending timer expires; 0 for none.
	deadline, pending [TimerResend + 1]int64
	// nullified counts the leaders that failed in a row.
	nullified int
	// suspected are the leaders whose last window failed: the next time they get less.
	suspected [MaxReplicas + 1]bool
	// seen and final are the view and the final height at the last resend.
	seen  View
	final Height
}

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
	if k.inFailedWindow(c) {
		c.giveUp()
		return
	}
	t := c.cfg.Timeouts
	after := t.View << min(k.nullified, 20)
	if k.suspected[c.cfg.LeaderOf(c.view)] {
		after /= suspectedShare
	}
	if after > t.ViewMax || after <= 0 {
		after = max(t.View, t.ViewMax)
	}
	k.arm(c, TimerView, c.now+milliseconds(after))
}

// inFailedWindow reports whether the current view continues the window of a leader whose last view was nullified.
func (k *clock) inFailedWindow(c *Core) bool {
	return (c.view-1)%View(c.cfg.Window) != 0 && c.isNullified(c.view-1)
}

// failed counts a leader that failed, once in its window.
func (k *clock) failed(c *Core, v View) {
	if (v-1)%View(c.cfg.Window) == 0 || !c.isNullified(v-1) {
		k.nullified++
		k.suspected[c.cfg.LeaderOf(v)] = true
	}
}

// suspectedShare divides the time of a leader whose last window failed, so that a crashed replica that is still scheduled costs the others little. Live:
// it is a constant, and the time doubles with every leader that fails in a row.
const suspectedShare = 8

// succeeded clears the leader of a view in which a block was notarized.
func (k *clock) succeeded(c *Core, v View) {
	k.nullified = 0
	k.suspected[c.cfg.LeaderOf(v)] = false
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
	c.eachRound(c.finalView+1, func(r *round) {
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
	if stuck || behind {
		c.do(Broadcast{c.status()})
	}
	if stuck {
		c.repeat(c.view-1, func(m Message) { c.do(Broadcast{m}) })
	}
}

// hasOpen reports whether blocks are notarized and not final.
func (c *Core) hasOpen() bool {
	open := false
	c.eachRound(c.finalView+1, func(r *round) { open = open || r.notarizedAt != 0 })
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

// repeat says all that this replica has said, and can prove, in the views from one on.
func (c *Core) repeat(from View, say func(Message)) {
	c.eachRound(max(from, c.finalView+1), func(r *round) {
		for i := range r.tallies {
			if t := &r.tallies[i]; t.certificate != nil && t.Kind != Finalize {
				say(Certificate{t.Statement, t.certificate})
			}
		}
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
	return Status{Epoch: c.cfg.Epoch, View: c.finalView + 1, FinalHeight: c.final.Height, WantFinality: c.hasOpen()}
}

// onStatus sends a peer what it lacks, at most so often.
func (c *Core) onStatus(from ReplicaID, s Status) {
	p := &c.peers[from]
	if p.answered != 0 && c.now-p.answered < milliseconds(c.cfg.Timeouts.Resend)/4 {
		return
	}
	p.answered = c.now
	if c.proof.View >= s.View {
		c.do(Send{from, c.proof})
	}
	since := max(s.View, c.views.low, c.view-min(c.view, maxProofs/2))
	if s.WantFinality {
		c.offerFinality(from, since)
	}
	c.eachRound(since, func(r *round) {
		if r.view > c.finalView {
			return
		}
		for i := range r.tallies {
			if t := &r.tallies[i]; t.certificate != nil && t.Kind != Finalize {
				c.do(Send{from, Certificate{t.Statement, t.certificate}})
			}
		}
	})
	c.repeat(since, func(m Message) { c.do(Send{from, m}) })
}

// offerFinality casts finalize votes, and repeats those cast, for a peer that holds notarized blocks which it does not know to be final.
func (c *Core) offerFinality(to ReplicaID, since View) {
	c.eachRound(since, func(r *round) {
		t := r.certified(Notarize)
		if t == nil {
			return
		}
		c.tryFinalize(r, t.Block)
		for _, v := range r.own {
			if v.Kind == Finalize && v.Partial != nil && r.view <= c.finalView {
				c.do(Send{to, v})
			}
		}
	})
}
