package bft

import "time"

// tryPropose asks for a block when this replica leads the current view, or the next one and its block of the current view is made: a leader
// need not wait for its own block's notarization.
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

// parentFor returns the block to build on in a view: of the current view, the highest notarized block with nullifications from there on; of the
// next, this replica's own block of the current view.
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
	state, ok := c.claim(parent)
	if !ok {
		return
	}
	p := Propose{
		Header: Header{
			Epoch: c.cfg.Epoch, View: v, Height: parent.Height + 1, Proposer: c.cfg.Self,
			Parent: parent.digest, ParentView: parent.position(),
			StateHeight: state.Height, StateRoot: state.Root, EpochEnd: state.HandoffReady,
		},
		MinTime: parent.Time,
		MayIdle: c.mayIdle(parent, state),
		Empty:   state.HandoffReady,
	}
	if c.asked == nil || *c.asked != p {
		c.asked = &p
		c.do(p)
	}
}

// claim chooses the state that a block on the parent certifies: the newest one that the voters can be expected to have. It fails when that lies
// too far behind, because execution is slow.
func (c *Core) claim(parent *node) (Executed, bool) {
	height := min(c.executedHeight(), parent.Height)
	if c.view <= max(c.trouble, c.careful) && parent.Height < c.provenHeight+MaxStateLag/2 {
		height = min(height, c.provenHeight)
	}
	height = max(height, parent.StateHeight)
	state, ok := c.executedAt(height)
	if ok && parent.last != nil && !state.HandoffReady {
		state, ok = c.executedAt(parent.StateHeight) // a filler must end the epoch as its parent does
	}
	return state, ok && parent.Height+1-state.Height <= MaxStateLag
}

// mayIdle says how long the leader may wait for operations. Not at all when the block helps clients to the proof of a result, or ends the epoch.
func (c *Core) mayIdle(parent *node, state Executed) time.Duration {
	ends := state.HandoffReady && parent.last == nil
	proves := parent.base || parent.StateHeight < parent.full && parent.full <= state.Height
	if ends || proves {
		return 0
	}
	return c.cfg.Timeouts.Idle
}

// proposed sends the block that was asked for.
func (c *Core) proposed(b *Block) {
	if c.asked == nil || b == nil || b.View != c.asked.Header.View || b.Parent != c.asked.Header.Parent || b.Time < c.asked.MinTime {
		return
	}
	state, ok := c.executedAt(b.StateHeight)
	r := c.ensure(b.View)
	if !ok || !c.rules.stateAgrees(&b.Header, state) || r == nil || r.proposed || !c.mayVote() || b.View < c.view {
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
