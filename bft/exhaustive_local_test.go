package bft

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// This file and exhaustive_product_test.go check one view of a Byzantine, equivocating leader for
// all choices of the leader at once, with all n - f correct replicas, on the real core.
// TestOneViewExhaustively delivers every message in every order and is out of reach at f = c = 1;
// this check is not, because of these reductions:
//
//   - Other replicas are inputs. What a replica does depends on what it has received. Of a correct
//     replica that is its first vote, one in the view and the same to all, and its fallback votes,
//     which only complete certificates (checked: closed). So one graph of local states, found once
//     on the real core, is every correct replica's; and in every state of the view each replica is
//     in a local state that the first votes cast so far allow (reach).
//   - What the leader can have a part in is at hand for every replica at every moment: both blocks,
//     headers, evidence, any first vote, every certificate, also those that too few have signed. So
//     there are more states here than in truth: what is safe here is safe; a planted bug may be
//     found in a state beyond.
//   - Symmetry. Who sent a vote is forgotten, only counts stay. Checked: the graph is the same for
//     the next view's leader, with the others numbered backwards.
//   - Order is forgotten where it changes nothing that is signed: of votes received, and of timers
//     after the view was left (hurried). exhaustive_cover_test.go holds the graph against real
//     runs: every local state that they meet is in it.
//   - Safety and progress depend on who signed what. So local states of replicas with the same
//     first vote are put into classes by what they signed, and all combinations of classes are
//     checked, up to permutation. That covers every combination of states.
//   - Keys answer at once: a vote binds from the moment it is cast, so a slow signature is a slow
//     message. A slow certificate can let a replica become final before it has one to relay; others
//     then ask for it by Status. That is left to the simulator.
//
// It is one view, and f = 1.

// replica is everything that one correct replica can come to in a view of a Byzantine leader: the
// graph of its local states, on the real core, under every order of inputs. An edge is one input.
// Other replicas appear only as inputs, so one graph serves every correct replica.
type replica struct {
	m      *model
	self   ReplicaID
	peers  []ReplicaID // the other correct replicas, in the order in which their votes come
	states []*localState
	known  map[facts]int
	inputs []offer
	// combines is the least number of partial signatures with which a core asks for a certificate,
	// finalizes that of first votes with which it announces a block as final: what the rules do,
	// rather than what they should.
	combines, finalizes int
	steps               int
}

// localState is a state, and the events that first led to it.
type localState struct {
	facts
	path []Event
	next []edge
}

// edge is an input that changes the state. vote is the kind of first vote of a correct replica that
// was received (0: of none).
type edge struct {
	to, vote int
}

// facts are what a core's further votes in the view depend on. What is left out: who sent which
// vote; the order in which they came; which replicas said what after the view was left; votes to
// finalize, which here only ask for others.
type facts struct {
	left, final, slow, troubled, waits, late bool // late: the finalize timer runs
	convicted                                bool
	heard, first, signed, certified          uint8    // heard: a block; the others a bit for each of model.statements
	awaited                                  uint8    // the block that is known to be final and has not come
	asks                                     uint8    // a bit for each block that was asked for and has not come
	blocks                                   [2]uint8 // in the order in which they came
	votes                                    votes    // first votes received of correct replicas
	leader                                   uint8    // the leader's first vote, by kind
}

// offer is an input that may be given to a replica: when, and what it is then.
type offer struct {
	vote  int
	when  func(facts) bool
	event func(*localState) Event
}

const nullifyKind = 3

// votes counts first votes of correct replicas by kind: 0 none, 1 and 2 for a block, 3 nullify.
type votes [4]uint8

func (v votes) plus(w votes) votes {
	for kind := range v {
		v[kind] += w[kind]
	}
	return v
}

func (v votes) contain(w votes) bool { return v[1] >= w[1] && v[2] >= w[2] && v[3] >= w[3] }

// statement returns what a vote of a kind says.
func (m *model) statement(kind int) Statement { return m.statements[kind-1] }

func newReplica(t *testing.T, size Size, self ReplicaID) *replica {
	require.Equal(t, 1, size.F, "the leader is the only Byzantine replica")
	n := size.N()
	r := &replica{m: newModel(t, size, 0), self: self, known: make(map[facts]int), combines: n + 1, finalizes: n + 1}
	for id := ReplicaID(2); id <= ReplicaID(n); id++ {
		if id != self {
			r.peers = append(r.peers, id)
		}
	}
	r.offerEverything()
	return r
}

// offerEverything lists the inputs. Everything that the Byzantine leader could have a part in is at
// hand at any moment: both blocks, the evidence, a first vote of its own, all certificates. First
// votes of correct replicas come as long as there are replicas left. After it has left the view, a
// replica's fallback votes are over; blocks, certificates, timers and requests for finality are
// what is left to move it.
func (r *replica) offerEverything() {
	m := r.m
	in := func(f facts) bool { return !f.left }
	out := func(f facts) bool { return f.left }
	peer := r.peers[0]
	event := func(e Event) func(*localState) Event { return func(*localState) Event { return e } }
	from := func(id ReplicaID, msg Message) func(*localState) Event { return event(Receive{id, msg}) }
	var headers [3]SignedHeader
	for kind := 1; kind <= 2; kind++ {
		b := m.blocks[kind]
		headers[kind] = SignedHeader{b.Header, b.Signature}
		r.offer(0, func(f facts) bool { return !slices.Contains(f.blocks[:], uint8(kind)) }, from(1, b))
		r.offer(0, func(f facts) bool { return in(f) && !f.convicted && int(f.heard) == 3-kind }, from(peer, headers[kind]))
		r.offer(0, out, from(peer, Vote{m.statements[2+kind], false, []byte{byte(peer)}}))
		r.offer(0, func(f facts) bool { return !f.final && f.awaited == 0 }, from(peer, Certificate{m.statements[2+kind], []byte("certificate")}))
	}
	r.offer(0, func(f facts) bool { return in(f) && !f.convicted }, from(peer, newEvidence(headers[1], headers[2])))
	for kind := 1; kind <= nullifyKind; kind++ {
		s := m.statement(kind)
		r.offer(kind, func(f facts) bool { return in(f) && f.received() < len(r.peers) }, func(l *localState) Event {
			id := r.peers[l.received()]
			return Receive{id, Vote{s, true, []byte{byte(id)}}}
		})
		r.offer(0, func(f facts) bool { return in(f) && f.leader == 0 }, from(1, Vote{s, true, []byte{1}}))
		r.offer(0, func(f facts) bool { return f.certified>>(kind-1)&1 == 0 }, from(peer, Certificate{s, []byte("certificate")}))
	}
	r.offer(0, out, from(peer, Status{View: 1, WantFinality: true}))
	r.offer(0, func(f facts) bool { return in(f) && f.waits }, event(Expired{Timer{1, TimerView}}))
	r.offer(0, func(f facts) bool { return out(f) && f.late }, event(Expired{Timer{1, TimerFinalize}}))
}

func (r *replica) offer(vote int, when func(facts) bool, event func(*localState) Event) {
	r.inputs = append(r.inputs, offer{vote, when, event})
}

// awaits reports whether a block was asked for that one of the replicas with these first votes has,
// because it voted for it.
func (f facts) awaits(up votes) bool { return f.asks&1 != 0 && up[1] > 0 || f.asks&2 != 0 && up[2] > 0 }

// received is the number of correct replicas whose first votes were received.
func (f facts) received() int { return int(f.votes[1] + f.votes[2] + f.votes[3]) }

// grow finds all states. It fails when a core does what no order of events may make it do.
func (r *replica) grow() error {
	r.intern(r.replay(nil), nil)
	for at := 0; at < len(r.states); at++ {
		l := r.states[at]
		for _, in := range r.inputs {
			if !in.when(l.facts) {
				continue
			}
			event := in.event(l)
			core := r.replay(l.path)
			sent := r.feed(core, event)
			to := r.intern(core, append(l.path[:len(l.path):len(l.path)], event))
			r.steps++
			err := r.checkStep(l.facts, event, r.states[to].facts, sent)
			if err == nil {
				err = errors.Join(r.checkHeld(core), r.m.unjustified)
			}
			if err != nil {
				return fmt.Errorf("%w; before %+v, after %+v", err, l.facts, r.states[to].facts)
			}
			if to != at {
				l.next = append(l.next, edge{to, in.vote})
			}
		}
	}
	return nil
}

// checkHeld checks that whatever a core voted to notarize it holds, linked to what it builds on,
// and stored: a block is valid if a voter of any kind found it so, and can be fetched from each.
func (r *replica) checkHeld(core *watched) error {
	v := core.at(1)
	for _, own := range v.own {
		if own.Kind != Notarize || core.finalView > 0 {
			continue
		}
		if n := v.node(own.Block); n == nil || !n.linked || !n.stored {
			return errors.New("a vote went to a block that is not held, or not stored")
		}
	}
	return nil
}

// hurried leaves out when finalize votes are due: once the view was left, a peer's finalize vote
// asks for them at any time.
func (f facts) hurried() facts {
	f.slow, f.troubled, f.late = false, false, false
	return f
}

// replay returns a new core after a path.
func (r *replica) replay(path []Event) *watched {
	core, _ := r.m.replay(r.self, nil)
	for _, e := range path {
		r.feed(core, e)
	}
	return core
}

func (r *replica) feed(core *watched, e Event) []posted {
	effects := core.Step(Now{1, 1}, e)
	for _, e := range effects {
		if c, ok := e.(Combine); ok {
			r.combines = min(r.combines, len(c.Partials))
		}
	}
	return r.m.carryOut(core, effects)
}

func (r *replica) intern(core *watched, path []Event) int {
	f := r.read(core)
	at, ok := r.known[f]
	if !ok {
		at = len(r.states)
		r.known[f] = at
		r.states = append(r.states, &localState{facts: f, path: path})
	}
	return at
}

// read takes the facts from a core.
func (r *replica) read(core *watched) facts {
	v := core.at(1)
	f := facts{
		left: core.view > 1, final: core.finalView > 0, slow: core.slow, troubled: core.trouble > 0, convicted: v.convicted,
		waits: core.view == 1 && core.clock.deadline[TimerView] != 0, late: core.clock.deadline[TimerFinalize] != 0,
	}
	if f.final {
		f = f.hurried()
	}
	for kind := 1; kind <= 2; kind++ {
		if block := r.m.statement(kind).Block; !f.final && (core.certain.block == block || core.fast.block == block) {
			f.awaited = uint8(kind)
		}
		if !f.left && core.sought(r.m.statement(kind).Block) != nil {
			f.asks |= 1 << (kind - 1)
		}
		if v.heard && v.digest == r.m.statement(kind).Block {
			f.heard = uint8(kind)
		}
		for i, n := range v.nodes {
			if n.digest == r.m.statement(kind).Block {
				f.blocks[i] = uint8(kind)
			}
		}
	}
	for _, own := range v.own {
		bit := r.bit(own.Statement)
		f.signed |= bit
		if own.First {
			f.first |= bit
		}
	}
	for i := range v.tallies {
		t := &v.tallies[i]
		if t.certificate != nil && t.Kind != Finalize {
			f.certified |= r.bit(t.Statement)
		}
	}
	if f.left { // fallback votes are over
		f.convicted, f.heard = false, 0
		return f
	}
	f.leader = r.firstOf(v, 1)
	for _, id := range r.peers {
		if kind := r.firstOf(v, id); kind > 0 {
			f.votes[kind]++
		}
	}
	return f
}

// firstOf returns the kind of the first vote of a replica that was received, 0 for none.
func (r *replica) firstOf(v *round, id ReplicaID) uint8 {
	if i := v.first[id]; i != 0 {
		return uint8(slices.Index(r.m.statements[:], v.tallies[i-1].Statement) + 1)
	}
	return 0
}

func (r *replica) bit(s Statement) uint8 { return 1 << slices.Index(r.m.statements[:], s) }

// checkStep checks one step: a replica casts one first vote, at the latest when its timer expires,
// takes nothing back, leaves the view with a certificate that it passes on, and does its part in
// spreading evidence (rule 6).
func (r *replica) checkStep(before facts, e Event, after facts, sent []posted) error {
	if after.first&(after.first-1) != 0 {
		return errors.New("two first votes")
	}
	if before.signed&^after.signed != 0 || before.certified&^after.certified != 0 || before.left && !after.left {
		return errors.New("something was forgotten")
	}
	if after.left && !before.left && !after.final && !r.says(sent, 0, Certificate{}) {
		return errors.New("a certificate is kept back")
	}
	if after.left {
		return nil
	}
	receive, ok := e.(Receive)
	if !ok {
		if after.first == 0 {
			return errors.New("the view timer expired without a first vote")
		}
		return nil
	}
	if after.convicted && !before.convicted && !r.says(sent, 0, Evidence{}) {
		return errors.New("evidence is kept back")
	}
	switch x := receive.Message.(type) {
	case Certificate:
		if x.Kind != Finalize {
			return errors.New("a certificate does not end the view")
		}
	case SignedHeader, Evidence:
		if !after.convicted {
			return errors.New("two headers are no evidence")
		}
	case Vote:
		rival := x.Kind == Notarize && before.heard != 0 && x.Block != r.m.statement(int(before.heard)).Block
		if rival && !before.convicted && !r.says(sent, receive.From, SignedHeader{}) {
			return errors.New("a voter for another block is not told")
		}
	}
	return nil
}

// says reports whether a message of a type was sent to a replica (0: all).
func (r *replica) says(sent []posted, to ReplicaID, like Message) bool {
	return slices.ContainsFunc(sent, func(p posted) bool {
		return p.to == to && fmt.Sprintf("%T", r.m.messages[p.message]) == fmt.Sprintf("%T", like)
	})
}

// closed checks what the reductions rest on. In the view, fallback votes do nothing but complete
// certificates, and q votes do complete them. After it, first votes, fallback votes to nullify, and
// evidence change nothing, but for a block that becomes final.
func (r *replica) closed() error {
	q := 2*r.m.size.F + r.m.size.C + 1
	known := r.set()
	for _, l := range r.states {
		for kind := 1; kind <= nullifyKind; kind++ {
			others := append([]ReplicaID{1}, r.peers...)
			for _, v := range []Vote{{r.m.statement(kind), false, nil}, {r.m.statement(kind), true, nil}} {
				if v.First && !l.left { // only second ones: the others are inputs
					at := r.replay(l.path).at(1)
					others = slices.DeleteFunc(others, func(id ReplicaID) bool { return r.firstOf(at, id) == 0 })
				}
				if err := r.closedUnder(l, v, others, known, q); err != nil {
					return fmt.Errorf("%w, at %+v", err, l.facts)
				}
			}
		}
	}
	return nil
}

// closedUnder has others cast a vote at a state.
func (r *replica) closedUnder(l *localState, v Vote, others []ReplicaID, known map[facts]bool, q int) error {
	core := r.replay(l.path)
	for _, id := range others {
		v.Partial = []byte{byte(id)}
		r.feed(core, Receive{id, v})
		r.steps++
		f := r.read(core)
		switch {
		case !known[f.hurried()]:
			return fmt.Errorf("votes for %v lead to a state that nothing else leads to: %+v", v.Statement, f)
		case !f.left && f != l.facts:
			return fmt.Errorf("a vote for %v that is no first vote changes more than its count", v.Statement)
		case f.signed != l.signed && f.certified == l.certified:
			return fmt.Errorf("a vote for %v that changes nothing was answered by a vote", v.Statement)
		case !f.left && core.at(1).find(v.Kind, v.Block).votes >= q:
			return fmt.Errorf("there are %d votes for %v, and the view goes on", q, v.Statement)
		}
	}
	return nil
}

// measure sends a replica first votes for the block that it has, one after the other, until the
// block is final.
func (r *replica) measure() {
	core := r.replay([]Event{Receive{1, r.m.blocks[1]}})
	for i, id := range append(r.peers, 1) {
		if core.finalView > 0 {
			return
		}
		r.feed(core, Receive{id, Vote{r.m.statement(1), true, []byte{byte(id)}}})
		r.finalizes = i + 2 // with its own
	}
}

// set returns all states, hurried.
func (r *replica) set() map[facts]bool {
	set := make(map[facts]bool)
	for f := range r.known {
		set[f.hurried()] = true
	}
	return set
}

// reach returns the states that a replica can come to when correct replicas cast these first votes,
// itself left out.
func (r *replica) reach(others votes) []*localState {
	seen := make([]bool, len(r.states))
	seen[0] = true
	queue := []int{0}
	var states []*localState
	for len(queue) > 0 {
		l := r.states[queue[0]]
		queue = queue[1:]
		states = append(states, l)
		for _, e := range l.next {
			if e.vote > 0 && l.votes[e.vote] == others[e.vote] || seen[e.to] {
				continue
			}
			seen[e.to] = true
			queue = append(queue, e.to)
		}
	}
	return states
}
