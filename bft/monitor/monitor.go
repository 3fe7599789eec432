package monitor

import (
	"fmt"

	"github.com/reseal-bft/reseal/bft"
)

// Monitor watches the core of one replica through one epoch of one life. Not safe for concurrent use.
type Monitor struct {
	cfg     bft.Config
	n, f, q int
	p       int
	report  func(string)

	blocks   map[bft.Digest]*known
	certs    map[bft.Statement]bool // verified or combined by this replica
	firsts   map[bft.View]map[bft.ReplicaID]bft.Statement
	headers  map[bft.View]map[bft.Digest]bool // signed by the view's leader
	own      map[bft.View][]bft.Vote
	signed   map[bft.Statement]bool // own votes that the key has signed
	due      map[bft.View]int64     // by view, when its time is up, on the monotonic clock
	passed   map[bft.View]bool      // views that this replica has voted to nullify, or knows to be
	executed map[bft.Height]bft.Executed
	final    bft.Height // last announced
	last     bool       // the epoch's last block was announced
	now      bft.Now
	offset   int64 // the most that the wall clock ever stood above the monotonic one
	begun    bool
	fired    bool // the present event is the expiry of a view's timer, which may have been set for an earlier view
}

// known is a block that the replica holds.
type known struct {
	header bft.Header
	empty  bool
	stored bool
}

// New makes the monitor of a core that starts from what was on disk. It calls report with a sentence for everything that is not justified.
func New(cfg bft.Config, restored bft.Restored, report func(string)) *Monitor {
	f, c := cfg.Size.F, cfg.Size.C
	m := &Monitor{
		cfg: cfg, f: f, n: 3*f + 2*c + 1, q: 2*f + c + 1, p: absent(c), report: report,
		blocks: map[bft.Digest]*known{}, certs: map[bft.Statement]bool{}, firsts: map[bft.View]map[bft.ReplicaID]bft.Statement{},
		headers: map[bft.View]map[bft.Digest]bool{}, own: map[bft.View][]bft.Vote{}, signed: map[bft.Statement]bool{},
		due: map[bft.View]int64{}, passed: map[bft.View]bool{}, executed: map[bft.Height]bft.Executed{},
		final: max(cfg.Base.Height, restored.Final.Height),
	}
	m.executed[cfg.Base.Height] = bft.Executed{Height: cfg.Base.Height, Root: cfg.Base.Root}
	for _, e := range restored.Executed {
		if e.Height != cfg.Base.Height {
			m.executed[e.Height] = e
		}
	}
	for _, b := range restored.Blocks {
		m.learn(b, true)
	}
	for _, c := range restored.Certificates {
		m.certify(c.Statement)
	}
	for _, v := range restored.Votes {
		m.cast(v)
		m.signed[v.Statement] = true
	}
	return m
}

func (m *Monitor) fail(format string, args ...any) { m.report(fmt.Sprintf(format, args...)) }

// Observe is shown an event before the core is.
func (m *Monitor) Observe(now bft.Now, event bft.Event) {
	m.fired = false
	m.read(now)
	switch e := event.(type) {
	case bft.Expired:
		m.fired = e.Timer.Kind == bft.TimerView
	case bft.Receive:
		m.receive(e.From, e.Message)
	case bft.Signed:
		if e.Vote.Partial != nil && e.Err == nil {
			m.signed[e.Vote.Statement] = true
		}
	case bft.Combined:
		if e.Signature != nil {
			m.certify(e.Statement)
		}
	case bft.Verified:
		if e.OK {
			m.certify(e.Certificate.Statement)
		}
	case bft.Proposed:
		m.learn(e.Block, false)
	case bft.Fetched:
		for _, b := range e.Blocks {
			m.learn(b, false)
		}
	case bft.Executed:
		m.executed[e.Height] = e
	}
}

func (m *Monitor) receive(from bft.ReplicaID, message bft.Message) {
	switch x := message.(type) {
	case *bft.Block:
		m.learn(x, false)
	case bft.SignedHeader:
		m.header(&x.Header)
	case bft.Evidence:
		m.header(&x.A.Header)
		m.header(&x.B.Header)
	case bft.Vote:
		if x.First && from != m.cfg.Self && x.Epoch == m.cfg.Epoch {
			m.first(from, x.Statement)
		}
	}
}

// first counts a first vote: of each sender in a view the first that arrived.
func (m *Monitor) first(from bft.ReplicaID, s bft.Statement) {
	if m.firsts[s.View] == nil {
		m.firsts[s.View] = map[bft.ReplicaID]bft.Statement{}
	}
	if _, have := m.firsts[s.View][from]; !have {
		m.firsts[s.View][from] = s
	}
}

func (m *Monitor) header(h *bft.Header) {
	if m.headers[h.View] == nil {
		m.headers[h.View] = map[bft.Digest]bool{}
	}
	m.headers[h.View][h.Digest()] = true
}

func (m *Monitor) learn(b *bft.Block, stored bool) {
	digest := b.Digest()
	k := m.blocks[digest]
	if k == nil {
		k = &known{header: b.Header, empty: b.Header.Payload == bft.PayloadDigest(nil)}
		m.blocks[digest] = k
		m.header(&b.Header)
	}
	k.stored = k.stored || stored
}

func (m *Monitor) certify(s bft.Statement) {
	m.certs[s] = true
	if s.Kind == bft.Nullify {
		m.passed[s.View] = true
	}
}

func (m *Monitor) cast(v bft.Vote) {
	for _, before := range m.own[v.View] {
		if before.Statement == v.Statement && before.First == v.First {
			return
		}
	}
	m.own[v.View] = append(m.own[v.View], v)
	if v.First {
		m.first(m.cfg.Self, v.Statement)
	}
	if v.Kind == bft.Nullify {
		m.passed[v.View] = true
	}
}

// read takes a reading of the clocks.
func (m *Monitor) read(now bft.Now) {
	m.now = now
	if offset := now.Wall - now.Mono; !m.begun || offset > m.offset {
		m.begun, m.offset = true, offset
	}
}

// Judge is shown the effects of a step, or of the start, in their order.
func (m *Monitor) Judge(now bft.Now, effects []bft.Effect) {
	m.read(now)
	for _, effect := range effects {
		switch e := effect.(type) {
		case bft.Sign:
			m.judgeVote(e.Vote)
			m.cast(e.Vote)
		case bft.Broadcast:
			m.judgeMessage(e.Message)
		case bft.Send:
			m.judgeMessage(e.Message)
		case bft.StoreBlock:
			if m.blocks[e.Block.Digest()] == nil {
				m.fail("stores a block of view %d that it was never shown", e.Block.View)
			}
			m.learn(e.Block, true)
		case bft.StoreCertificate:
			if !m.certs[e.Certificate.Statement] {
				m.fail("stores a certificate of view %d that it neither verified nor combined", e.Certificate.View)
			}
		case bft.SetTimer:
			if e.Timer.Kind == bft.TimerView {
				m.due[e.Timer.View] = now.Mono + e.After.Milliseconds()
			}
		case bft.Propose:
			m.judgeProposal(&e)
		case bft.Finalized:
			m.judgeFinal(e)
		case bft.Accuse:
			if len(m.headers[e.Evidence.A.View]) < 2 {
				m.fail("accuses replica %d of two blocks for view %d, and has seen one at most", e.Replica, e.Evidence.A.View)
			}
		}
	}
}

func (m *Monitor) judgeMessage(message bft.Message) {
	switch x := message.(type) {
	case bft.Vote:
		if !m.signed[x.Statement] {
			m.fail("sends a vote in view %d that it has not signed", x.View)
		}
	case bft.Certificate:
		if !m.certs[x.Statement] {
			m.fail("sends a certificate of view %d that it neither verified nor combined", x.View)
		}
	case *bft.Block:
		k := m.blocks[x.Digest()]
		switch {
		case k == nil:
			m.fail("sends a block of view %d that it was never shown", x.View)
		case x.Proposer == m.cfg.Self && !k.stored:
			m.fail("sends its own block of view %d before it is stored", x.View)
		}
	case bft.SignedHeader:
		if !m.headers[x.View][x.Header.Digest()] {
			m.fail("sends a header of view %d that it was never shown", x.View)
		}
	case bft.Evidence:
		if x.A.View != x.B.View || x.A.Digest() == x.B.Digest() || !m.headers[x.A.View][x.A.Digest()] || !m.headers[x.A.View][x.B.Digest()] {
			m.fail("sends evidence about view %d that it does not have", x.A.View)
		}
	case bft.Status:
		if x.Epoch != m.cfg.Epoch || x.FinalHeight < m.cfg.Base.Height {
			m.fail("sends a status of epoch %d, height %d", x.Epoch, x.FinalHeight)
		}
	}
}
