package bft_test

import (
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// A replica, or all of them, are restarted from disk after the first message, after the second, and
// so on through three blocks. No guard refuses anything, nobody is accused, and the cluster goes
// on.
func TestRestartAtEveryPoint(t *testing.T) {
	for _, restarted := range [][]bft.ReplicaID{{1}, {2}, {1, 2, 3, 4}} {
		points := 0
		for done := false; !done; points++ {
			s := &stage{t: t}
			s.cluster(&datadriven.TestData{})
			done = s.playUntil(points)
			for _, id := range restarted {
				s.actors[id].start()
			}
			for range 3 { // what a replica had received and not stored comes again with the timers
				s.settle(arguments("views", "2"))
				s.fire(arguments("timer", "resend"))
				s.fire(arguments("timer", "finalize"))
			}
			s.settle(arguments("views", "0"))
			require.NotContains(t, s.out.String(), "guard", points)
			require.NotContains(t, s.out.String(), "accuses", points)
			require.NotContains(t, s.out.String(), "cannot", points)
			for _, a := range s.actors[1:] {
				height, _ := a.core.Final()
				require.GreaterOrEqualf(t, height, bft.Height(2), "replica %d, restarted after %d events:\n%s", a.id, points, s.out.String())
			}
		}
		require.Greater(t, points, 50)
	}
}

func arguments(key, value string) *datadriven.TestData {
	return &datadriven.TestData{CmdArgs: []datadriven.CmdArg{{Key: key, Vals: []string{value}}}}
}

// playUntil plays so many messages and proposals, and reports whether three blocks were made before.
func (s *stage) playUntil(points int) (done bool) {
	blocks := 0
	for range points {
		if len(s.wire) > 0 {
			next := s.wire[0]
			s.wire = s.wire[1:]
			s.hand(next)
			continue
		}
		for _, a := range s.actors[1:] {
			if a.propose == nil {
				continue
			}
			if blocks++; blocks > 3 {
				return true
			}
			b := s.block(a.propose.Header, nil)
			a.propose = nil
			a.act(a.core.Step(s.reading(), bft.Proposed{Block: b}))
			break
		}
	}
	return false
}
