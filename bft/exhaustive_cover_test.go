package bft

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tests in this file hold the two exhaustive checks against each other and against runs of
// whole clusters: whatever a replica comes to among real cores is among the local states that it
// comes to when the others are inputs.

func TestEveryOrderIsCovered(t *testing.T) {
	size := Size{1, 0}
	m := newModel(t, size, 3)
	require.NoError(t, m.explore([]choice{{1, 1}, {1, 3}, {1, 3}}))
	r := newReplica(t, size, 2)
	require.NoError(t, r.grow())
	known := r.set()
	for _, l := range m.locals[2] {
		if l.core.at(1) != nil {
			require.True(t, known[r.read(l.core).hurried()])
		}
	}
	t.Logf("%d local states among %d", len(m.locals[2]), len(known))
}

func TestRandomRunsAreCovered(t *testing.T) {
	size := Size{1, 1}
	m := newModel(t, size, 5)
	m.limit = 1 << 12
	r := newReplica(t, size, 2)
	require.NoError(t, r.grow())
	known, met := r.set(), make(map[facts]bool)
	random := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		s := m.randomRun(random)
		for s.steps < 400 {
			i := s.randomStep(random)
			r.self, r.peers = m.correct[i], others(m.correct, i)
			f := r.read(s.cores[i]).hurried()
			require.Truef(t, known[f], "%+v", f)
			met[f] = true
		}
	}
	require.NoError(t, m.unjustified)
	t.Logf("%d local states among %d", len(met), len(known))
}

// others returns all correct replicas but the i-th.
func others(ids []ReplicaID, i int) []ReplicaID {
	return append(append([]ReplicaID(nil), ids[:i]...), ids[i+1:]...)
}

// randomRun begins a run in which the leader shows each replica what chance decides.
func (m *model) randomRun(random *rand.Rand) *schedule {
	s := &schedule{m: m}
	for i, id := range m.correct {
		core, _ := m.replay(id, nil)
		s.cores = append(s.cores, core)
		usual := random.IntN(3)
		for _, c := range []choice{{usual, random.IntN(4)}, {max(0, random.IntN(8)-5), 0}} {
			for _, msg := range m.shown(c) {
				s.queue = append(s.queue, delivery{i, msg})
			}
		}
	}
	return s
}

// randomStep delivers some message of the view, or a certificate to which the leader adds its vote,
// or fires a timer. It returns who received it.
func (s *schedule) randomStep(random *rand.Rand) int {
	s.steps++
	i := random.IntN(len(s.cores))
	switch choice := random.IntN(20); {
	case choice == 0 && s.cores[i].View() == 1:
		s.fire(i, TimerView)
	case choice == 1:
		s.fire(i, TimerFinalize)
	case choice == 2:
		s.fire(i, TimerResend)
	case choice == 3:
		if c := random.IntN(len(s.m.certificates)); s.signers(s.m.statements[c])+s.m.size.F >= s.m.size.Quorum() {
			s.queue = append(s.queue, delivery{i, s.m.certificates[c]})
		}
	case len(s.queue) > 0:
		at := random.IntN(len(s.queue))
		next := s.queue[at]
		s.queue[at] = s.queue[len(s.queue)-1]
		s.queue = s.queue[:len(s.queue)-1]
		if i = next.to; s.ofFirstView(next.message) {
			s.post(i, s.m.feed(s.cores[i], input{from: s.m.sender(next.message, s.m.correct[i]), message: next.message}))
		}
	}
	return i
}

// signers counts the correct replicas that have signed a statement of the first view.
func (s *schedule) signers(statement Statement) (count int) {
	for _, core := range s.cores {
		for _, v := range core.at(1).own {
			if v.Statement == statement {
				count++
				break
			}
		}
	}
	return count
}

// ofFirstView reports whether a message is about the first view; blocks of the second would only
// end the run sooner.
func (s *schedule) ofFirstView(message int) bool {
	switch x := s.m.messages[message].(type) {
	case *Block:
		return x.View == 1
	case Vote:
		return x.View == 1
	case Certificate:
		return x.View == 1
	}
	return true
}
