package bft

import (
	"fmt"
	"time"
)

// Bounds on what a core holds and says.
const (
	// VotesAhead is how far above its own view a replica counts votes.
	VotesAhead = 64
	// BlocksAhead is how far above its own view it keeps blocks.
	BlocksAhead = 8
	// viewsBehind is how far below the final block's view it remembers what was voted.
	viewsBehind = 32
	// maxViews bounds the views that may pass without a final block. The time for a view and the
	// wait for an empty block double with every strainViews of them, so that no cluster lives to
	// see the last.
	maxViews    = 1 << 15
	strainViews = 1 << 10
	// maxFallback bounds the notarize votes counted of one replica in a view.
	maxFallback = 4
	// finalizeEvery is the interval of views that get finalize votes in any case, so that a proof
	// of finality is never old.
	finalizeEvery = 64
	// maxProofs bounds the views whose certificates are in one answer to a Status.
	maxProofs = 64
	// recentViews bounds the views, below the current one, whose blocks get finalize votes when the
	// fast path has failed.
	recentViews = 64
	// lentViews bounds the views in which one peer's request for finality is answered at a time.
	lentViews = 4
)

// Core is one replica's part in one epoch. It is not safe for concurrent use.
type Core struct {
	cfg   Config
	rules ruleset
	now   int64 // by the monotonic clock, from 1 at the first reading
	wall  int64
	out   []Effect

	// view is the current view: every view below it is resolved.
	view  View
	views views
	tree  map[Digest]*node
	// orphans are the nodes that wait for a parent, by its digest.
	orphans map[Digest][]*node
	// shut is the first view that is still open to all votes and blocks.
	shut View

	// final is the last block that was announced as final; it is the root of the tree.
	final     *node
	finalView View
	// fast, certain and implied are the highest blocks known to be final, by counting, by
	// certificate and because a notarized block certifies the state after them, that cannot be
	// announced yet.
	fast, certain, implied finality
	// proof is the highest finalization certificate known.
	proof Certificate
	// provenHeight is the height of the last block that a finalization covers. firm is that of the
	// last one of which anybody can be shown that it is final, in view firmView ([rules.mayClaim]);
	// all final blocks, where that does not matter.
	provenHeight, firm Height
	firmView           View

	executed []Executed // consecutive heights, ending with the last executed
	claims   []Header   // notarized headers that certify a state not yet executed
	missing  []request
	// solid is a view below which, down to the highest notarized block or the final one, all views
	// are known to be resolved.
	solid View
	// paged is the view from which certificates were last asked for on the way through a gap.
	paged View

	asked    *Propose // the proposal that the replica was asked for
	clock    clock
	peers    []peer // by replica, 1 to n
	slow     bool   // the fast path was lost: finalize votes are cast at once
	trouble  View   // the same up to this view, because a view was nullified lately
	careful  View   // up to this view, some correct replica may know less to be final than this one
	accused  [MaxReplicas + 1]bool
	diverged bool
	stopped  bool
}

// finality is a block known to be final.
type finality struct {
	view  View
	block Digest
}

// peer is what a core knows of one other replica.
type peer struct {
	// forged: it sent a bad partial signature or certificate; its later ones are ignored.
	forged bool
	// verifying counts its certificates that are being checked.
	verifying int
	// answered is when its last Status was answered.
	answered int64
}

// New returns the core of a replica for one epoch. The base of the epoch must be final and executed.
func New(cfg Config, restored Restored) (*Core, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Core{
		cfg:   cfg,
		rules: newRules(cfg.Size),
		tree:  make(map[Digest]*node), orphans: make(map[Digest][]*node),
		peers: make([]peer, cfg.Size.N()+1),
	}
	if err := c.restore(restored); err != nil {
		return nil, fmt.Errorf("restore epoch %d: %w", cfg.Epoch, err)
	}
	return c, nil
}

// View returns the current view.
func (c *Core) View() View { return c.view }

// Final returns height and view of the last block that was announced as final.
func (c *Core) Final() (Height, View) { return c.final.Height, c.finalView }

// Held returns how many views and blocks the core holds. Both are bounded, whatever peers send
// (docs/protocol.md, Bounds).
func (c *Core) Held() (views, blocks int) {
	c.eachRound(0, func(*round) { views++ })
	return views, len(c.tree)
}

// Step takes in one event and returns the effects to be carried out, in order. The slice is valid
// until the next call. The monotonic clock is taken to stand still when it runs backwards.
func (c *Core) Step(now Now, ev Event) []Effect {
	if !c.begin(now) {
		return nil
	}
	switch ev := ev.(type) {
	case Receive:
		c.receive(ev)
	case Signed:
		c.signed(ev)
	case Combined:
		c.combined(ev)
	case Verified:
		c.verified(ev)
	case Proposed:
		c.proposed(ev.Block)
	case Executed:
		c.onExecuted(ev)
	case Fetched:
		c.fetched(ev.Blocks)
	case Expired:
		c.expired(ev.Timer)
	case Lost:
		c.lost(ev.Replica)
	}
	return c.out
}

// begin prepares a step. It reports false when the epoch is over.
func (c *Core) begin(now Now) bool {
	clear(c.out)
	c.out = c.out[:0]
	c.clock.read(c, now)
	return !c.stopped
}

// do asks for an effect. Once the epoch's last block is announced there are no more.
func (c *Core) do(e Effect) {
	if !c.stopped {
		c.out = append(c.out, e)
	}
}

// lost takes note of a replica that has ended.
func (c *Core) lost(id ReplicaID) {
	if id >= 1 && int(id) < len(c.peers) && id != c.cfg.Self {
		c.clock.suspect(c, id)
	}
}

// receive sorts a message of a peer. What breaks a limit or has the wrong epoch is dropped.
func (c *Core) receive(ev Receive) {
	if ev.From < 1 || int(ev.From) >= len(c.peers) || ev.From == c.cfg.Self {
		return
	}
	c.clock.readmit(c, ev.From)
	switch m := ev.Message.(type) {
	case *Block:
		if c.rules.concerns(c.cfg.Epoch, m.Epoch) {
			c.onBlock(m)
		}
	case Vote:
		if c.rules.concerns(c.cfg.Epoch, m.Epoch) {
			c.onVote(ev.From, m)
		}
	case Certificate:
		if c.rules.concerns(c.cfg.Epoch, m.Epoch) {
			c.onCertificate(ev.From, m)
		}
	case SignedHeader:
		if c.rules.concerns(c.cfg.Epoch, m.Epoch) {
			c.onHeader(m)
		}
	case Evidence:
		if c.rules.concerns(c.cfg.Epoch, m.A.Epoch) {
			c.onEvidence(m)
		}
	case Status:
		if c.rules.concerns(c.cfg.Epoch, m.Epoch) {
			c.onStatus(ev.From, m)
		}
	}
}

// onBlock takes in a proposal of the view's leader.
func (c *Core) onBlock(b *Block) {
	if b.View <= c.finalView || b.View > c.view+BlocksAhead || b.Proposer != c.cfg.LeaderOf(b.View) {
		return
	}
	r := c.ensure(b.View)
	if r == nil {
		return
	}
	digest := b.Digest()
	c.hear(r, SignedHeader{b.Header, b.Signature}, digest)
	if !c.welcome(r, digest) || c.add(b, digest) == nil {
		return
	}
	c.forget(digest)
	c.advance(r)
}

// welcome reports whether a block that nobody was asked for may be kept: two of a view, while it
// can still get first votes, and any that is known to be notarized.
func (c *Core) welcome(r *round, digest Digest) bool {
	if t := r.find(Notarize, digest); t != nil && t.certificate != nil || c.sought(digest).accepts(r.view) {
		return true
	}
	return r.view >= c.view && len(r.nodes) < 2
}

// advance does what has become possible by news about view r.
func (c *Core) advance(r *round) {
	c.settle()
	if r != nil {
		c.tryFirst(r)
	}
	if r == nil || r.view != c.view {
		if current := c.at(c.view); current != nil {
			c.tryFirst(current)
		}
	}
	if current := c.at(c.view); current != nil {
		c.tryFallback(current)
	}
	c.tryPropose()
}

// onHeader takes in the header that a peer has from the view's leader.
func (c *Core) onHeader(h SignedHeader) {
	if h.View <= c.finalView || h.View > c.view+BlocksAhead || h.Proposer != c.cfg.LeaderOf(h.View) {
		return
	}
	if r := c.ensure(h.View); r != nil {
		c.hear(r, h, h.Digest())
	}
}

// onEvidence takes in a peer's proof that the leader of a view is Byzantine.
func (c *Core) onEvidence(e Evidence) {
	if e.Validate() != nil || e.A.View > c.view+VotesAhead || e.A.Proposer != c.cfg.LeaderOf(e.A.View) {
		return
	}
	if e.A.View < c.views.low {
		c.accuse(e)
		return
	}
	if r := c.ensure(e.A.View); r != nil {
		c.convict(r, e)
	}
}

// hear notes a header signed by the leader of r. The second one convicts it.
func (c *Core) hear(r *round, h SignedHeader, digest Digest) {
	if r.convicted {
		return
	}
	if !r.heard {
		r.heard, r.header, r.digest = true, h, digest
		return
	}
	if r.digest != digest {
		c.convict(r, newEvidence(r.header, h))
	}
}

// convict spreads the evidence against the leader of r and counts the votes again without it.
func (c *Core) convict(r *round, e Evidence) {
	if r.convicted {
		return
	}
	r.convicted, r.evidence = true, e
	c.do(Broadcast{e})
	c.accuse(e)
	c.tryFallback(r)
}

// accuse tells the replica about a culprit, once in an epoch.
func (c *Core) accuse(e Evidence) {
	if id := e.A.Proposer; !c.accused[id] {
		c.accused[id] = true
		c.do(Accuse{id, e})
	}
}

// milliseconds of a duration, at least one when it is positive.
func milliseconds(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}
