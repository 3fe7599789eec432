package bft

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// This file checks two consecutive views, a Byzantine leader's and a correct one's, in all
// schedules with a bounded number of deviations from the order in which messages were sent
// (delay-bounded scheduling: Emmi, Qadeer, Rakamaric, POPL 2011). A deviation puts the next message
// behind all others, or lets a view timer expire early. Each schedule runs on real cores from the
// start. Safety is checked at the end of each, over both views, and that both views ended: no
// bounded mischief of the network keeps correct replicas in a view.

// deviation happens at one step of a schedule: kind 0 postpones the next message, kind i > 0 fires
// the view timer of the i-th correct replica.
type deviation struct{ step, kind int }

// schedule is one run.
type schedule struct {
	m     *model
	cores []*watched
	queue []delivery
	steps int
}

type delivery struct {
	to, message int
}

// run carries out a schedule and returns the number of steps that it took.
func (m *model) run(choices []choice, deviations []deviation) *schedule {
	s := &schedule{m: m}
	for i, id := range m.correct {
		core, sent := m.replay(id, nil)
		s.cores = append(s.cores, core)
		s.post(i, sent)
	}
	for i, c := range choices {
		for _, msg := range m.shown(c) {
			s.queue = append(s.queue, delivery{i, msg})
		}
	}
	const enough = 2000
	for ; s.steps < enough && !s.over(); s.steps++ {
		s.step(deviations)
	}
	return s
}

// step delivers the next message, deviates, or, when nothing is under way, lets time pass.
func (s *schedule) step(deviations []deviation) {
	for _, d := range deviations {
		if d.step != s.steps {
			continue
		}
		if d.kind > 0 {
			s.fire(d.kind-1, TimerView)
		} else if len(s.queue) > 0 {
			s.queue = append(s.queue[1:], s.queue[0])
		}
		return
	}
	if len(s.queue) == 0 {
		s.fetch()
	}
	if len(s.queue) == 0 {
		for i := range s.cores {
			s.fire(i, TimerResend)
			s.fire(i, TimerFinalize)
			s.fire(i, TimerView)
		}
		return
	}
	next := s.queue[0]
	s.queue = s.queue[1:]
	in := input{from: s.m.sender(next.message, s.m.correct[next.to]), message: next.message}
	s.post(next.to, s.m.feed(s.cores[next.to], in))
}

// fetch puts the blocks under way that were asked for and that some replica has.
func (s *schedule) fetch() {
	for i, core := range s.cores {
		for _, m := range core.missing {
			for _, peer := range s.cores {
				if peer.holds(m.block) {
					s.queue = append(s.queue, delivery{i, s.m.message(peer.tree[m.block].Block)})
					break
				}
			}
		}
	}
}

func (s *schedule) fire(i int, timer TimerKind) {
	s.post(i, s.m.feed(s.cores[i], input{message: -1, timer: timer}))
}

func (s *schedule) post(i int, sent []posted) {
	for _, p := range sent {
		for j, id := range s.m.correct {
			if j != i && (p.to == 0 || p.to == id) {
				s.queue = append(s.queue, delivery{j, p.message})
			}
		}
	}
}

// over reports whether all correct replicas have left both views.
func (s *schedule) over() bool {
	for _, core := range s.cores {
		if core.View() < 3 {
			return false
		}
	}
	return true
}

// check looks at the votes of all correct replicas in both views, in plain integers: where a block
// can be final, no view has a certificate that contradicts it, and the blocks that can be notarized
// above it descend from it.
func (s *schedule) check() error {
	f, c := s.m.size.F, s.m.size.C
	q, n, p := 2*f+c+1, 3*f+2*c+1, c/2+1
	signed, first := make(map[Statement]int), make(map[Statement]int)
	for _, core := range s.cores {
		for v := View(1); v <= 2; v++ {
			seen := make(map[Statement]bool)
			for _, vote := range core.at(v).own {
				if !seen[vote.Statement] {
					signed[vote.Statement]++
				}
				seen[vote.Statement] = true
				if vote.First {
					first[vote.Statement]++
				}
			}
		}
	}
	if s.m.unjustified != nil {
		return s.m.unjustified
	}
	for final, count := range signed {
		possible := final.Kind == Finalize && count+f >= q || final.Kind == Notarize && first[final]+f >= n-p
		if !possible {
			continue
		}
		for other, count := range signed {
			rival := other.Kind == Nullify || other.Block != final.Block
			if count+f >= q && other.View == final.View && rival {
				return fmt.Errorf("%v can be final, and %v can have a certificate", final, other)
			}
			if b := s.m.made[other.Block]; count+f >= q && other.View > final.View && b != nil && b.Parent != final.Block {
				return fmt.Errorf("%v can be final, and %v can have a certificate without it", final, other)
			}
		}
	}
	return nil
}

func TestTwoViewsWithBoundedDeviations(t *testing.T) {
	for _, run := range []struct {
		size    Size
		choices []choice
		bound   int
	}{
		{Size{1, 0}, []choice{{1, 1}, {1, 1}, {2, 2}}, 1},
		{Size{1, 0}, []choice{{1, 1}, {2, 2}, {0, 3}}, 1},
		{Size{1, 0}, []choice{{1, 1}, {1, 0}, {0, 3}}, 1},
		{Size{1, 1}, []choice{{1, 1}, {1, 1}, {2, 2}, {2, 2}}, 1},
		{Size{1, 1}, []choice{{1, 1}, {1, 1}, {1, 0}, {0, 3}}, 1},
	} {
		m := newModel(t, run.size, len(run.choices))
		m.limit = 1 << 12
		if *exhaustive {
			run.bound++
		}
		count := 0
		m.eachSchedule(run.choices, run.bound, func(s *schedule, deviations []deviation) {
			count++
			require.NoError(t, s.check(), deviations)
			require.Truef(t, s.over(), "a view does not end: %v", deviations)
		})
		t.Logf("f=%d c=%d, %d deviations: %d schedules", run.size.F, run.size.C, run.bound, count)
	}
}

// eachSchedule runs every schedule with at most bound deviations.
func (m *model) eachSchedule(choices []choice, bound int, f func(*schedule, []deviation)) {
	var extend func(deviations []deviation, from int)
	extend = func(deviations []deviation, from int) {
		s := m.run(choices, deviations)
		f(s, deviations)
		if len(deviations) == bound {
			return
		}
		for step := from; step < s.steps; step++ {
			for kind := range len(choices) + 1 {
				extend(append(deviations[:len(deviations):len(deviations)], deviation{step, kind}), step+1)
			}
		}
	}
	extend(nil, 0)
}
