package bft

import (
	"flag"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// This file checks one view of a Byzantine leader exhaustively, message by message, on the real
// core. The leader signs two blocks; each correct replica gets one of them or none, and one of the
// leader's four possible first votes. All that correct replicas send is delivered in every order,
// timers expire at every moment, and every certificate that the Byzantine replica could complete is
// at hand. In every state safety holds; in every state in which nothing more is to happen, every
// correct replica has left the view. exhaustive_local_test.go has a check that reaches further.
//
// A core is deterministic, so the check keeps for each replica the graph of its local states, each
// reached once by replaying events into a new core, and explores tuples of them.

// exhaustive asks for more than a unit test should.
var exhaustive = flag.Bool("exhaustive", false, "check more of what a Byzantine leader can do to a view (two minutes)")

func TestOneViewExhaustively(t *testing.T) {
	for _, run := range []struct {
		size    Size
		choices []choice
		long    bool
	}{
		{Size{1, 0}, []choice{{1, 0}, {2, 0}, {0, 3}}, false},
		{Size{1, 0}, []choice{{1, 1}, {1, 1}, {0, 3}}, false},
		{Size{1, 0}, []choice{{1, 1}, {1, 3}, {1, 3}}, false},
		{Size{1, 0}, []choice{{1, 1}, {2, 2}, {0, 3}}, true},
		{Size{1, 0}, []choice{{1, 1}, {2, 2}, {0, 0}}, true},
		{Size{1, 0}, []choice{{1, 3}, {1, 1}, {2, 2}}, true},
		{Size{1, 0}, []choice{{1, 1}, {1, 1}, {2, 2}}, true},
	} {
		if run.long && !*exhaustive {
			continue
		}
		t.Run(fmt.Sprintf("f=%d,c=%d,%v", run.size.F, run.size.C, run.choices), func(t *testing.T) {
			m := newModel(t, run.size, len(run.choices))
			require.NoError(t, m.explore(run.choices))
			t.Logf("%d states, %d local states of a replica", m.states, len(m.locals[2]))
		})
	}
}
