package monitor

import (
	"maps"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// Bounds of docs/protocol.md.
const (
	maxChecking   = 64 // certificates of a peer that are checked at a time
	maxPerClaim   = 2  // of them, for one statement
	finalizeEvery = 64
	strain        = 1024 // views without a final block after which waits double
	suspectShare  = 64
	longestWait   = 365 * 24 * time.Hour
)

// peer is what the monitor knows of another replica.
type peer struct {
	forged   bool // a partial signature or certificate of it was found to be bad
	checking int  // certificates of it that are being checked
	answered int64
	asked    bool // for finality, by a Status
}

// claim is what the monitor knows of the votes and certificates for one statement.
type claim struct {
	partials  map[partial]bool // that came on their senders' own channels before these had forged anything
	combining bool
	checking  int
}

type partial struct {
	from  bft.ReplicaID
	bytes string
}

func (m *Monitor) claim(s bft.Statement) *claim {
	c := m.claims[s]
	if c == nil {
		c = &claim{partials: map[partial]bool{}}
		m.claims[s] = c
	}
	return c
}

// heardVote takes in a vote that came on its sender's own channel, or this replica's own when it is
// signed.
func (m *Monitor) heardVote(from bft.ReplicaID, v bft.Vote) {
	m.named[v.Block] = true
	if from != m.cfg.Self && m.peers[from].forged || len(v.Partial) == 0 {
		return
	}
	m.claim(v.Statement).partials[partial{from, string(v.Partial)}] = true
}

// combined and verified take in the answers about keys.
func (m *Monitor) combined(e bft.Combined) {
	m.claim(e.Statement).combining = false
	for _, id := range e.Bad {
		if int(id) < len(m.peers) {
			m.peers[id].forged = true
			maps.DeleteFunc(m.claim(e.Statement).partials, func(p partial, _ bool) bool { return p.from == id })
		}
	}
}

func (m *Monitor) verified(e bft.Verified) {
	m.peers[e.From].checking--
	m.claim(e.Certificate.Statement).checking--
	if !e.OK {
		m.peers[e.From].forged = true
	}
}

// judgeCombine asks whether the votes were received, each on its sender's own channel, and are enough.
func (m *Monitor) judgeCombine(e bft.Combine) {
	c := m.claim(e.Statement)
	if c.combining || m.certs[e.Statement] {
		m.fail("combines votes %v for view %d that are combined already", e.Statement.Kind, e.Statement.View)
	}
	c.combining = true
	if len(e.Partials) < m.q {
		m.fail("combines %d votes in view %d, fewer than %d", len(e.Partials), e.Statement.View, m.q)
	}
	for id, bytes := range e.Partials {
		if !c.partials[partial{id, string(bytes)}] {
			m.fail("counts a vote %v of replica %d in view %d that it did not get from it, or after it had forged one", e.Statement.Kind, id, e.Statement.View)
		}
	}
}

// judgeVerify asks whether a certificate came from the peer, is news, and within the bounds on what
// is checked.
func (m *Monitor) judgeVerify(e bft.Verify) {
	s := e.Certificate.Statement
	p, c := &m.peers[e.From], m.claim(s)
	given, isCertificate := m.message.(bft.Certificate)
	switch {
	case m.from != e.From || !isCertificate || given.Statement != s:
		m.fail("checks a certificate of view %d that replica %d did not send", s.View, e.From)
	case p.forged:
		m.fail("checks a certificate of replica %d, which has forged one", e.From)
	case m.certs[s]:
		m.fail("checks a certificate of view %d that it has", s.View)
	case s.Kind != bft.Finalize && s.View <= m.finalView:
		m.fail("checks a certificate of view %d, below what is final", s.View)
	}
	p.checking++
	c.checking++
	if p.checking > maxChecking || c.checking > maxPerClaim {
		m.fail("checks %d certificates of replica %d at a time, and %d for one statement", p.checking, e.From, c.checking)
	}
}

// judgeFetch asks whether a block is wanted: somebody voted for it, certified it, or built on it,
// and it is not held.
func (m *Monitor) judgeFetch(e bft.Fetch) {
	switch {
	case !m.named[e.Block]:
		m.fail("fetches a block of view %d that nobody has named", e.View)
	case e.View <= m.finalView:
		m.fail("fetches a block of view %d, which is decided", e.View)
	case e.Above != m.final:
		m.fail("fetches blocks above height %d, and is at %d", e.Above, m.final)
	}
	for _, id := range e.Hint {
		if id == m.cfg.Self {
			m.fail("asks itself for a block of view %d", e.View)
		}
	}
}

// judgeStatus asks whether a replica says where it stands.
func (m *Monitor) judgeStatus(x bft.Status) {
	if x.Epoch != m.cfg.Epoch || x.FinalHeight != m.final {
		m.fail("sends a status of epoch %d, height %d", x.Epoch, x.FinalHeight)
	}
	if want := m.unresolved(); x.View != want {
		m.fail("asks for certificates from view %d on, and lacks those from view %d on", x.View, want)
	}
	if x.FinalView > m.finalView {
		m.fail("says that it can show finality up to view %d, and knows it up to view %d", x.FinalView, m.finalView)
	}
	open := false
	for view := range m.notarizedAt {
		open = open || view > x.FinalView
	}
	if x.WantFinality != open {
		m.fail("asks for finality: %v, and has notarized blocks that are not final: %v", x.WantFinality, open)
	}
}

// unresolved is the first view that has no certificate that ends it, above the highest notarized
// block and the last final one.
func (m *Monitor) unresolved() bft.View {
	first := max(m.finalView, m.highest) + 1
	for first < m.view && m.passedFor[first] {
		first++
	}
	return min(first, m.view)
}

// judgeAnswer asks of what is sent to one peer why it is sent to it.
func (m *Monitor) judgeAnswer(to bft.ReplicaID, message bft.Message) {
	_, answers := m.message.(bft.Status)
	switch x := message.(type) {
	case bft.Vote:
		if x.Kind == bft.Finalize && !m.asked(to, x.Statement) && !(answers && m.from == to) {
			m.fail("sends replica %d a finalize vote of view %d that it has not asked for", to, x.View)
		}
	case bft.SignedHeader:
		for _, s := range m.firsts[x.View] {
			if s.Kind == bft.Notarize && s.Block != x.Header.Digest() {
				return
			}
		}
		m.fail("sends a header of view %d, and nobody voted for another block", x.View)
	case bft.Certificate:
		if !answers || m.from != to {
			m.fail("sends replica %d a certificate of view %d that it has not asked for", to, x.View)
		}
	}
}

// asked: the peer lacks the finality of a block, or of some.
func (m *Monitor) asked(peer bft.ReplicaID, s bft.Statement) bool {
	return m.peers[peer].asked || m.lacks[s][peer]
}

// judgeAnswers bounds how often one peer's Status is answered: four times in a resend interval.
func (m *Monitor) judgeAnswers(effects []bft.Effect) {
	if _, asks := m.message.(bft.Status); !asks {
		return
	}
	answered := false
	for _, e := range effects {
		_, sends := e.(bft.Send)
		answered = answered || sends
	}
	p := &m.peers[m.from]
	if answered && p.answered != 0 && m.now.Mono-p.answered < m.cfg.Timeouts.Resend.Milliseconds()/4 {
		m.fail("answers replica %d again after %d ms", m.from, m.now.Mono-p.answered)
	}
	if answered {
		p.answered = m.now.Mono
	}
}

// judgeSpread asks why a finalize vote is given to all: the fast path did not complete in time, or
// was lost; a view was nullified lately; the view or the block calls for it; f + 1 others lack
// finality; or it is said again.
func (m *Monitor) judgeSpread(v bft.Vote) {
	if m.again || v.View%finalizeEvery == 0 || v.View <= m.trouble || v.View <= m.slowThrough || len(m.lacks[v.Statement]) > m.f {
		return
	}
	if k := m.blocks[v.Block]; k != nil && k.header.EpochEnd {
		return
	}
	if at, known := m.notarizedAt[v.View]; known && m.now.Mono-at >= m.cfg.Timeouts.Finalize.Milliseconds() {
		return
	}
	m.fail("tells all to finalize a block of view %d, and the fast path may still complete", v.View)
}

// judgeDuties asks whether what must be said was: a certificate that is new is stored, and one that
// ends the current view goes to all.
func (m *Monitor) judgeDuties(effects []bft.Effect) {
	due := m.news
	m.news = nil
	if due == nil {
		return
	}
	stored, told := false, due.View < m.viewBefore || due.Kind == bft.Finalize
	for _, e := range effects {
		switch e := e.(type) {
		case bft.StoreCertificate:
			stored = stored || e.Certificate.Statement == *due
		case bft.Broadcast:
			c, ok := e.Message.(bft.Certificate)
			told = told || ok && c.Statement == *due
		}
	}
	if !stored {
		m.fail("does not store the certificate of view %d that it has got", due.View)
	}
	if !told {
		m.fail("does not send on the certificate that ends view %d", due.View)
	}
}

// judgeTimer asks whether a view gets the time that it should: the base, doubled with every leader
// that failed since a block was last notarized.
func (m *Monitor) judgeTimer(e bft.SetTimer) {
	if e.Timer.Kind != bft.TimerView {
		return
	}
	t := m.cfg.Timeouts
	most := t.View
	for i := 0; i < m.failures && most < t.ViewMax; i++ {
		most *= 2
	}
	if most = m.strained(min(most, t.ViewMax)); e.After > most {
		m.fail("gives view %d %v after %d leaders failed in a row: %v at most", e.Timer.View, e.After, m.failures, most)
	}
}

func (m *Monitor) strained(d time.Duration) time.Duration {
	for open := m.view - m.finalView; open >= strain && d < longestWait; open -= strain {
		d *= 2
	}
	return d
}

// least is the least time that a view's leader gets.
func (m *Monitor) least(v bft.View) time.Duration {
	d := m.cfg.Timeouts.View
	if leader := m.cfg.LeaderOf(v); m.suspect[leader] {
		d /= suspectShare
	}
	return d
}
