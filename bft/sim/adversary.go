package sim

import (
	"slices"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// adversary overrides what a Byzantine machine sends. The machine runs the real core; the adversary
// sees each message on its way to each receiver and puts others in its place. It has the machine's
// own keys and nobody else's.
type adversary interface {
	send(from, to *replica, m bft.Message) []bft.Message
}

// corrupt makes f replicas Byzantine.
func (c *cluster) corrupt() {
	kind := c.options.Adversary
	if kind == "none" {
		return
	}
	if kind == "all" {
		kind = Adversaries[c.world.rng.IntN(len(Adversaries))]
	}
	plot := &plot{c: c, variants: make(map[viewKey][]*bft.Block), side: make(map[sideKey]int)}
	for _, i := range c.world.rng.Perm(c.size.N())[:c.size.F] {
		r := c.replicas[i]
		r.evil = newAdversary(kind, plot)
		c.note(r, "is Byzantine: %s", kind)
		if kind == "twins" {
			c.addMachine(r.id, 1).evil = r.evil
		}
	}
	switch kind {
	case "collude":
		c.net.schedule = plot.schedule
		c.world.after(0, plot.turn)
	case "twins":
		c.world.after(0, c.net.shuffleTwins)
	}
}

func newAdversary(kind string, p *plot) adversary {
	switch kind {
	case "equivocate":
		return equivocator{p, false}
	case "collude":
		return equivocator{p, true}
	case "withhold":
		return withholder{p.c}
	case "bad-share":
		return badShare{p.c}
	case "replay":
		return &replayer{c: p.c}
	case "split":
		return splitter{p}
	case "censor":
		return censor{p}
	case "invalid":
		return invalid{p}
	case "unseen":
		return unseen{p, make(map[bft.Digest]*bft.Block)}
	}
	return honest{}
}

// honest sends what the core says; twins are Byzantine in that there are two.
type honest struct{}

func (honest) send(_, _ *replica, m bft.Message) []bft.Message { return []bft.Message{m} }

// plot is what the Byzantine replicas of a run share.
type plot struct {
	c        *cluster
	variants map[viewKey][]*bft.Block // the blocks that a Byzantine leader made for a view
	side     map[sideKey]int          // which of them a receiver is shown
	slow     []bool                   // by machine, whether messages to it are delayed for now
}

type sideKey struct {
	viewKey
	to bft.ReplicaID
}

// variant returns the block that a receiver is to believe in.
func (p *plot) variant(key viewKey, to bft.ReplicaID) *bft.Block {
	blocks := p.variants[key]
	if len(blocks) == 0 {
		return nil
	}
	at := sideKey{key, to}
	side, ok := p.side[at]
	if !ok {
		side = p.c.world.rng.IntN(len(blocks))
		p.side[at] = side
	}
	return blocks[side]
}

// fork makes two or three variants of a leader's block, once.
func (p *plot) fork(b *bft.Block) {
	key := viewKey{b.Epoch, b.View}
	if len(p.variants[key]) > 0 {
		return
	}
	blocks := []*bft.Block{b}
	for i := range 1 + p.c.world.rng.IntN(2) {
		other := *b
		other.Time += int64(i + 1)
		other.Signature = p.c.signBlock(&other)
		blocks = append(blocks, &other)
	}
	p.variants[key] = blocks
}

// turn lets the colluding network favour other receivers.
func (p *plot) turn() {
	p.slow = make([]bool, p.c.size.N()+1)
	for i := range p.slow {
		p.slow[i] = p.c.world.chance(0.4)
	}
	p.c.world.after(p.c.world.between(20*time.Millisecond, 120*time.Millisecond), p.turn)
}

// schedule is the delay that the colluding network adds.
func (p *plot) schedule(from, to *replica) time.Duration {
	if p.slow == nil || !p.slow[to.id] || from.evil != nil {
		return 0
	}
	return 15 * time.Millisecond
}

// forge makes a vote with the machine's own key.
func forge(r *replica, s bft.Statement, first bool) bft.Vote {
	return bft.Vote{Statement: s, First: first, Partial: r.keys.partial(r.id, r.c.signedBytes(s))}
}

// equivocator shows different blocks of one view to different receivers, and votes with each of
// them. Colluding ones do so together, and also in the views of correct leaders tell some receivers
// that they saw nothing.
type equivocator struct {
	*plot
	collude bool
}

func (a equivocator) send(from, to *replica, m bft.Message) []bft.Message {
	switch m := m.(type) {
	case *bft.Block:
		if m.Proposer == from.id {
			a.fork(m)
			return []bft.Message{a.variant(viewKey{m.Epoch, m.View}, to.id)}
		}
	case bft.Vote:
		if b := a.variant(viewKey{m.Epoch, m.View}, to.id); b != nil {
			return a.flatter(from, m, b)
		}
		if a.collude && m.Kind == bft.Notarize && a.slow != nil && a.slow[to.id] {
			return []bft.Message{forge(from, bft.Statement{Epoch: m.Epoch, View: m.View, Kind: bft.Nullify}, true)}
		}
	case bft.SignedHeader, bft.Evidence:
		return nil
	}
	return []bft.Message{m}
}

// flatter votes for the receiver's block, and for its finality.
func (a equivocator) flatter(from *replica, v bft.Vote, b *bft.Block) []bft.Message {
	s := bft.Statement{Epoch: v.Epoch, View: v.View, Kind: bft.Notarize, Block: b.Digest()}
	votes := []bft.Message{forge(from, s, true)}
	if a.c.world.chance(0.5) {
		s.Kind = bft.Finalize
		votes = append(votes, forge(from, s, false))
	}
	return votes
}

// withholder sends each message to some receivers only.
type withholder struct{ c *cluster }

func (a withholder) send(from, to *replica, m bft.Message) []bft.Message {
	if a.c.world.chance(0.5) {
		return nil
	}
	return []bft.Message{m}
}

// badShare sends partial signatures and certificates that do not verify.
type badShare struct{ c *cluster }

func (a badShare) send(from, to *replica, m bft.Message) []bft.Message {
	switch v := m.(type) {
	case bft.Vote:
		if a.c.world.chance(0.5) {
			v.Partial = slices.Clone(v.Partial)
			v.Partial[0]++
			return []bft.Message{v}
		}
	case bft.Certificate:
		v.Signature = slices.Clone(v.Signature)
		v.Signature[0]++
		return []bft.Message{v}
	}
	return []bft.Message{m}
}

// replayer says again what it and others said before, in this epoch and earlier ones, as its own.
type replayer struct {
	c    *cluster
	past []bft.Message
}

// heard is told what the machine receives.
func (a *replayer) heard(m bft.Message) {
	const memory = 512
	if len(a.past) < memory {
		a.past = append(a.past, m)
		return
	}
	a.past[a.c.world.rng.IntN(memory)] = m
}

func (a *replayer) send(from, to *replica, m bft.Message) []bft.Message {
	out := []bft.Message{m}
	for range 2 {
		if len(a.past) == 0 || !a.c.world.chance(0.5) {
			continue
		}
		old := a.past[a.c.world.rng.IntN(len(a.past))]
		if cert, ok := old.(bft.Certificate); ok && a.c.world.chance(0.5) {
			cert.Epoch = from.epoch // as if it were of this epoch
			old = cert
		}
		out = append(out, old)
	}
	return out
}

// splitter votes at random, otherwise to each receiver: for blocks, against them, several times,
// and for finality too.
type splitter struct{ *plot }

func (a splitter) send(from, to *replica, m bft.Message) []bft.Message {
	v, ok := m.(bft.Vote)
	if !ok {
		return []bft.Message{m}
	}
	var out []bft.Message
	for range 1 + a.c.world.rng.IntN(3) {
		s := v.Statement
		switch a.c.world.rng.IntN(4) {
		case 0:
			s.Kind, s.Block = bft.Nullify, bft.Digest{}
		case 1:
			if s.Kind != bft.Nullify {
				s.Kind = bft.Finalize
			}
		case 2:
			s.Kind, s.Block = bft.Notarize, bft.Digest{byte(v.View), byte(to.id) * byte(v.View%2), 0xff} // no block at all
		}
		out = append(out, forge(from, s, s.Kind != bft.Finalize && a.c.world.chance(0.7)))
	}
	return out
}

// censor leaves out the operations of some clients when it leads, and otherwise behaves.
type censor struct{ *plot }

func (a censor) send(from, to *replica, m bft.Message) []bft.Message {
	b, ok := m.(*bft.Block)
	if !ok || b.Proposer != from.id || len(b.Payload) == 0 {
		return []bft.Message{m}
	}
	key := viewKey{b.Epoch, b.View}
	if len(a.variants[key]) == 0 {
		ops, _ := decodeOps(b.Payload)
		empty := *b
		empty.Payload = encodeOps(slices.DeleteFunc(ops, func(o op) bool { return o.source%2 == 0 }))
		empty.Header.Payload = bft.PayloadDigest(empty.Payload)
		empty.Signature = a.c.signBlock(&empty)
		a.variants[key] = []*bft.Block{&empty}
	}
	return []bft.Message{a.variants[key][0]}
}

// invalid proposes blocks that break a rule: built on an older parent over views that were not
// nullified, certifying a state that never was, or ending the epoch before its time.
type invalid struct{ *plot }

func (a invalid) send(from, to *replica, m bft.Message) []bft.Message {
	b, ok := m.(*bft.Block)
	if !ok || b.Proposer != from.id {
		return []bft.Message{m}
	}
	key := viewKey{b.Epoch, b.View}
	if len(a.variants[key]) == 0 {
		a.variants[key] = []*bft.Block{a.spoil(b)}
	}
	return []bft.Message{a.variants[key][0]}
}

func (a invalid) spoil(b *bft.Block) *bft.Block {
	bad := *b
	switch a.c.world.rng.IntN(4) {
	case 0:
		if parent := a.c.proposals[b.Parent]; parent != nil && parent.Epoch == b.Epoch {
			bad.Parent, bad.ParentView, bad.Height = parent.Parent, parent.ParentView, parent.Height
			bad.StateHeight, bad.StateRoot, bad.EpochEnd = parent.StateHeight, parent.StateRoot, parent.EpochEnd
		}
	case 1:
		bad.StateRoot[0]++
	case 2:
		if len(bad.Payload) == 0 {
			bad.EpochEnd = !bad.EpochEnd
		}
	}
	bad.Signature = a.c.signBlock(&bad)
	return &bad
}

// unseen first-votes, in its own views, for a block that nobody has seen, so that it is asked for,
// and serves it with ancestors that it has made up, of views far ahead. At c = 0 the first votes of
// f replicas are enough for that.
type unseen struct {
	*plot
	made map[bft.Digest]*bft.Block
}

// chainOfLies is how many ancestors it makes up for a block.
const chainOfLies = 128

func (a unseen) send(from, to *replica, m bft.Message) []bft.Message {
	switch m := m.(type) {
	case *bft.Block:
		if m.Proposer == from.id {
			return nil
		}
	case bft.Vote:
		if m.First && from.config.LeaderOf(m.View) == from.id {
			lie := bft.Statement{Epoch: m.Epoch, View: m.View, Kind: bft.Notarize, Block: a.forest(from, m.Epoch, m.View)}
			return []bft.Message{forge(from, lie, true)}
		}
	}
	return []bft.Message{m}
}

// forest makes the block of a view that nobody else sees, and its ancestors, once.
func (a unseen) forest(leader *replica, epoch bft.Epoch, view bft.View) bft.Digest {
	key := viewKey{epoch, view}
	if len(a.variants[key]) == 0 {
		var parent bft.Digest
		ahead := view
		for i := range chainOfLies {
			for ahead++; leader.config.LeaderOf(ahead) != leader.id; ahead++ {
			}
			b := &bft.Block{Header: bft.Header{Epoch: epoch, View: ahead, Height: leader.state.height + 100 + bft.Height(i), Proposer: leader.id, Parent: parent, ParentView: ahead - 1}}
			if i == chainOfLies-1 {
				b.View = view
			}
			b.Header.Payload = bft.PayloadDigest(nil)
			b.Signature = a.c.signBlock(b)
			parent = b.Digest()
			a.made[parent] = b
			a.variants[key] = []*bft.Block{b}
		}
	}
	return a.variants[key][0].Digest()
}

// serve answers with a block that it has made up, and its ancestors.
func (a unseen) serve(top bft.Digest) []*bft.Block {
	var blocks []*bft.Block
	for b := a.made[top]; b != nil; b = a.made[b.Parent] {
		blocks = append(blocks, b)
	}
	slices.Reverse(blocks)
	return blocks
}
