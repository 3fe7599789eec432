package bft

import "slices"

// onVote counts a vote that came on its sender's own channel. Nothing else attributes a vote: any q
// partial signatures on a statement yield everybody's.
func (c *Core) onVote(from ReplicaID, v Vote) {
	if v.View < c.views.low || v.View > c.view+VotesAhead || len(v.Partial) == 0 {
		return
	}
	r := c.ensure(v.View)
	if r == nil {
		return
	}
	known := r.finalizes(from)
	c.count(r, from, v)
	if c.at(v.View) != r {
		return // a block above became final
	}
	if v.Kind == Finalize { // the sender lacks finality: a finalize vote is also a request for others
		if !known && r.finalizes(from) {
			c.answer(r, from, v.Block)
		}
		return
	}
	if v.First {
		c.compare(r, from, v)
	}
	if v.View == c.view {
		c.tryFallback(r)
	}
}

// count adds a vote to its tally and draws the conclusions: a certificate to combine, a block that
// is final.
func (c *Core) count(r *round, from ReplicaID, v Vote) {
	if r.shut && (v.Kind != Finalize || !r.isNotarized(v.Block)) {
		return
	}
	first := v.Kind != Finalize && c.rules.countsFirst(v) && r.first[from] == 0
	if !first && (c.peers[from].forged || c.tooMany(r, from, v)) {
		return
	}
	t := c.tally(r, v.Kind, v.Block)
	if t.partials[from] == nil && !c.peers[from].forged {
		t.partials[from] = v.Partial
		t.votes++
		if v.Kind == Notarize {
			r.notarizes[from]++
		}
	}
	c.tryCombine(t)
	if first {
		r.countFirst(from, v.Kind, v.Block)
		if v.Kind == Notarize {
			c.tryFast(r, t)
		}
	}
}

// tooMany reports whether a vote for something new would exceed what one replica may vote for in a view.
func (c *Core) tooMany(r *round, from ReplicaID, v Vote) bool {
	switch v.Kind {
	case Notarize:
		return r.notarizes[from] >= maxFallback
	case Finalize:
		return r.finalizes(from)
	default:
		return v.Kind != Nullify
	}
}

// finalizes reports whether a finalize vote of the replica was counted in the view.
func (r *round) finalizes(from ReplicaID) bool {
	for i := range r.tallies {
		if t := &r.tallies[i]; t.Kind == Finalize && t.partials[from] != nil {
			return true
		}
	}
	return false
}

// tryFast draws the conclusion of a fast quorum of first votes, when they are sure to make a
// notarization or it is known: nobody leaves a view without a way to show the others how.
func (c *Core) tryFast(r *round, t *tally) {
	if t.firsts >= c.rules.fastQuorum() && (c.rules.obtains(t.firsts) || t.certificate != nil) {
		c.fastFinal(r, t)
	}
}

// fastFinal takes note that a block has its fast quorum. A block that ends the epoch
// needs a certificate all the same.
func (c *Core) fastFinal(r *round, t *tally) {
	v, block := r.view, t.Block
	if c.rules.obtains(t.firsts) {
		c.slow = false
		if r.height > 0 && c.firmTo(v, r.height) {
			c.advance(nil)
		}
	}
	if v > c.finalView && v > c.fast.view {
		c.fast = finality{v, block}
		c.settle()
	}
}

// firmTo takes note that anybody can be shown that the block of a view is final, and reports
// whether that is news.
func (c *Core) firmTo(v View, h Height) bool {
	if h <= c.firm {
		return false
	}
	c.firm, c.firmView = h, max(v, c.firmView)
	return true
}

// tryCombine asks for a certificate when there are votes enough.
func (c *Core) tryCombine(t *tally) {
	if t.certificate != nil || t.combining || t.verifying > 0 || t.votes < c.rules.quorum() {
		return
	}
	if t.View <= c.finalView && t.Kind == Nullify {
		return
	}
	partials := make(map[ReplicaID][]byte, t.votes)
	for i, p := range t.partials {
		if p != nil {
			partials[ReplicaID(i)] = p
		}
	}
	t.combining = true
	c.do(Combine{t.Statement, partials})
}

// combined takes in the answer to Combine. Whoever sent a bad partial signature is not counted again.
func (c *Core) combined(ev Combined) {
	if ev.Statement.Epoch != c.cfg.Epoch {
		return
	}
	for _, id := range ev.Bad {
		if id >= 1 && int(id) < len(c.peers) {
			c.peers[id].forged = true
		}
	}
	r := c.at(ev.Statement.View)
	if r == nil {
		return
	}
	t := r.find(ev.Statement.Kind, ev.Statement.Block)
	if t == nil || !t.combining {
		return
	}
	t.combining = false
	dropped := false
	for _, id := range ev.Bad {
		if id < 1 || int(id) >= len(c.peers) {
			continue
		}
		if t.partials != nil && t.partials[id] != nil {
			t.partials[id] = nil
			t.votes--
			dropped = true
		}
	}
	switch {
	case t.certificate != nil:
	case len(ev.Signature) > 0:
		c.certified(Certificate{ev.Statement, ev.Signature})
	case dropped:
		c.tryCombine(t)
	}
}

// compare sends a peer that first-voted for another block the header that this replica has from the
// leader, so that one of them holds both and can prove the leader Byzantine.
func (c *Core) compare(r *round, from ReplicaID, v Vote) {
	if v.Kind == Notarize && r.heard && !r.convicted && r.digest != v.Block && c.tookFirst(r, from, v) {
		c.do(Send{from, r.header})
	}
}

// tookFirst reports whether v was counted as the first vote of its sender.
func (c *Core) tookFirst(r *round, from ReplicaID, v Vote) bool {
	i := r.first[from]
	return i != 0 && r.tallies[i-1].Kind == v.Kind && r.tallies[i-1].Block == v.Block
}

// tryFirst casts the first vote of a view when its block is valid. The current view is the place
// for it; in a view that its notarization ended before the block came, a late first vote for that
// block still helps the fast path.
func (c *Core) tryFirst(r *round) {
	if !c.mayVote() || r.view <= c.finalView || r.view > c.view || !c.rules.mayFirst(r.own) {
		return
	}
	for _, n := range r.nodes {
		if (r.view == c.view || n.notarized) && c.valid(n) {
			c.store(n)
			c.cast(r, Vote{Statement: Statement{c.cfg.Epoch, r.view, Notarize, n.digest}, First: true})
			return
		}
	}
}

// mayVote reports whether this replica has a say.
func (c *Core) mayVote() bool { return c.cfg.Voter && !c.diverged }

// valid reports whether a block may get this replica's first vote, as far as is known by now.
func (c *Core) valid(n *node) bool {
	return c.extends(n) && c.judges(n, c.wall+milliseconds(c.cfg.Timeouts.Ahead))
}

// extends reports whether a block extends a notarized parent, as far as is known by now. What a
// correct replica knows of it are certificates, which it shows to all.
func (c *Core) extends(n *node) bool {
	p := n.parent
	if !n.linked || p == nil {
		return false
	}
	parent := parentInfo{tip: c.tip(p), notarized: c.isNotarized(p), final: c.finalView}
	return c.rules.extends(&n.Header, parent, c.isNullified) == nil
}

// judges reports whether a block's time is not after the latest that is believed, or its parent's,
// and whether the state that it certifies is right: the one that this replica has executed, or the
// parent's.
func (c *Core) judges(n *node, latest int64) bool {
	p := n.parent
	if !c.rules.timely(n.Time, p.Time, latest) {
		return false
	}
	if c.rules.stateAgrees(&n.Header, inherited(p)) {
		return true
	}
	executed, ok := c.executedAt(n.StateHeight)
	return ok && c.rules.mayClaim(n.StateHeight, c.firm) && c.rules.stateAgrees(&n.Header, executed)
}

// inherited is the state that a notarized block certifies: a child may certify it again, also at a
// replica that has not executed it.
func inherited(parent *node) Executed {
	return Executed{Height: parent.StateHeight, Root: parent.StateRoot, HandoffReady: parent.EpochEnd}
}

// isNullified reports whether the nullification of a view is known.
func (c *Core) isNullified(v View) bool {
	r := c.at(v)
	return r != nil && r.certified(Nullify) != nil
}

// tryFallback casts the fallback votes that the first votes of the current view call for.
func (c *Core) tryFallback(r *round) {
	if !c.mayVote() || r.view != c.view || r.seen < c.rules.quorum() || len(r.own) == 0 {
		return
	}
	seen, proven := r.seen, c.rules.proves(r.convicted)
	leader := c.cfg.LeaderOf(r.view)
	if proven > 0 && r.first[leader] != 0 {
		seen--
	}
	if seen < c.rules.quorum() {
		return
	}
	possible, block := 0, Digest{} // the blocks that are not ruled out, and the last of them
	for i := range r.tallies {
		if t := &r.tallies[i]; t.Kind == Notarize && !c.rules.ruledOut(seen, r.firsts(i, leader, proven), proven) {
			possible, block = possible+1, t.Block
		}
	}
	for i := 0; i < len(r.tallies); i++ {
		t := &r.tallies[i]
		alone := possible == 0 || possible == 1 && block == t.Block
		count := r.firsts(i, leader, proven)
		if t.Kind == Notarize && alone && c.rules.supported(count, proven) && c.rules.mayFallback(r.own, t.Statement) {
			c.tryAdopt(r, t.Statement, c.rules.vouched(count, proven))
		}
	}
	if possible == 0 && c.rules.ruledOut(seen, 0, proven) {
		c.tryCast(r, Vote{Statement: Statement{c.cfg.Epoch, r.view, Nullify, Digest{}}})
	}
}

// tryAdopt casts a fallback notarize vote for a block that is supported, when it is held and valid,
// and stores it before. What is missing is asked for.
func (c *Core) tryAdopt(r *round, s Statement, vouched bool) {
	n := r.node(s.Block)
	held := n != nil && c.reach(finality{r.view, s.Block}, false) != nil
	if n == nil {
		c.request(s.Block, r.view, false)
	}
	if !c.rules.adopts(held && c.extends(n) && (vouched || c.judges(n, c.clock.latest(c)+milliseconds(2*c.cfg.Timeouts.Ahead)))) {
		return
	}
	if n != nil {
		c.store(n)
	}
	c.cast(r, Vote{Statement: s})
}

// firsts returns the first votes for tally i, without the vote of the leader when it is proven
// Byzantine.
func (r *round) firsts(i int, leader ReplicaID, proven int) int {
	count := r.tallies[i].firsts
	if proven > 0 && int(r.first[leader]) == i+1 {
		count--
	}
	return count
}

// tryCast casts a fallback vote if the rules allow it.
func (c *Core) tryCast(r *round, v Vote) {
	if c.rules.mayFallback(r.own, v.Statement) {
		c.cast(r, v)
	}
}

// tryFinalize casts the finalize vote for a block whose notarization is known, if the rules allow it.
func (c *Core) tryFinalize(r *round, block Digest) {
	if !c.mayVote() {
		return
	}
	if own := r.finalize(); own != nil && own.Block == block && !r.spread {
		r.spread = true
		if own.Partial != nil {
			c.do(Broadcast{*own})
		}
		return
	}
	if r.isNotarized(block) && c.rules.mayFinalize(r.own, block) {
		r.spread = true
		c.cast(r, Vote{Statement: Statement{c.cfg.Epoch, r.view, Finalize, block}})
	}
}

// finalize returns this replica's finalize vote in the view, nil when it has cast none.
func (r *round) finalize() *Vote {
	for i := range r.own {
		if r.own[i].Kind == Finalize {
			return &r.own[i]
		}
	}
	return nil
}

// isNotarized reports whether the notarization of a block of the view is known.
func (r *round) isNotarized(block Digest) bool {
	t := r.find(Notarize, block)
	return t != nil && t.certificate != nil
}

// answer gives a peer that lacks finality this replica's finalize vote. What one peer says is
// answered to that peer alone; when f + 1 say it, a correct one among them, all are given the vote,
// and leaders are careful with what they certify.
func (c *Core) answer(r *round, from ReplicaID, block Digest) {
	if !r.isNotarized(block) {
		return // answerAskers comes back to it
	}
	if c.lacking(r, block) <= c.cfg.Size.F {
		if !r.spread { // otherwise the peer was sent it before
			c.lend(r, block, from)
		}
		return
	}
	if r.view%finalizeEvery != 0 {
		c.careful = max(c.careful, r.view+View(c.cfg.Window))
	}
	c.tryFinalize(r, block)
}

// lacking counts the others that have sent a finalize vote for a block, and so lack its finality.
func (c *Core) lacking(r *round, block Digest) (count int) {
	if t := r.find(Finalize, block); t != nil {
		count = t.votes
		if t.partials[c.cfg.Self] != nil {
			count--
		}
	}
	return count
}

// answerAskers answers those whose finalize votes came before the notarization.
func (c *Core) answerAskers(r *round, block Digest) {
	t := r.find(Finalize, block)
	if t == nil {
		return
	}
	for id := range t.partials {
		if t.partials[id] != nil && ReplicaID(id) != c.cfg.Self {
			c.answer(r, ReplicaID(id), block)
		}
	}
}

// lend casts the finalize vote for a block, if the rules allow it, and sends it to one peer.
func (c *Core) lend(r *round, block Digest, to ReplicaID) {
	own := r.finalize()
	switch {
	case !c.mayVote():
	case own != nil && own.Block == block && own.Partial != nil:
		c.do(Send{to, *own})
	case own == nil && r.isNotarized(block) && c.rules.mayFinalize(r.own, block):
		r.askers = append(r.askers, to)
		c.cast(r, Vote{Statement: Statement{c.cfg.Epoch, r.view, Finalize, block}})
	case own != nil && own.Block == block && !slices.Contains(r.askers, to):
		r.askers = append(r.askers, to)
	}
}

// cast binds this replica to a vote and asks for its signature.
func (c *Core) cast(r *round, v Vote) {
	r.own = append(r.own, v)
	c.do(Sign{v})
}

// signed sends a vote that was signed. One that the key refused stays cast: it is asked for again
// when the view makes no progress, and never contradicted.
func (c *Core) signed(ev Signed) {
	v := ev.Vote
	r := c.at(v.View)
	if r == nil || ev.Err != nil || len(v.Partial) == 0 || v.Epoch != c.cfg.Epoch {
		return
	}
	for i := range r.own {
		if own := &r.own[i]; own.Statement == v.Statement && own.First == v.First && own.Partial == nil {
			own.Partial = v.Partial
			c.send(r, v)
			c.count(r, c.cfg.Self, v)
			c.tryFallback(r)
			return
		}
	}
}

// send says a vote that was signed: to all, but for a finalize vote that only some have asked for.
func (c *Core) send(r *round, v Vote) {
	if v.Kind != Finalize || r.spread {
		c.do(Broadcast{v})
		return
	}
	for _, id := range r.askers {
		c.do(Send{id, v})
	}
	r.askers = r.askers[:0]
}
