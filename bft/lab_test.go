package bft

import (
	"container/heap"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// lab runs real cores in virtual milliseconds, on a network that a test bends as it likes. Keys,
// disks and execution answer at once, or as the test says. It is for hours and thousands of views;
// the simulator (bft/sim) is for breadth.
type lab struct {
	t      *testing.T
	size   Size
	window int
	times  Timeouts
	now    int64
	serial int64
	queue  agenda
	nodes  []*machine // 1 to n
	// pass decides on each message: what arrives in its place, nil for nothing.
	pass func(from, to ReplicaID, m Message) Message
	// serves decides whether one replica can fetch blocks from another.
	serves func(from, to ReplicaID) bool
	delay  int64
	// made counts the blocks that became final anywhere, by proposer.
	made   map[ReplicaID]int
	blocks map[Digest]*Block
	height Height
}

// machine is one replica with its disk.
type machine struct {
	l       *lab
	id      ReplicaID
	core    *Core
	down    bool
	life    int
	skew    int64 // of the wall clock
	timers  [TimerResend + 1]int
	timeAt  [TimerResend + 1]int64
	asked   int
	disk    Restored
	byName  map[Digest]*Block
	effects func(Effect) // sees what the core does; may be nil
	refuses bool         // executes nothing
	mute    bool         // proposes nothing
	patient bool         // makes nothing final
	backlog []*Block
	off     []ClockOff
}

var labTimeouts = Timeouts{
	View: time.Second, ViewMax: 16 * time.Second, Finalize: 50 * time.Millisecond, Idle: 100 * time.Millisecond, Resend: 500 * time.Millisecond, Ahead: 5 * time.Second,
}

const labStart = 1_700_000_000_000

func newLab(t *testing.T, size Size, window int) *lab {
	l := &lab{
		t: t, size: size, window: window, times: labTimeouts, delay: 2, made: make(map[ReplicaID]int), blocks: make(map[Digest]*Block),
		nodes: make([]*machine, size.N()+1),
		pass:  func(_, _ ReplicaID, m Message) Message { return m }, serves: func(_, _ ReplicaID) bool { return true },
	}
	for i := range l.nodes[1:] {
		l.nodes[i+1] = &machine{l: l, id: ReplicaID(i + 1), byName: make(map[Digest]*Block), disk: Restored{Executed: []Executed{{}}}}
	}
	return l
}

func (l *lab) start() *lab {
	for _, m := range l.nodes[1:] {
		m.start()
	}
	return l
}

// start begins a life from the disk.
func (m *machine) start() {
	var leaders []ReplicaID
	for i := range m.l.size.N() {
		leaders = append(leaders, ReplicaID(i+1))
	}
	kept := m.disk
	kept.Blocks = slices.DeleteFunc(slices.Clone(kept.Blocks), func(b *Block) bool { return b.View < kept.FinalView })
	core, err := New(Config{Size: m.l.size, Self: m.id, Leaders: leaders, Window: m.l.window, Voter: true, Timeouts: m.l.times}, kept)
	require.NoError(m.l.t, err)
	if m.patient {
		core.rules = noFinality{rules{m.l.size}}
	}
	m.life++
	m.core, m.down, m.backlog = core, false, nil
	m.act(core.Start(m.reading()))
}

// noFinality are the rules of a replica that makes nothing final, so that its blocks certify what
// all others know.
type noFinality struct{ rules }

func (r noFinality) fastQuorum() int               { return r.N() + 1 }
func (noFinality) mayFinalize([]Vote, Digest) bool { return false }

func (m *machine) stop() { m.down, m.life = true, m.life+1 }

func (m *machine) reading() Now { return Now{Mono: m.l.now, Wall: labStart + m.l.now + m.skew} }

type task struct {
	at, serial int64
	do         func()
}

type agenda []task

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].serial < a[j].serial
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(task)) }
func (a *agenda) Pop() any {
	last := len(*a) - 1
	x := (*a)[last]
	*a = (*a)[:last]
	return x
}

func (l *lab) after(ms int64, do func()) {
	l.serial++
	heap.Push(&l.queue, task{l.now + ms, l.serial, do})
}

// run lets so much time pass, or less: until done.
func (l *lab) run(d time.Duration, done func() bool) bool {
	until := l.now + d.Milliseconds()
	for len(l.queue) > 0 && l.queue[0].at <= until {
		if done() {
			return true
		}
		next := heap.Pop(&l.queue).(task)
		l.now = next.at
		next.do()
	}
	l.now = until
	return done()
}

func never() bool { return false }

func (m *machine) later(ms int64, ev Event) {
	life := m.life
	m.l.after(ms, func() {
		if m.life == life && !m.down {
			m.step(ev)
		}
	})
}

func (m *machine) step(ev Event) { m.act(m.core.Step(m.reading(), ev)) }

func (l *lab) send(from, to ReplicaID, m Message) {
	l.after(l.delay, func() {
		if l.nodes[from].down || l.nodes[to].down {
			return
		}
		if m := l.pass(from, to, m); m != nil {
			l.nodes[to].step(Receive{from, m})
		}
	})
}

func (m *machine) act(effects []Effect) {
	for _, e := range slices.Clone(effects) {
		if m.effects != nil {
			m.effects(e)
		}
		m.effect(e)
	}
}

func (m *machine) effect(e Effect) {
	l := m.l
	switch e := e.(type) {
	case Sign:
		e.Vote.Partial = []byte{byte(m.id)}
		m.disk.Votes = append(m.disk.Votes, e.Vote)
		m.later(0, Signed{Vote: e.Vote})
	case Broadcast:
		for _, to := range l.nodes[1:] {
			if to != m {
				l.send(m.id, to.id, e.Message)
			}
		}
	case Send:
		l.send(m.id, e.To, e.Message)
	case Combine:
		m.later(0, combineInLab(e, l.size))
	case Verify:
		m.later(0, Verified{e.Certificate, e.From, string(e.Certificate.Signature) == "certificate"})
	case Propose:
		m.propose(e)
	case StoreBlock:
		m.byName[e.Block.Digest()] = e.Block
		m.disk.Blocks = append(m.disk.Blocks, e.Block)
	case StoreCertificate:
		m.disk.Certificates = append(m.disk.Certificates, e.Certificate)
	case Finalized:
		m.backlog = append(m.backlog, e.Block)
		m.execute()
	case Fetch:
		m.fetch(e)
	case SetTimer:
		k := e.Timer.Kind
		m.timers[k]++
		mine, life := m.timers[k], m.life
		m.timeAt[k] = l.now + e.After.Milliseconds()
		l.after(e.After.Milliseconds(), func() {
			if m.life == life && !m.down && m.timers[k] == mine {
				m.step(Expired{e.Timer})
			}
		})
	case ClockOff:
		m.off = append(m.off, e)
	case Diverged:
		l.t.Fatalf("replica %d diverged", m.id)
	}
}

// combineInLab drops partial signatures that are not their replica's.
func combineInLab(e Combine, size Size) Combined {
	answer := Combined{Statement: e.Statement}
	good := 0
	for id := ReplicaID(1); int(id) <= size.N(); id++ {
		switch p, ok := e.Partials[id]; {
		case ok && p[0] == byte(id):
			good++
		case ok:
			answer.Bad = append(answer.Bad, id)
		}
	}
	if good >= size.Quorum() {
		answer.Signature = []byte("certificate")
	}
	return answer
}

func (m *machine) propose(p Propose) {
	if m.mute {
		return
	}
	m.asked++
	mine, life := m.asked, m.life
	m.l.after(max(1, p.MayIdle.Milliseconds()), func() {
		if m.life != life || m.down || m.asked != mine {
			return
		}
		b := &Block{Header: p.Header, Signature: make([]byte, SignatureSize)}
		b.Header.Payload, b.Time = emptyPayload, max(p.MinTime, m.reading().Wall)
		m.l.blocks[b.Digest()] = b
		m.step(Proposed{b})
	})
}

// execute executes final blocks; the root after a height is its number.
func (m *machine) execute() {
	for !m.refuses && len(m.backlog) > 0 {
		b := m.backlog[0]
		m.backlog = m.backlog[1:]
		done := Executed{Height: b.Height, Root: labRoot(b.Height)}
		if b.Height > m.l.height {
			m.l.height = b.Height
			m.l.made[b.Proposer]++
		}
		m.disk.Final, m.disk.FinalView = Base{Height: b.Height, Digest: b.Digest(), Time: b.Time, Root: done.Root}, b.View
		m.disk.Executed = append(m.disk.Executed, done)
		if drop := len(m.disk.Executed) - MaxStateLag; drop > 0 {
			m.disk.Executed = m.disk.Executed[drop:]
		}
		m.later(0, done)
	}
}

func labRoot(h Height) (d Digest) {
	if h > 0 {
		d = Digest{1, byte(h), byte(h >> 8), byte(h >> 16)}
	}
	return d
}

func (m *machine) fetch(f Fetch) {
	for _, peer := range m.l.nodes[1:] {
		if peer == m || peer.down || !m.l.serves(m.id, peer.id) {
			continue
		}
		var chain []*Block
		for b := peer.byName[f.Block]; b != nil && b.Height > f.Above && len(chain) < MaxFetch; b = peer.byName[b.Parent] {
			chain = append(chain, b)
		}
		if len(chain) > 0 {
			slices.Reverse(chain)
			m.later(2*m.l.delay, Fetched{chain})
			return
		}
	}
}

// final returns the least height that is final at some replicas.
func (l *lab) final(ids ...ReplicaID) Height {
	least := Height(1 << 60)
	for _, id := range ids {
		h, _ := l.nodes[id].core.Final()
		least = min(least, h)
	}
	return least
}

// ids counts replicas from one to another.
func ids(from, to int) (list []ReplicaID) {
	for i := from; i <= to; i++ {
		list = append(list, ReplicaID(i))
	}
	return list
}
