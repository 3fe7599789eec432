package bft

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// choice is what the Byzantine leader does to one correct replica.
type choice struct{ block, vote int } // block: 0 none, 1, 2; vote: 0 none, 1, 2 for a block, 3 nullify

// input is an event of a local state: a message, or a timer.
type input struct {
	from    ReplicaID
	message int // index into model.messages, -1 for a timer
	timer   TimerKind
}

// local is one state of one core.
type local struct {
	path []input
	next map[input]transition
	core *watched
	own  []Vote
	// signed has a bit for each of model.statements, first one for each block that was first-voted.
	signed, first uint8
	left          bool
	// asks and holds have a bit for each block that was asked for, and that is held and stored.
	asks, holds uint8
}

// transition is where an input leads and what is sent on the way, by receiver (0: all).
type transition struct {
	to   int
	sent []posted
}

type posted struct {
	to      ReplicaID
	message int
}

// model is the system for one size.
type model struct {
	t        *testing.T
	size     Size
	correct  []ReplicaID
	messages []Message
	index    map[string]int
	locals   map[ReplicaID][]*local
	known    map[ReplicaID]map[string]int
	blocks   [3]*Block
	// statements are all that can be said of the view: notarize 1, 2, nullify, finalize 1, 2.
	statements   [5]Statement
	certificates [5]int // their certificates, as messages
	states       int
	made         map[Digest]*Block // the correct leader's blocks
	limit        int               // of different messages
	judge        newJudge          // stands beside every core; nil for none
	// unjustified is the first thing that a core did without a reason.
	unjustified error
}

func newModel(t *testing.T, size Size, correct int) *model {
	require.NotNil(t, Judge)
	m := &model{t: t, size: size, index: make(map[string]int), locals: make(map[ReplicaID][]*local), known: make(map[ReplicaID]map[string]int), made: make(map[Digest]*Block), limit: 64, judge: Judge}
	for i := range correct {
		m.correct = append(m.correct, ReplicaID(i+2))
	}
	for i := 1; i <= 2; i++ {
		m.blocks[i] = &Block{Header: Header{View: 1, Height: 1, Proposer: 1, Time: int64(i), Payload: emptyPayload}, Signature: make([]byte, SignatureSize)}
	}
	one, two := m.blocks[1].Digest(), m.blocks[2].Digest()
	m.statements = [5]Statement{
		{View: 1, Kind: Notarize, Block: one}, {View: 1, Kind: Notarize, Block: two}, {View: 1, Kind: Nullify},
		{View: 1, Kind: Finalize, Block: one}, {View: 1, Kind: Finalize, Block: two},
	}
	for i, s := range m.statements {
		m.certificates[i] = m.message(Certificate{s, []byte("certificate")})
	}
	for _, id := range m.correct {
		m.known[id] = make(map[string]int)
		m.intern(id, nil)
	}
	return m
}

// replay makes a new core and feeds it a path.
func (m *model) replay(id ReplicaID, path []input) (*watched, []posted) {
	cfg := Config{Size: m.size, Self: id, Leaders: []ReplicaID{1, 2, 3}, Window: 1, Voter: true, Timeouts: labTimeouts}
	made, err := New(cfg, Restored{})
	require.NoError(m.t, err)
	made.cfg.Timeouts = Timeouts{Ahead: time.Second} // time stands still, and timers expire when the check says so
	core := m.watch(made)
	m.carryOut(core, core.Start(Now{1, 1}))
	var sent []posted
	for _, in := range path {
		sent = m.feed(core, in)
	}
	return core, sent
}

func (m *model) feed(core *watched, in input) []posted {
	if in.message < 0 {
		return m.carryOut(core, core.Step(Now{1, 1}, Expired{Timer{core.View(), in.timer}}))
	}
	return m.carryOut(core, core.Step(Now{1, 1}, Receive{in.from, m.messages[in.message]}))
}

// carryOut answers effects at once: keys sign, certificates combine and verify.
func (m *model) carryOut(core *watched, effects []Effect) (sent []posted) {
	queue := append([]Effect(nil), effects...)
	for len(queue) > 0 {
		e := queue[0]
		queue = queue[1:]
		var answer Event
		switch e := e.(type) {
		case Sign:
			v := e.Vote
			v.Partial = []byte{byte(core.cfg.Self)}
			answer = Signed{Vote: v}
		case Combine:
			answer = Combined{Statement: e.Statement, Signature: []byte("certificate")}
		case Verify:
			answer = Verified{Certificate: e.Certificate, From: e.From, OK: true}
		case Propose:
			answer = m.propose(e)
		case Broadcast:
			sent = append(sent, posted{0, m.message(e.Message)})
		case Send:
			sent = append(sent, posted{e.To, m.message(e.Message)})
		}
		if answer != nil {
			queue = append(queue, core.Step(Now{1, 1}, answer)...)
		}
	}
	return sent
}

// propose makes the block that a correct leader is asked for, in the check of two views only.
func (m *model) propose(p Propose) Event {
	if m.limit <= 64 || p.Header.View > 2 {
		return nil
	}
	b := &Block{Header: p.Header, Signature: make([]byte, SignatureSize)}
	b.Header.Payload, b.Time = emptyPayload, p.MinTime
	m.made[b.Digest()] = b
	return Proposed{Block: b}
}

func (m *model) message(msg Message) int {
	key := string(MarshalMessage(msg))
	if i, ok := m.index[key]; ok {
		return i
	}
	m.index[key] = len(m.messages)
	m.messages = append(m.messages, msg)
	require.LessOrEqual(m.t, len(m.messages), m.limit)
	return len(m.messages) - 1
}

// intern returns the local state at the end of a path.
func (m *model) intern(id ReplicaID, path []input) (int, []posted) {
	core, sent := m.replay(id, path)
	key := fingerprint(core.Core)
	if i, ok := m.known[id][key]; ok {
		return i, sent
	}
	l := &local{path: path, next: make(map[input]transition), core: core}
	l.left = core.View() > 1
	for b := 1; b <= 2; b++ {
		if core.sought(m.blocks[b].Digest()) != nil {
			l.asks |= 1 << b
		}
		if core.holds(m.blocks[b].Digest()) {
			l.holds |= 1 << b
		}
	}
	if r := core.at(1); r != nil {
		l.own = r.own
		for _, v := range r.own {
			bit := uint8(1) << slices.Index(m.statements[:], v.Statement)
			l.signed |= bit
			if v.First {
				l.first |= bit
			}
		}
	}
	m.known[id][key] = len(m.locals[id])
	m.locals[id] = append(m.locals[id], l)
	return len(m.locals[id]) - 1, sent
}

func (m *model) step(id ReplicaID, at int, in input) transition {
	l := m.locals[id][at]
	if tr, ok := l.next[in]; ok {
		return tr
	}
	to, sent := m.intern(id, append(l.path[:len(l.path):len(l.path)], in))
	tr := transition{to, sent}
	l.next[in] = tr
	return tr
}

// global is a state of the system. pending has, for each correct replica, the messages under way to
// it. A vote's partial signature names its sender; other messages say the same whoever sends them.
type global struct {
	at      [5]int32
	pending [5]uint64
	seen    [5]uint64 // certificates that were delivered
	timers  [5]uint8  // expired: bit 0 view, bit 1 finalize
}

// shown are the messages of the Byzantine leader to a replica.
func (m *model) shown(c choice) (messages []int) {
	if c.block > 0 {
		messages = append(messages, m.message(m.blocks[c.block]))
	}
	if c.vote > 0 {
		s := Statement{View: 1, Kind: Nullify}
		if c.vote < 3 {
			s.Kind, s.Block = Notarize, m.blocks[c.vote].Digest()
		}
		messages = append(messages, m.message(Vote{s, true, []byte{1}}))
	}
	return messages
}

// hash is a 64-bit name of the state (the mixing step of splitmix64).
func (g *global) hash() uint64 {
	h := uint64(0)
	mix := func(x uint64) {
		h ^= x + 0x9e3779b97f4a7c15
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		h ^= h >> 31
	}
	for i := range g.at {
		mix(uint64(g.at[i])<<8 | uint64(g.timers[i]))
		mix(g.pending[i])
		mix(g.seen[i])
	}
	return h
}

// explore visits every state that the leader's choices allow, and checks each: it is safe, and,
// when nothing more is to happen, the view is resolved.
func (m *model) explore(choices []choice) error {
	start := global{}
	for i, c := range choices {
		for _, msg := range m.shown(c) {
			start.pending[i] |= 1 << msg
		}
	}
	visited := map[uint64]bool{start.hash(): true} // by hash: a collision in 10^8 states has probability 10^-3
	stack := []global{start}
	for len(stack) > 0 {
		g := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		successors := m.successors(g)
		err := errors.Join(m.unjustified, m.safe(g))
		if err == nil && len(successors) == 0 {
			err = m.resolved(g)
		}
		if err != nil {
			return err
		}
		for _, next := range successors {
			if key := next.hash(); !visited[key] {
				visited[key] = true
				stack = append(stack, next)
			}
		}
	}
	m.states += len(visited)
	return nil
}

// successors are the states one event away. It is empty when all was delivered and every timer has
// expired.
func (m *model) successors(g global) (next []global) {
	for i, id := range m.correct {
		for msg := range m.messages {
			if g.pending[i]&(1<<msg) != 0 {
				n := g
				n.pending[i] &^= 1 << msg
				if _, ok := m.messages[msg].(Certificate); ok {
					n.seen[i] |= 1 << msg
				}
				next = append(next, m.hurry(m.deliver(n, i, input{from: m.sender(msg, id), message: msg})))
			}
		}
		core := m.locals[id][g.at[i]].core
		if g.timers[i]&1 == 0 && core.view == 1 {
			n := g
			n.timers[i] |= 1
			next = append(next, m.hurry(m.deliver(n, i, input{message: -1, timer: TimerView})))
		}
		if g.timers[i]&2 == 0 && core.clock.deadline[TimerFinalize] != 0 {
			n := g
			n.timers[i] |= 2
			next = append(next, m.hurry(m.deliver(n, i, input{message: -1, timer: TimerFinalize})))
		}
	}
	return next
}

// hurry does at once what can only add to what the others see or what is signed: replicas that have
// left the view take in notarizations, and, when they have voted in the view, cast their finalize
// votes.
func (m *model) hurry(g global) global {
	for i, id := range m.correct {
		l := m.locals[id][g.at[i]]
		if !l.left {
			continue
		}
		for _, c := range m.certificates[:2] {
			if g.pending[i]&(1<<c) != 0 {
				g.pending[i] &^= 1 << c
				g.seen[i] |= 1 << c
				return m.hurry(m.deliver(g, i, input{from: m.sender(c, id), message: c}))
			}
		}
		if len(l.own) > 0 && g.timers[i]&2 == 0 && l.core.clock.deadline[TimerFinalize] != 0 {
			g.timers[i] |= 2
			return m.hurry(m.deliver(g, i, input{message: -1, timer: TimerFinalize}))
		}
	}
	return g
}

// sender names the sender of a message; anybody but the receiver for what is not a vote.
func (m *model) sender(msg int, receiver ReplicaID) ReplicaID {
	if v, ok := m.messages[msg].(Vote); ok {
		return ReplicaID(v.Partial[0])
	}
	if receiver == 2 {
		return 3
	}
	return 2
}

// deliver applies an input to replica i and puts on the wire what it sends, and the certificates
// that the Byzantine replica can now complete.
func (m *model) deliver(g global, i int, in input) global {
	id := m.correct[i]
	tr := m.step(id, int(g.at[i]), in)
	left := !m.locals[id][g.at[i]].left && m.locals[id][tr.to].left
	g.at[i] = int32(tr.to)
	for _, p := range tr.sent {
		for j, to := range m.correct {
			if j != i && (p.to == 0 || p.to == to) {
				m.post(&g, j, p.message)
			}
		}
	}
	m.fetch(&g)
	for s, n := range m.count(g, func(l *local) uint8 { return l.signed }) {
		if n+m.size.F >= 2*m.size.F+m.size.C+1 {
			for j := range m.correct {
				m.post(&g, j, m.certificates[s])
			}
		}
	}
	if left { // what is under way meets a replica that has left the view
		waiting := g.pending[i]
		g.pending[i] = 0
		for msg := range m.messages {
			if waiting&(1<<msg) != 0 {
				m.post(&g, i, msg)
			}
		}
	}
	return g
}

// holds reports whether a core has stored a block.
func (c *Core) holds(block Digest) bool {
	n := c.tree[block]
	return n != nil && n.stored
}

// fetch puts every block under way that a replica has asked for and another one has stored.
func (m *model) fetch(g *global) {
	for i, id := range m.correct {
		for b := 1; b <= 2; b++ {
			if m.locals[id][g.at[i]].asks>>b&1 == 0 {
				continue
			}
			for j, peer := range m.correct {
				if j != i && m.locals[peer][g.at[j]].holds>>b&1 != 0 {
					g.pending[i] |= 1 << m.message(m.blocks[b])
				}
			}
		}
	}
}

// post puts a message under way to replica j, unless it can change nothing: finalize votes only do
// what the timer does, and to a replica that has left the view only blocks and notarizations
// matter. What such a replica answers to a vote for another block, it answers at once: an answer
// that comes early may still be delivered late.
func (m *model) post(g *global, j, msg int) {
	l := m.locals[m.correct[j]][g.at[j]]
	core, left := l.core, l.left
	switch x := m.messages[msg].(type) {
	case Vote:
		if x.Kind == Finalize {
			return
		}
		if left {
			if r := core.at(1); x.First && x.Kind == Notarize && r != nil && r.heard && !r.convicted && r.digest != x.Block && x.Partial[0] > 1 {
				m.post(g, int(x.Partial[0])-2, m.message(r.header))
			}
			return
		}
	case Certificate:
		if x.Kind == Finalize || left && x.Kind == Nullify || g.seen[j]&(1<<msg) != 0 {
			return
		}
	case SignedHeader, Evidence:
		if left {
			return
		}
	}
	g.pending[j] |= 1 << msg
}

// count counts, for each statement, the correct replicas whose local state has its bit.
func (m *model) count(g global, bits func(*local) uint8) (n [5]int) {
	for i, id := range m.correct {
		mask := bits(m.locals[id][g.at[i]])
		for s := range n {
			n[s] += int(mask >> s & 1)
		}
	}
	return n
}

// safe checks a state, in plain integers: if a block can be final, nothing that contradicts it can
// have a certificate.
func (m *model) safe(g global) error {
	f, c := m.size.F, m.size.C
	q, n, p := 2*f+c+1, 3*f+2*c+1, c/2+1
	signed := m.count(g, func(l *local) uint8 { return l.signed })
	first := m.count(g, func(l *local) uint8 { return l.first })
	for b := range 2 {
		fast := first[b]+f >= n-p
		slow := signed[3+b]+f >= q
		if !fast && !slow {
			continue
		}
		for _, s := range []int{1 - b, 2, 4 - b} {
			if signed[s]+f >= q {
				return fmt.Errorf("block %d can be final (fast %t, slow %t), and %v can have a certificate", b+1, fast, slow, m.statements[s])
			}
		}
	}
	return nil
}

// resolved checks a state in which nothing more will happen: every correct replica has left the view.
func (m *model) resolved(g global) error {
	for i, id := range m.correct {
		l := m.locals[id][g.at[i]]
		if !l.left {
			return fmt.Errorf("replica %d is stuck, its votes are %v", id, l.own)
		}
	}
	return nil
}

// fingerprint is what a core's future in this check depends on: the order in which votes came is
// forgotten, and once it has left the view, so are the votes.
func fingerprint(c *Core) string {
	r := c.at(1)
	if r == nil {
		return "nothing"
	}
	b := fmt.Appendf(nil, "%d %d %t %d %v %t %v %v|", min(c.view, 2), c.finalView, c.slow, c.clock.deadline[TimerFinalize], r.heard, r.convicted, r.digest, r.own)
	for _, n := range r.nodes {
		b = fmt.Appendf(b, "%v %t %t %t|", n.digest, n.linked, n.notarized, n.stored)
	}
	for _, m := range c.missing {
		b = fmt.Appendf(b, "%v %t|", m.block, m.proven)
	}
	var tallies []string
	for i := range r.tallies {
		tallies = append(tallies, describeTally(c, r, i))
	}
	slices.Sort(tallies)
	return string(b) + strings.Join(tallies, "|")
}

func describeTally(c *Core, r *round, i int) string {
	t := &r.tallies[i]
	b := fmt.Appendf(nil, "%v %t", t.Statement, t.certificate != nil)
	if c.view > 1 {
		return string(b)
	}
	for id := range t.partials {
		b = fmt.Appendf(b, " %t %t", t.partials[id] != nil, int(r.first[id]) == i+1)
	}
	return string(b)
}
