package bft

import "time"

// tryPropose asks for a block when this replica leads the current view, or the next one and its
// block of the current view is made: a leader need not wait for its own block's notarization.
func (c *Core) tryPropose() {
	if !c.mayVote() || c.stopped {
		return
	}
	for v := c.view; v <= c.view+1; v++ {
		if c.cfg.LeaderOf(v) != c.cfg.Self {
			continue
		}
		r := c.ensure(v)
		if r == nil || r.proposed {
			continue
		}
		if parent := c.parentFor(v); parent != nil && !r.gaveUp() {
			c.ask(v, parent)
		}
		return
	}
}

// gaveUp reports whether the view's nullification has this replica's vote.
func (r *round) gaveUp() bool {
	for _, v := range r.own {
		if v.Kind == Nullify {
			return true
		}
	}
	return false
}

// parentFor returns the block to build on in a view: of the current view, the highest notarized
// block with nullifications from there on; of the next, this replica's own block of the current
// view.
func (c *Core) parentFor(v View) *node {
	if v > c.view {
		r := c.at(c.view)
		if r == nil || !r.proposed || r.gaveUp() {
			return nil
		}
		for _, n := range r.nodes {
			if n.linked && n.Proposer == c.cfg.Self {
				return n
			}
		}
		return nil
	}
	for u := v - 1; u > c.finalView; u-- {
		r := c.at(u)
		if r == nil {
			return nil
		}
		for _, n := range r.nodes {
			if n.notarized && n.linked {
				return n
			}
		}
		if r.certified(Nullify) == nil {
			return nil
		}
	}
	return c.final
}

// ask asks for a block on a parent, unless the very same is being made.
func (c *Core) ask(v View, parent *node) {
	state := c.claim(parent)
	p := Propose{
		Header: Header{
			Epoch: c.cfg.Epoch, View: v, Height: parent.Height + 1, Proposer: c.cfg.Self,
			Parent: parent.digest, ParentView: parent.position(),
			StateHeight: state.Height, StateRoot: state.Root, EpochEnd: state.HandoffReady,
		},
		MinTime: parent.Time,
		MayIdle: c.mayIdle(parent, state),
		Empty:   state.HandoffReady || parent.Height+1-state.Height > MaxStateLag,
	}
	if c.asked == nil || *c.asked != p {
		c.asked = &p
		c.do(p)
	}
}

// claim chooses the state that a block on the parent certifies: the newest one that the voters can
// be expected to have. After trouble that is one that a finalization covers, or else what the
// parent certifies: whoever has the parent and its notarization can vote for that.
func (c *Core) claim(parent *node) Executed {
	height := min(c.executedHeight(), parent.Height)
	if !c.rules.mayClaim(height, c.firm) {
		height = c.firm
	}
	if c.view <= max(c.trouble, c.careful) {
		height = min(height, c.provenHeight)
	}
	state, ok := c.executedAt(height)
	if !ok || height <= parent.StateHeight || parent.last != nil && !state.HandoffReady { // a filler must end the epoch as its parent does
		return inherited(parent)
	}
	return state
}

// mayIdle says how long the leader may wait for operations. Not at all when the block helps clients
// to the proof of a result, or ends the epoch. Longer while nothing becomes final: then blocks are
// made only so that one of them does.
func (c *Core) mayIdle(parent *node, state Executed) time.Duration {
	ends := state.HandoffReady && parent.last == nil
	proves := parent.base || parent.StateHeight < parent.full && parent.full <= state.Height
	if ends || proves {
		return 0
	}
	return c.strained(c.cfg.Timeouts.Idle)
}

// proposed sends the block that was asked for.
func (c *Core) proposed(b *Block) {
	if c.asked == nil || b == nil || !c.asked.matches(&b.Header) || b.View < c.view || !c.mayVote() {
		return
	}
	r := c.ensure(b.View)
	if r == nil || r.proposed {
		return
	}
	digest := b.Digest()
	n := c.add(b, digest)
	if n == nil {
		return
	}
	c.asked, r.proposed = nil, true
	c.store(n)
	c.do(Broadcast{b})
	c.hear(r, SignedHeader{b.Header, b.Signature}, digest)
	c.advance(r)
}

// matches reports whether a block with this header is what was asked for.
func (p *Propose) matches(h *Header) bool {
	made := *h
	made.Time, made.Payload = 0, Digest{}
	return made == p.Header && h.Time >= p.MinTime && (!p.Empty || h.Payload == emptyPayload)
}
