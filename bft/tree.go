package bft

import "slices"

// Bounds on blocks that are not final.
const (
	// MaxFetch bounds the blocks that are accepted in one answer to [Fetch], and how far above the
	// final block they may lie.
	MaxFetch = 512
	// maxNodes bounds the blocks held above the final one: those that are notarized, one in a view,
	// and few others.
	maxNodes = maxViews + 2*VotesAhead
)

var emptyPayload = PayloadDigest(nil)

// node is a block in the tree above the final block.
type node struct {
	*Block
	digest Digest
	// parent is nil while the chain down to the final block is not known, and once the node is final.
	parent *node
	// linked: the chain is known.
	linked    bool
	notarized bool
	// base: it is the block below the epoch, of which only what Config says is known.
	base bool
	// stored: the replica was told to make it durable.
	stored bool
	// full is the height of the last block with a payload, up to and including this one.
	full Height
	// last is the epoch's last block, when the chain up to here has it.
	last *node
}

// position is the node's view, 0 for the block below the epoch.
func (n *node) position() View {
	if n.base {
		return 0
	}
	return n.View
}

// add puts a block into the tree and its view, and returns its node. It is nil when the block
// cannot be of use or there is no room.
func (c *Core) add(b *Block, digest Digest) *node {
	if n := c.tree[digest]; n != nil {
		return n
	}
	if b.View <= c.finalView || b.Height <= c.final.Height || b.Height > c.final.Height+maxViews || len(c.tree) >= maxNodes {
		return nil
	}
	r := c.ensure(b.View)
	if r == nil {
		return nil
	}
	n := &node{Block: b, digest: digest}
	if t := r.find(Notarize, digest); t != nil && t.certificate != nil {
		n.notarized = true
	}
	c.tree[digest] = n
	r.nodes = append(r.nodes, n)
	c.link(n)
	return n
}

// link connects a node with its parent, and then the nodes that waited for it.
func (c *Core) link(n *node) {
	for waiting := []*node{n}; len(waiting) > 0; waiting = waiting[1:] {
		if n := waiting[0]; c.linkOne(n) {
			waiting = append(waiting, c.orphans[n.digest]...)
			delete(c.orphans, n.digest)
		}
	}
}

// linkOne connects a node with its parent, and reports whether that could be done.
func (c *Core) linkOne(n *node) bool {
	p := c.tree[n.Parent]
	if p == nil || !p.linked {
		c.orphans[n.Parent] = append(c.orphans[n.Parent], n)
		return false
	}
	if tip := c.tip(p); tip.Follows(&n.Header) != nil {
		return false
	}
	n.parent, n.linked, n.last, n.full = p, true, p.last, p.full
	if n.Header.Payload != emptyPayload {
		n.full = n.Height
	}
	if n.EpochEnd && n.last == nil {
		n.last = n
	}
	if n.notarized {
		c.certifies(n)
	}
	return true
}

// noOrphan has a node that is let go of wait for its parent no longer.
func (c *Core) noOrphan(n *node) {
	waiting := slices.DeleteFunc(c.orphans[n.Parent], func(o *node) bool { return o == n })
	if len(waiting) > 0 {
		c.orphans[n.Parent] = waiting
	} else {
		delete(c.orphans, n.Parent)
	}
}

// tip is the chain that ends with a linked node.
func (c *Core) tip(n *node) Tip {
	t := Tip{Header: n.Header, Digest: n.digest, Epoch: c.cfg.Epoch, Base: n.base}
	if n.last != nil {
		t.Last = n.last.Height
	}
	return t
}

// isNotarized reports whether the node may be built upon.
func (c *Core) isNotarized(n *node) bool { return n.notarized || c.isRoot(n) }

// isRoot reports whether the node is of the last final block. It need not be the node that the tree
// has of it: one that was let go of ([Core.close]) and fetched again has children on the old node.
func (c *Core) isRoot(n *node) bool { return n != nil && n.digest == c.final.digest }
