package bft

import (
	"cmp"
	"fmt"
	"slices"
)

// Validate reports what is wrong with a configuration.
func (cfg *Config) Validate() error {
	if err := cfg.Size.Validate(); err != nil {
		return err
	}
	n := ReplicaID(cfg.Size.N())
	if cfg.Self < 1 || cfg.Self > n {
		return fmt.Errorf("replica %d is not one of 1 to %d", cfg.Self, n)
	}
	if len(cfg.Leaders) == 0 || len(cfg.Leaders) > MaxReplicas {
		return fmt.Errorf("%d leaders: need 1 to %d", len(cfg.Leaders), MaxReplicas)
	}
	for _, id := range cfg.Leaders {
		if id < 1 || id > n {
			return fmt.Errorf("leader %d is not one of 1 to %d", id, n)
		}
	}
	if cfg.Window < 1 || cfg.Window > VotesAhead {
		return fmt.Errorf("leader window %d: need 1 to %d views", cfg.Window, VotesAhead)
	}
	return cfg.Timeouts.Validate()
}

// LeaderOf returns the leader of a view. A leader serves Window views in a row.
func (cfg *Config) LeaderOf(v View) ReplicaID { return LeaderOf(cfg.Leaders, cfg.Window, v) }

// restore brings back what the replica kept of the epoch.
func (c *Core) restore(kept Restored) error {
	if err := c.restoreFinal(kept); err != nil {
		return err
	}
	c.views.low = 1
	if c.finalView > viewsBehind {
		c.views.low = c.finalView - viewsBehind
	}
	c.view, c.shut = c.finalView+1, c.finalView+1
	for _, cert := range kept.Certificates {
		c.restoreCertificate(cert)
	}
	if c.finalView > 0 {
		r := c.ensure(c.finalView)
		r.height = c.final.Height
		if r.certified(Finalize) != nil {
			c.provenHeight = r.height
			c.firmTo(r.view, r.height)
		}
	}
	blocks := slices.Clone(kept.Blocks)
	slices.SortStableFunc(blocks, func(a, b *Block) int { return cmp.Compare(a.View, b.View) })
	for _, b := range blocks {
		c.restoreBlock(b)
	}
	for _, v := range c.rules.remembers(kept.Votes) {
		if r := c.ensure(v.View); r != nil && v.Epoch == c.cfg.Epoch {
			r.own = append(r.own, v)
		}
	}
	c.ensure(c.view)
	c.shutBelow()
	return nil
}

// restoreFinal makes the last final block, or the epoch's base, the root of the tree.
func (c *Core) restoreFinal(kept Restored) error {
	base := c.cfg.Base
	header := Header{Height: base.Height, Time: base.Time, StateHeight: base.Height, StateRoot: base.Root}
	c.final = &node{Block: &Block{Header: header}, digest: base.Digest, base: true, full: base.Height}
	c.executed = []Executed{{Height: base.Height, Root: base.Root}}
	if kept.FinalView > 0 {
		i := slices.IndexFunc(kept.Blocks, func(b *Block) bool { return b.View == kept.FinalView && b.Digest() == kept.Final.Digest })
		if i < 0 {
			return fmt.Errorf("the final block of view %d is missing", kept.FinalView)
		}
		c.final = &node{Block: kept.Blocks[i], digest: kept.Final.Digest, full: kept.Final.Height}
		c.finalView = kept.FinalView
		c.executed = []Executed{{Height: kept.Final.Height, Root: kept.Final.Root}}
	}
	c.final.linked, c.final.notarized, c.final.stored = true, true, true
	c.tree[c.final.digest] = c.final
	if c.rules.mayClaim(1, 0) {
		c.firmView = c.finalView
	}
	c.provenHeight, c.firm = base.Height, base.Height
	if len(kept.Executed) == 0 {
		return nil
	}
	for i, e := range kept.Executed {
		if e.Height+Height(len(kept.Executed)-1-i) != c.final.Height {
			return fmt.Errorf("the states kept do not lead up to the final height %d", c.final.Height)
		}
	}
	c.executed = slices.Clone(kept.Executed)
	return nil
}

func (c *Core) restoreCertificate(cert Certificate) {
	r := c.ensure(cert.View)
	if r == nil || cert.Epoch != c.cfg.Epoch {
		return
	}
	t := c.tally(r, cert.Kind, cert.Block)
	t.certificate = cert.Signature
	if cert.Kind == Finalize && cert.View > c.proof.View {
		c.proof = cert
		c.certain = finality{cert.View, cert.Block}
	}
	if cert.Kind == Notarize {
		c.solid = max(c.solid, cert.View+1)
	}
	if cert.Kind != Finalize && cert.View < c.lastView() {
		c.view = max(c.view, cert.View+1)
	}
}

func (c *Core) restoreBlock(b *Block) {
	if b.Epoch != c.cfg.Epoch {
		return
	}
	digest := b.Digest()
	n := c.add(b, digest)
	if n == nil {
		return
	}
	n.stored = true
	r := c.ensure(b.View)
	if r == nil {
		return
	}
	c.hear(r, SignedHeader{b.Header, b.Signature}, digest)
	r.proposed = r.proposed || b.Proposer == c.cfg.Self
}

// Start returns the first effects: what was said before a restart is said again, and the timers run.
func (c *Core) Start(now Now) []Effect {
	c.begin(now)
	c.eachRound(c.views.low, func(r *round) {
		if r.certified(Notarize) != nil {
			r.notarizedAt = c.now
		}
		if r.convicted {
			c.accused[r.evidence.A.Proposer] = false
			c.accuse(r.evidence)
		}
		for _, v := range r.own {
			if v.Partial != nil {
				c.count(r, c.cfg.Self, v)
			}
		}
	})
	c.seek()
	c.clock.enter(c)
	c.clock.arm(c, TimerResend, c.now+max(1, milliseconds(c.cfg.Timeouts.Resend)))
	if c.hasOpen() {
		c.clock.arm(c, TimerFinalize, c.now+milliseconds(c.cfg.Timeouts.Finalize))
	}
	if c.view > 1 || len(c.at(1).own) > 0 {
		c.eachRound(c.finalView+1, c.signAgain)
		c.do(Broadcast{c.status()})
		c.repeat(c.view-1, func(m Message) { c.do(Broadcast{m}) })
	}
	c.advance(c.at(c.view))
	return c.out
}
