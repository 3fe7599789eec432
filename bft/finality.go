package bft

import (
	"maps"
	"slices"
)

// settle announces what is final and known down to the last final block, and asks for what is missing.
func (c *Core) settle() {
	if c.certain.view > c.finalView {
		if n := c.reach(c.certain, true); n != nil {
			c.commitCertified(n)
		}
	}
	for _, f := range [...]*finality{&c.fast, &c.implied} {
		if f.view > c.finalView && !c.stopped {
			if n := c.reach(*f, true); n != nil {
				c.commitCounted(n, f)
			}
		}
	}
}

// reach returns the node of a block when the chain down to the last final block is known; otherwise
// it asks for the missing part. Whether the block is proven, see [request].
func (c *Core) reach(f finality, proven bool) *node {
	n := c.tree[f.block]
	if n == nil {
		c.request(f.block, f.view, proven)
		return nil
	}
	for !n.linked {
		proven = proven || n.notarized
		p := c.tree[n.Parent]
		if p == nil {
			c.requestParent(&n.Header, proven)
			return nil
		}
		n = p
	}
	return c.tree[f.block]
}

// commitCertified announces a block that has its finalization, directly or through a descendant,
// and all before it.
func (c *Core) commitCertified(n *node) {
	if n.last == nil {
		c.commit(n, false)
		c.provenHeight = max(c.provenHeight, n.Height)
		c.firmTo(n.View, n.Height)
		return
	}
	c.do(Broadcast{c.proof})
	for filler := n; filler != n.last; filler = filler.parent { // they are part of the proof of the epoch's end
		c.store(filler)
	}
	c.commit(n.last, true)
}

// commitCounted announces a block that is final by counting, or by what a notarized block
// certifies, and all before it; but the epoch's last block waits for its certificate, which the
// replicas of the next epoch need.
func (c *Core) commitCounted(n *node, f *finality) {
	if n.last == nil {
		c.commit(n, false)
		return
	}
	*f = finality{}
	c.commit(n.last.parent, false)
}

// certifies takes in what the header of a notarized block certifies: the state after an ancestor,
// which is final, because a correct replica voted for the block after it had executed that ancestor
// (docs/protocol.md, Lemma 4). So whoever lacks the votes that made it final catches up.
func (c *Core) certifies(n *node) {
	if p := n.parent; p == nil || p.notarized && !p.base && p.StateHeight == n.StateHeight {
		return // the parent said it already
	}
	c.checkClaim(&n.Header)
	c.firmTo(c.firmView, n.StateHeight)
	if n.StateHeight <= c.final.Height {
		return
	}
	a := n.parent
	for a != nil && a.Height > n.StateHeight {
		a = a.parent
	}
	if a != nil && a.View > c.implied.view {
		c.implied = finality{a.View, a.digest}
	}
}

// commit announces a block and its ancestors as final, oldest first.
func (c *Core) commit(n *node, last bool) {
	var chain []*node
	for a := n; a != nil && !c.isRoot(a); a = a.parent {
		chain = append(chain, a)
	}
	if len(chain) == 0 || !c.isRoot(chain[len(chain)-1].parent) {
		return
	}
	for _, a := range slices.Backward(chain) {
		c.checkClaim(&a.Header)
		c.store(a)
		r := c.at(a.View)
		r.height = a.Height
		if t := r.find(Notarize, a.digest); c.rules.mayClaim(1, 0) || t != nil && c.rules.obtains(t.firsts) {
			c.firmTo(a.View, a.Height)
		}
		c.clock.succeeded(c, a.View)
		c.do(Finalized{a.Block, last && a == n})
	}
	c.stopped = last
	c.moveRoot(n)
}

// store makes a block durable, once.
func (c *Core) store(n *node) {
	if !n.stored {
		n.stored = true
		c.do(StoreBlock{n.Block})
	}
}

// moveRoot makes a final block the root of the tree and forgets what it has decided.
func (c *Core) moveRoot(n *node) {
	delete(c.tree, c.final.digest)
	from := c.finalView
	c.final, c.finalView, n.parent = n, n.View, nil
	for v := from + 1; v <= n.View; v++ {
		r := c.at(v)
		if r == nil {
			continue
		}
		for _, old := range r.nodes {
			if old != n {
				delete(c.tree, old.digest)
			}
		}
		clear(r.nodes)
		r.nodes = r.nodes[:0]
	}
	maps.DeleteFunc(c.orphans, func(_ Digest, waiting []*node) bool {
		return !slices.ContainsFunc(waiting, func(n *node) bool { return n.View > c.finalView })
	})
	c.missing = slices.DeleteFunc(c.missing, func(m request) bool { return m.view <= c.finalView })
	keep := 0
	for keep < len(c.executed)-1 && c.executed[keep].Height < n.StateHeight {
		keep++
	}
	c.executed = slices.Delete(c.executed, 0, keep)
	c.prune()
	if c.view <= c.finalView {
		c.enter(c.finalView + 1)
	}
	for c.view < c.lastView() && c.at(c.view).isResolved() { // the bound on views kept it here
		c.enter(c.view + 1)
	}
}

// onExecuted takes note of the state after a final block.
func (c *Core) onExecuted(ev Executed) {
	if ev.Height != c.executedHeight()+1 || ev.Height > c.final.Height {
		return
	}
	c.executed = append(c.executed, ev)
	claims := c.claims
	c.claims = c.claims[:0]
	for i := range claims {
		c.checkClaim(&claims[i])
	}
	c.eachRound(max(c.finalView+1, c.view-min(c.view, VotesAhead)), func(r *round) {
		if r.view < c.view {
			c.tryFirst(r)
		}
	})
	c.advance(nil)
}

// executedHeight is the height of the last state known.
func (c *Core) executedHeight() Height { return c.executed[len(c.executed)-1].Height }

// executedAt returns the state after the block at a height, if it is remembered.
func (c *Core) executedAt(h Height) (Executed, bool) {
	lowest := c.executed[0].Height
	if h < lowest || h-lowest >= Height(len(c.executed)) {
		return Executed{}, false
	}
	return c.executed[h-lowest], true
}

// checkClaim compares a certified state with this replica's own. One that differs proves that its
// state cannot be trusted.
func (c *Core) checkClaim(h *Header) {
	if h.StateHeight > c.executedHeight() {
		if len(c.claims) < MaxFetch {
			c.claims = append(c.claims, *h)
		}
		return
	}
	mine, ok := c.executedAt(h.StateHeight)
	if ok && mine.Root != h.StateRoot && !c.diverged {
		c.diverged = true
		c.do(Diverged{h.StateHeight, h.StateRoot, mine.Root})
	}
}

// request is a block that was asked for. It is proven when it is notarized or final, or is an
// ancestor of one that is: then there is one such block in a view and it was checked before q
// replicas voted for it, and all of its ancestors are as good. Otherwise somebody has voted for it in
// the current view, and what is held of it is that block alone, while the view lasts: a Byzantine
// replica votes for what it likes and makes ancestors without end.
type request struct {
	block  Digest
	view   View
	proven bool
}

// isIdle reports whether a block is wanted no longer: it was, for a vote in a view that is over.
func (c *Core) isIdle(m request) bool { return !m.proven && m.view < c.view }

// maxMissing bounds the blocks asked for at a time.
const maxMissing = 16

// sought returns what was asked for under a block's digest, nil when nothing was.
func (c *Core) sought(block Digest) *request {
	if i := slices.IndexFunc(c.missing, func(m request) bool { return m.block == block }); i >= 0 {
		return &c.missing[i]
	}
	return nil
}

// accepts reports whether a block of a view is what was asked for.
func (m *request) accepts(v View) bool { return m != nil && (m.proven || m.view == v) }

// request asks for a missing block and its ancestors, once; clock.resend asks again.
func (c *Core) request(block Digest, view View, proven bool) {
	if view <= c.finalView {
		return
	}
	if m := c.sought(block); m != nil {
		if proven && !m.proven {
			m.view, m.proven = view, true
		}
		return
	}
	if len(c.missing) < maxMissing {
		c.missing = append(c.missing, request{block, view, proven})
		c.fetch(c.missing[len(c.missing)-1])
	}
}

// requestParent asks for the parent of a block, if it is of use: that of a block that is not proven
// is when its notarization is known.
func (c *Core) requestParent(h *Header, proven bool) {
	if c.rules.brings(proven) || c.isCertified(h.ParentView, h.Parent) {
		c.request(h.Parent, h.ParentView, true)
	}
}

// isCertified reports whether the notarization of a block is known.
func (c *Core) isCertified(v View, block Digest) bool {
	r := c.at(v)
	return r != nil && r.isNotarized(block)
}

// seek asks for the blocks that are notarized and missing, or whose ancestors are: the highest
// ones, since what is lower and of use is among their ancestors.
func (c *Core) seek() {
	sought := 0
	for v := c.view + VotesAhead; v > c.finalView && sought < maxMissing; v-- {
		r := c.at(v)
		if r == nil {
			continue
		}
		for i := range r.tallies {
			if t := &r.tallies[i]; t.Kind == Notarize && t.certificate != nil {
				c.reach(finality{r.view, t.Block}, true)
				sought++
			}
		}
	}
}

func (c *Core) fetch(m request) {
	c.do(Fetch{Block: m.block, View: m.view, Above: c.final.Height, Hint: c.holders(m)})
}

// holders names replicas that first-voted for a block, or else its leader.
func (c *Core) holders(m request) []ReplicaID {
	var ids []ReplicaID
	if r := c.at(m.view); r != nil {
		for id := range r.first {
			if i := r.first[id]; i != 0 && r.tallies[i-1].Kind == Notarize && r.tallies[i-1].Block == m.block && ReplicaID(id) != c.cfg.Self {
				ids = append(ids, ReplicaID(id))
			}
		}
	}
	if leader := c.cfg.LeaderOf(m.view); len(ids) == 0 && leader != c.cfg.Self {
		ids = append(ids, leader)
	}
	return ids
}

// forget strikes a block off the list of the missing.
func (c *Core) forget(block Digest) {
	if len(c.missing) > 0 {
		c.missing = slices.DeleteFunc(c.missing, func(m request) bool { return m.block == block })
	}
}

// fetched takes in a block that was asked for, with as many of its ancestors as came along and are
// proven.
func (c *Core) fetched(blocks []*Block) {
	if len(blocks) == 0 || len(blocks) > MaxFetch {
		return
	}
	digests := make([]Digest, len(blocks))
	for i, b := range blocks {
		digests[i] = b.Digest()
	}
	top := len(blocks) - 1
	m := c.sought(digests[top])
	if !m.accepts(blocks[top].View) {
		return
	}
	proven := m.proven
	first := top // the lowest block that hangs together with the one asked for
	for first > 0 && blocks[first].Parent == digests[first-1] && (c.rules.brings(proven) || c.isCertified(blocks[first-1].View, digests[first-1])) {
		first, proven = first-1, true
	}
	for i := first; i <= top; i++ {
		if b := blocks[i]; b.Epoch == c.cfg.Epoch && c.add(b, digests[i]) != nil {
			c.forget(digests[i])
		}
	}
	if lowest := blocks[first]; c.tree[lowest.Parent] == nil && lowest.Height > c.final.Height+1 {
		c.requestParent(&lowest.Header, proven)
	}
	c.advance(c.at(blocks[top].View))
}
