package monitor

import (
	"fmt"
	"math"

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

	// The present event: what came from whom, whether all is said again, and the certificate that
	// is news, with the view before it.
	message    bft.Message
	from       bft.ReplicaID
	again      bool
	news       *bft.Statement
	viewBefore bft.View

	view, finalView, highest bft.View // the current one; the last final block's; the highest notarized one
	passedFor                map[bft.View]bool
	notarizedAt              map[bft.View]int64
	enteredAt                int64
	newest                   bft.Height // executed
	failures                 int        // leaders that failed in a row
	failedIn                 bft.View
	suspect, lost            map[bft.ReplicaID]bool
	trouble, careful         bft.View
	slowThrough              bft.View // up to this view finalize votes are cast at once
	diverged                 bool

	peers  []peer
	claims map[bft.Statement]*claim
	lacks  map[bft.Statement]map[bft.ReplicaID]bool // who sent a finalize vote
	named  map[bft.Digest]bool                      // blocks that somebody voted for, certified or built on
	mine   map[bft.View]bft.Digest                  // own blocks that were sent
}

// known is a block that the replica holds.
type known struct {
	header bft.Header
	empty  bool
	stored bool
}

// New makes the monitor of a core that starts from what was on disk. It calls report with a
// sentence for everything that is not justified.
func New(cfg bft.Config, restored bft.Restored, report func(string)) *Monitor {
	f, c := cfg.Size.F, cfg.Size.C
	m := &Monitor{
		cfg: cfg, f: f, n: 3*f + 2*c + 1, q: 2*f + c + 1, p: absent(c), report: report,
		blocks: map[bft.Digest]*known{}, certs: map[bft.Statement]bool{}, firsts: map[bft.View]map[bft.ReplicaID]bft.Statement{},
		headers: map[bft.View]map[bft.Digest]bool{}, own: map[bft.View][]bft.Vote{}, signed: map[bft.Statement]bool{},
		due: map[bft.View]int64{}, passed: map[bft.View]bool{}, executed: map[bft.Height]bft.Executed{},
		final: max(cfg.Base.Height, restored.Final.Height), finalView: restored.FinalView, view: restored.FinalView + 1,
		passedFor: map[bft.View]bool{}, notarizedAt: map[bft.View]int64{}, suspect: map[bft.ReplicaID]bool{}, lost: map[bft.ReplicaID]bool{}, newest: cfg.Base.Height,
		peers: make([]peer, 3*f+2*c+2), claims: map[bft.Statement]*claim{}, lacks: map[bft.Statement]map[bft.ReplicaID]bool{},
		named: map[bft.Digest]bool{}, mine: map[bft.View]bft.Digest{},
	}
	m.executed[cfg.Base.Height] = bft.Executed{Height: cfg.Base.Height, Root: cfg.Base.Root}
	for _, e := range restored.Executed {
		if e.Height != cfg.Base.Height {
			m.executed[e.Height] = e
			m.newest = max(m.newest, e.Height)
		}
	}
	for _, b := range restored.Blocks {
		m.learn(b, true)
		if b.Proposer == cfg.Self {
			m.mine[b.View] = b.Digest()
		}
	}
	for _, c := range restored.Certificates {
		m.certify(c.Statement)
	}
	for _, v := range restored.Votes {
		m.cast(v)
		m.signed[v.Statement] = true
		m.heardVote(cfg.Self, v)
	}
	m.failures, m.failedIn, m.trouble, m.news = 0, 0, 0, nil // what was before the restart is no failure now
	clear(m.suspect)
	return m
}

func (m *Monitor) fail(format string, args ...any) { m.report(fmt.Sprintf(format, args...)) }

// Observe is shown an event before the core is; nil is the core's start.
func (m *Monitor) Observe(now bft.Now, event bft.Event) {
	m.fired, m.again, m.message, m.from, m.news = false, event == nil, nil, 0, nil
	m.read(now)
	switch e := event.(type) {
	case bft.Expired:
		m.fired, m.again = e.Timer.Kind == bft.TimerView, e.Timer.Kind == bft.TimerResend
		if e.Timer.Kind == bft.TimerFinalize {
			m.slowThrough = math.MaxUint64
		}
	case bft.Receive:
		m.message, m.from = e.Message, e.From
		m.receive(e.From, e.Message)
	case bft.Signed:
		if e.Vote.Partial != nil && e.Err == nil {
			m.signed[e.Vote.Statement] = true
			m.heardVote(m.cfg.Self, e.Vote)
		}
	case bft.Combined:
		m.combined(e)
		if e.Signature != nil {
			m.certify(e.Statement)
		}
	case bft.Verified:
		m.verified(e)
		if e.OK {
			m.certify(e.Certificate.Statement)
		}
	case bft.Proposed:
		m.learn(e.Block, false)
	case bft.Fetched:
		for _, b := range e.Blocks {
			m.learn(b, false)
		}
	case bft.Lost:
		m.suspect[e.Replica], m.lost[e.Replica] = true, true
	case bft.Executed:
		m.executed[e.Height] = e
		m.newest = max(m.newest, e.Height)
	}
}

func (m *Monitor) receive(from bft.ReplicaID, message bft.Message) {
	if bft.EpochOf(message) != m.cfg.Epoch || from < 1 || int(from) >= len(m.peers) || from == m.cfg.Self {
		return
	}
	m.suspect[from], m.lost[from] = false, false // any sign of life
	switch x := message.(type) {
	case bft.Status:
		m.peers[from].asked = m.peers[from].asked || x.WantFinality
	case bft.Certificate:
		m.named[x.Block] = true
	case *bft.Block:
		m.learn(x, false)
	case bft.SignedHeader:
		m.header(&x.Header)
	case bft.Evidence:
		m.header(&x.A.Header)
		m.header(&x.B.Header)
	case bft.Vote:
		m.heardVote(from, x)
		if x.First && x.View <= m.view+votesAhead {
			m.first(from, x.Statement)
		}
		if x.Kind == bft.Finalize {
			m.lacking(from, x.Statement)
		}
	}
}

// votesAhead is how far above its own view a replica counts votes. What is further ahead is as if it
// was not said: its sender's first vote there is the next one.
const votesAhead = 64

// lacking takes note that a peer lacks the finality of a block. When f + 1 do, leaders are careful.
func (m *Monitor) lacking(from bft.ReplicaID, s bft.Statement) {
	if m.lacks[s] == nil {
		m.lacks[s] = map[bft.ReplicaID]bool{}
	}
	m.lacks[s][from] = true
	if len(m.lacks[s]) > m.f {
		m.careful = max(m.careful, s.View+bft.View(m.cfg.Window))
	}
}

// first counts a first vote: of each sender in a view the first that arrived.
func (m *Monitor) first(from bft.ReplicaID, s bft.Statement) {
	if m.firsts[s.View] == nil {
		m.firsts[s.View] = map[bft.ReplicaID]bft.Statement{}
	}
	if _, have := m.firsts[s.View][from]; !have {
		m.firsts[s.View][from] = s
		if s.Kind == bft.Notarize && m.supporters(s.View, s.Block) == m.n-m.cfg.Size.C && m.slowThrough > m.view+2 && s.View+8 >= m.view {
			m.slowThrough = m.view + 2 // the fast path is back
		}
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
		m.named[b.Parent] = true
	}
	k.stored = k.stored || stored
}

func (m *Monitor) certify(s bft.Statement) {
	if m.certs[s] || s.Epoch != m.cfg.Epoch {
		return
	}
	m.certs[s], m.named[s.Block] = true, true
	if s.View > m.finalView && !m.last {
		m.news, m.viewBefore = &s, m.view
	}
	switch s.Kind {
	case bft.Notarize:
		m.passedFor[s.View] = true
		m.highest = max(m.highest, s.View)
		if _, known := m.notarizedAt[s.View]; !known {
			m.notarizedAt[s.View] = m.now.Mono
		}
		m.succeeded(s.View)
	case bft.Nullify:
		m.passed[s.View], m.passedFor[s.View] = true, true
		m.trouble = max(m.trouble, s.View+2*bft.View(m.cfg.Window))
		if s.View >= m.view {
			m.failed(s.View)
		}
	default:
		return
	}
	if s.View >= m.view {
		m.enter(s.View + 1)
	}
}

func (m *Monitor) enter(v bft.View) { m.view, m.enteredAt = v, m.now.Mono }

// failed counts a leader that failed, once in its window; succeeded forgets them all when a block
// was notarized or final after it.
func (m *Monitor) failed(v bft.View) {
	m.failedIn = max(m.failedIn, v)
	before := bft.Statement{Epoch: m.cfg.Epoch, View: v - 1, Kind: bft.Nullify}
	if (v-1)%bft.View(m.cfg.Window) == 0 || !m.certs[before] {
		m.failures++
		if leader := m.cfg.LeaderOf(v); leader != m.cfg.Self { // who leads knows that it is up
			m.suspect[leader] = true
		}
	}
}

func (m *Monitor) succeeded(v bft.View) {
	if v > m.failedIn {
		m.failures = 0
		if leader := m.cfg.LeaderOf(v); !m.lost[leader] { // its last block is no sign of life
			m.suspect[leader] = false
		}
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
	if !m.begun {
		m.enteredAt = now.Mono
	}
	if offset := now.Wall - now.Mono; !m.begun || offset > m.offset {
		m.begun, m.offset = true, offset
	}
}

// Judge is shown the effects of a step, or of the start, in their order.
func (m *Monitor) Judge(now bft.Now, effects []bft.Effect) {
	m.read(now)
	m.judgeDuties(effects)
	m.judgeAnswers(effects)
	for _, effect := range effects {
		switch e := effect.(type) {
		case bft.Sign:
			m.judgeVote(e.Vote)
			m.cast(e.Vote)
		case bft.Broadcast:
			m.judgeMessage(e.Message)
			if v, ok := e.Message.(bft.Vote); ok && v.Kind == bft.Finalize {
				m.judgeSpread(v)
			}
		case bft.Send:
			m.judgeMessage(e.Message)
			m.judgeAnswer(e.To, e.Message)
		case bft.Combine:
			m.judgeCombine(e)
		case bft.Verify:
			m.judgeVerify(e)
		case bft.Fetch:
			m.judgeFetch(e)
		case bft.Diverged:
			if own, ok := m.executed[e.Height]; !ok || own.Root == e.Certified {
				m.fail("says that its state of height %d is another than the certified one, and it is not", e.Height)
			}
			m.diverged = true
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
			m.judgeTimer(e)
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
		case x.Proposer == m.cfg.Self:
			if before, sent := m.mine[x.View]; sent && before != x.Digest() {
				m.fail("sends two blocks of its own for view %d", x.View)
			}
			m.mine[x.View] = x.Digest()
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
		m.judgeStatus(x)
	}
}
