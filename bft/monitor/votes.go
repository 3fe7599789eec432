package monitor

import (
	"fmt"
	"maps"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// absent is p, how many absent replicas the fast path bears: floor(c/2) + 1.
func absent(c int) int { return c/2 + 1 }

// maxLag is how many blocks the certified state may lie behind a block with operations.
const maxLag = 128

// judgeVote asks whether a vote is justified at the moment at which it is to be signed.
func (m *Monitor) judgeVote(v bft.Vote) {
	if !m.cfg.Voter {
		m.fail("votes in view %d without a share of the epoch", v.View)
	}
	if v.Epoch != m.cfg.Epoch || v.View == 0 {
		m.fail("votes in view %d of epoch %d", v.View, v.Epoch)
	}
	if m.diverged {
		m.fail("votes in view %d with a state that is not the cluster's", v.View)
	}
	if m.last {
		m.fail("votes in view %d after the epoch's last block", v.View)
	}
	own := m.own[v.View]
	for _, before := range own {
		switch {
		case before.Statement == v.Statement && before.First == v.First:
			return // asked for again: the key makes the same signature
		case before.Kind == bft.Finalize:
			m.fail("votes %v in view %d after it has voted to finalize a block of it", v.Kind, v.View)
		}
	}
	switch {
	case v.Kind == bft.Finalize:
		m.judgeFinalize(v, own)
	case v.First:
		m.judgeFirst(v, own)
	default:
		m.judgeFallback(v, own)
	}
}

func (m *Monitor) judgeFinalize(v bft.Vote, own []bft.Vote) {
	if !m.certs[bft.Statement{Epoch: v.Epoch, View: v.View, Kind: bft.Notarize, Block: v.Block}] {
		m.fail("votes to finalize a block of view %d without its notarization", v.View)
	}
	for _, before := range own {
		if before.Kind != bft.Notarize || !before.First || before.Block != v.Block {
			m.fail("votes to finalize a block of view %d after another vote in it", v.View)
		}
	}
}

func (m *Monitor) judgeFirst(v bft.Vote, own []bft.Vote) {
	if len(own) > 0 {
		m.fail("casts a first vote in view %d after another vote in it", v.View)
	}
	if v.Kind == bft.Nullify {
		due, set := m.due[v.View]
		early := !set && !m.fired || m.now.Mono < due || m.now.Mono-m.enteredAt < m.least(v.View).Milliseconds()
		if early && !m.leaderFailed(v.View) {
			m.fail("nullifies view %d before its time is up", v.View)
		}
		if v.View != m.view {
			m.fail("nullifies view %d, and is in view %d", v.View, m.view)
		}
		return
	}
	late := v.View < m.view && v.View > m.finalView && m.certs[bft.Statement{Epoch: v.Epoch, View: v.View, Kind: bft.Notarize, Block: v.Block}]
	if v.View != m.view && !late {
		m.fail("casts a first vote in view %d, and is in view %d", v.View, m.view)
	}
	k := m.blocks[v.Block]
	if k == nil || k.header.View != v.View {
		m.fail("votes for a block in view %d that it does not hold", v.View)
		return
	}
	if !k.stored {
		m.fail("votes for a block in view %d before it is stored", v.View)
	}
	m.judgePlace(k, "votes for")
	m.judgeState(k, "votes for")
	latest := m.now.Wall + m.cfg.Timeouts.Ahead.Milliseconds()
	if parent := m.parentTime(k); k.header.Time > max(parent, latest) {
		m.fail("votes for a block in view %d whose time is %v ahead", v.View, time.Duration(k.header.Time-m.now.Wall)*time.Millisecond)
	}
}

// leaderFailed: an earlier view of the same leader's window was nullified, or this replica gave it up.
func (m *Monitor) leaderFailed(v bft.View) bool {
	first := (v-1)/bft.View(m.cfg.Window)*bft.View(m.cfg.Window) + 1
	for u := first; u < v; u++ {
		if m.passed[u] {
			return true
		}
	}
	return false
}

// notarized: a block may be built upon.
func (m *Monitor) notarized(view bft.View, block bft.Digest) bool {
	if view == 0 {
		return block == m.cfg.Base.Digest
	}
	if m.certs[bft.Statement{Epoch: m.cfg.Epoch, View: view, Kind: bft.Notarize, Block: block}] {
		return true
	}
	return m.isFinal(block)
}

// isFinal: by its own votes, by a descendant's, or because a notarized descendant certifies the
// state after it: a correct replica has executed it as final.
func (m *Monitor) isFinal(block bft.Digest) bool {
	k := m.blocks[block]
	if k == nil {
		return false
	}
	if k.header.Height <= m.final {
		return true
	}
	for digest, d := range m.blocks {
		notarized := m.certs[bft.Statement{Epoch: m.cfg.Epoch, View: d.header.View, Kind: bft.Notarize, Block: digest}]
		proves := d.header.Height >= k.header.Height && m.direct(digest, d) || notarized && d.header.StateHeight >= k.header.Height
		if proves && m.descends(digest, block, k.header.Height) {
			return true
		}
	}
	return false
}

// direct: final by the votes of its own view: by a finalization, or by n - p first votes, with the
// notarization when they are fewer than n - c.
func (m *Monitor) direct(digest bft.Digest, k *known) bool {
	if m.certs[bft.Statement{Epoch: m.cfg.Epoch, View: k.header.View, Kind: bft.Finalize, Block: digest}] {
		return true
	}
	count := 0
	for _, s := range m.firsts[k.header.View] {
		if s.Kind == bft.Notarize && s.Block == digest {
			count++
		}
	}
	notarized := m.certs[bft.Statement{Epoch: m.cfg.Epoch, View: k.header.View, Kind: bft.Notarize, Block: digest}]
	return count >= m.n-m.p && (notarized || count >= m.n-m.cfg.Size.C)
}

func (m *Monitor) descends(from, to bft.Digest, height bft.Height) bool {
	for from != to {
		k := m.blocks[from]
		if k == nil || k.header.Height <= height {
			return false
		}
		from = k.header.Parent
	}
	return true
}

// judgePlace asks whether a block stands where it may: on a notarized parent, with all views
// between nullified.
func (m *Monitor) judgePlace(k *known, does string) {
	h := &k.header
	if !m.notarized(h.ParentView, h.Parent) {
		m.fail("%s a block in view %d whose parent is not known to be notarized", does, h.View)
	}
	m.judgeChain(k, does)
}

// judgeChain asks whether a block follows its parent, and all views between are nullified.
func (m *Monitor) judgeChain(k *known, does string) {
	h := &k.header
	for u := h.ParentView + 1; u < h.View; u++ {
		if !m.certs[bft.Statement{Epoch: m.cfg.Epoch, View: u, Kind: bft.Nullify}] {
			m.fail("%s a block in view %d though view %d before it is not nullified", does, h.View, u)
		}
	}
	parent := m.blocks[h.Parent]
	if h.ParentView >= h.View || parent != nil && parent.header.View != h.ParentView {
		m.fail("%s a block in view %d that gives view %d as its parent's", does, h.View, h.ParentView)
	}
	height, earliest, state := m.cfg.Base.Height, m.cfg.Base.Time, m.cfg.Base.Height
	if parent != nil {
		height, earliest, state = parent.header.Height, parent.header.Time, parent.header.StateHeight
	} else if h.ParentView != 0 {
		return // final, and its content forgotten
	}
	switch {
	case h.Height != height+1:
		m.fail("%s a block of height %d on one of height %d", does, h.Height, height)
	case h.Time < earliest:
		m.fail("%s a block in view %d with a time before its parent's", does, h.View)
	case h.StateHeight < state || h.StateHeight > height:
		m.fail("%s a block in view %d that certifies height %d, on one that certifies %d", does, h.View, h.StateHeight, state)
	case h.Height-h.StateHeight > maxLag && !k.empty:
		m.fail("%s a block in view %d with operations, %d blocks above the state that it certifies", does, h.View, h.Height-h.StateHeight)
	case h.EpochEnd && !k.empty:
		m.fail("%s a block in view %d that ends the epoch and is not empty", does, h.View)
	case parent != nil && parent.header.EpochEnd && !h.EpochEnd:
		m.fail("%s a block in view %d that takes the end of the epoch back", does, h.View)
	}
}

func (m *Monitor) parentTime(k *known) int64 {
	if parent := m.blocks[k.header.Parent]; parent != nil {
		return parent.header.Time
	}
	return m.cfg.Base.Time
}

// judgeState asks whether the replica has executed the state that a block certifies, or its parent
// certifies the same.
func (m *Monitor) judgeState(k *known, does string) {
	h := &k.header
	if p := m.blocks[h.Parent]; p != nil && p.header.StateHeight == h.StateHeight && p.header.StateRoot == h.StateRoot && p.header.EpochEnd == h.EpochEnd {
		return
	}
	e, ok := m.executed[h.StateHeight]
	switch {
	case !ok:
		m.fail("%s a block in view %d that certifies height %d, which it has not executed", does, h.View, h.StateHeight)
	case e.Root != h.StateRoot:
		m.fail("%s a block in view %d that certifies another state than it has at height %d", does, h.View, h.StateHeight)
	case m.p > m.cfg.Size.C && !m.isFirm(h.StateHeight):
		m.fail("%s a block in view %d that certifies height %d, which not everybody can be shown to be final", does, h.View, h.StateHeight)
	case e.HandoffReady != h.EpochEnd:
		m.fail("%s a block in view %d that ends the epoch: %v, where the state says %v", does, h.View, h.EpochEnd, e.HandoffReady)
	}
}

// isFirm: anybody can be shown that the block of a height is final: by a finalization, by a
// notarized block that certifies the state after it, or because all n replicas first-voted for it.
func (m *Monitor) isFirm(height bft.Height) bool {
	if height <= m.cfg.Base.Height {
		return true
	}
	for digest, k := range m.blocks {
		s := bft.Statement{Epoch: m.cfg.Epoch, View: k.header.View, Kind: bft.Finalize, Block: digest}
		if k.header.Height >= height && k.header.Height <= m.final && (m.certs[s] || m.supporters(k.header.View, digest) == m.n) {
			return true
		}
		if s.Kind = bft.Notarize; k.header.StateHeight >= height && m.certs[s] {
			return true
		}
	}
	return false
}

// judgeFallback counts the first votes: all blocks ruled out to nullify, all but a supported one to
// notarize it.
func (m *Monitor) judgeFallback(v bft.Vote, own []bft.Vote) {
	first := false
	for _, before := range own {
		first = first || before.First
	}
	if !first {
		m.fail("casts a fallback vote in view %d before its first", v.View)
	}
	if v.View != m.view {
		m.fail("casts a fallback vote in view %d, and is in view %d", v.View, m.view)
	}
	why := m.counted(v, 0)
	supporters := m.supporters(v.View, v.Block)
	vouched := supporters > m.f
	if len(m.headers[v.View]) > 1 { // evidence is where it is needed: a replica that was shown both headers need not have kept both
		if m.firsts[v.View][m.cfg.LeaderOf(v.View)].Block == v.Block {
			supporters--
		}
		if with := m.counted(v, 1); len(with) < len(why) {
			why = with
		}
		vouched = vouched || supporters > m.f-1
	}
	for _, sentence := range why {
		m.fail("%s", sentence)
	}
	if v.Kind == bft.Nullify {
		return
	}
	k := m.blocks[v.Block]
	if k == nil || !k.stored {
		m.fail("notarizes a block as a fallback in view %d that it does not hold and store", v.View)
		return
	}
	m.judgePlace(k, "notarizes as a fallback")
	if vouched {
		return // a correct replica has judged time and state
	}
	m.judgeState(k, "notarizes as a fallback")
	latest := m.now.Mono + m.offset + 2*m.cfg.Timeouts.Ahead.Milliseconds()
	if k.header.Time > max(m.parentTime(k), latest) {
		m.fail("notarizes a block as a fallback in view %d whose time is far ahead", v.View)
	}
}

func (m *Monitor) supporters(view bft.View, block bft.Digest) (count int) {
	for _, s := range m.firsts[view] {
		if s.Kind == bft.Notarize && s.Block == block {
			count++
		}
	}
	return count
}

// counted says what the first votes do not justify, with 0 or 1 replicas proven Byzantine: the
// leader, whose vote is left out.
func (m *Monitor) counted(v bft.Vote, proven int) (why []string) {
	fail := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	seen, counts := 0, map[bft.Digest]int{}
	for from, s := range m.firsts[v.View] {
		if proven == 1 && from == m.cfg.LeaderOf(v.View) {
			continue
		}
		seen++
		if s.Kind == bft.Notarize {
			counts[s.Block]++
		}
	}
	if seen < m.q {
		fail("casts a fallback vote in view %d after %d first votes", v.View, seen)
	}
	ruledOut := func(count int) bool { return seen-count >= m.f-proven+m.p+1 }
	for block, count := range counts {
		if block != v.Block && !ruledOut(count) {
			fail("votes %v as a fallback in view %d though a block with %d of %d first votes is not ruled out", v.Kind, v.View, count, seen)
		}
	}
	if !ruledOut(0) {
		fail("votes %v as a fallback in view %d though a block that it never heard of is not ruled out: %d first votes", v.Kind, v.View, seen)
	}
	if v.Kind == bft.Notarize && counts[v.Block] < m.q-(m.f-proven)-m.p {
		fail("notarizes a block as a fallback in view %d with %d of %d first votes", v.View, counts[v.Block], seen)
	}
	return why
}

// judgeProposal asks whether a leader may build where it wants to.
func (m *Monitor) judgeProposal(e *bft.Propose) {
	h := &e.Header
	if m.cfg.LeaderOf(h.View) != m.cfg.Self {
		m.fail("proposes in view %d, which replica %d leads", h.View, m.cfg.LeaderOf(h.View))
	}
	parent := m.blocks[h.Parent]
	mine := parent != nil && parent.header.Proposer == m.cfg.Self && parent.header.View+1 == h.View
	if !mine && !m.notarized(h.ParentView, h.Parent) {
		m.fail("proposes in view %d on a block that is not notarized", h.View)
	}
	k := &known{header: *h, empty: e.Empty}
	k.header.Time = e.MinTime
	m.judgeChain(k, "proposes")
	m.judgeState(k, "proposes")
	m.judgeAge(h, parent)
	if longest := m.strained(m.cfg.Timeouts.Idle); e.MayIdle > longest {
		m.fail("waits for operations for %v in view %d: %v at most", e.MayIdle, h.View, longest)
	}
	if h.View != m.view && h.View != m.view+1 {
		m.fail("proposes in view %d, and is in view %d", h.View, m.view)
	}
}

// judgeAge asks whether a leader certifies the newest state that it has, where all can be expected
// to have it: no view was nullified lately, and no f + 1 replicas lack finality.
func (m *Monitor) judgeAge(h *bft.Header, parent *known) {
	height, certified, ends := m.cfg.Base.Height, m.cfg.Base.Height, false
	if parent != nil {
		height, certified, ends = parent.header.Height, parent.header.StateHeight, parent.header.EpochEnd
	} else if h.ParentView != 0 {
		return
	}
	newest := min(m.newest, height)
	if m.p <= m.cfg.Size.C && m.view > max(m.trouble, m.careful) && !ends && newest > certified && h.StateHeight < newest {
		m.fail("proposes in view %d with the state of height %d, and has executed height %d", h.View, h.StateHeight, newest)
	}
}

// judgeFinal asks whether a block is final, and the next one.
func (m *Monitor) judgeFinal(e bft.Finalized) {
	b := e.Block
	if m.last {
		m.fail("announces height %d after the epoch's last block", b.Height)
	}
	if b.Height != m.final+1 {
		m.fail("announces height %d as final after %d", b.Height, m.final)
	}
	if !m.isFinal(b.Digest()) {
		m.fail("announces height %d as final without the votes for it or a descendant", b.Height)
	}
	if e.Last != b.EpochEnd {
		m.fail("announces height %d as the epoch's last: %v, and its header says %v", b.Height, e.Last, b.EpochEnd)
	}
	if b.View <= m.finalView {
		m.fail("announces a block of view %d after one of view %d", b.View, m.finalView)
	}
	m.final, m.last, m.finalView = b.Height, e.Last, b.View
	m.succeeded(b.View)
	if m.view <= b.View {
		m.enter(b.View + 1)
	}
	for m.passedFor[m.view] {
		m.enter(m.view + 1)
	}
	m.forget()
}

// kept is how many blocks below the final one, and how many views below its view, a monitor remembers.
const kept = 256

// forget drops what no vote can be about any more, now and then.
func (m *Monitor) forget() {
	if m.final%kept != 0 {
		return
	}
	var oldest bft.View
	for digest, k := range m.blocks {
		if k.header.Height+kept < m.final {
			oldest = max(oldest, k.header.View)
			delete(m.blocks, digest)
		}
	}
	maps.DeleteFunc(m.firsts, func(v bft.View, _ map[bft.ReplicaID]bft.Statement) bool { return v < oldest })
	maps.DeleteFunc(m.notarizedAt, func(v bft.View, _ int64) bool { return v < oldest })
	maps.DeleteFunc(m.passedFor, func(v bft.View, _ bool) bool { return v < oldest })
	maps.DeleteFunc(m.claims, func(s bft.Statement, _ *claim) bool { return s.View < oldest })
	maps.DeleteFunc(m.lacks, func(s bft.Statement, _ map[bft.ReplicaID]bool) bool { return s.View < oldest })
}
