package governance

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// lapsed is a cluster of four, of which the first has no share.
func lapsed(t *testing.T) *cluster {
	c := inEpoch1(t, size(1, 0))
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{1}}))
	c.wait(10 * time.Second)
	c.handoff()
	require.NotContains(t, c.holders(), bft.ReplicaID(1))
	return c
}

// Three of four hold a share. Without one of them nobody can certify what is dealt, in whatever
// round: the quarantine waits until the fourth has recovered.
func TestQuarantineLeavesWhoCanHandOver(t *testing.T) {
	c := lapsed(t)
	three := &Quarantine{Replica: 3, Reason: "odd"}
	require.Equal(t, "with replica 3 quarantined only 2 are left that hold a share, and no handoff succeeds without 3: release or recover another first",
		c.refused(attest.ReasonOrder, c.order(three)))
	c.accepted(c.order(&Quarantine{Replica: 1, Reason: "has none"}))
	c.accepted(c.order(&Release{Replica: 1}))

	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{1}}))
	c.accepted(c.reboot(1))
	require.Equal(t, PhaseDealing, c.phase())
	c.refused(attest.ReasonOrder, c.order(three)) // it is one of those that certify now
	dealings, ops := c.deal(c.dealers()...)
	c.accepted(ops...)
	c.accepted(c.order(three)) // the next handoff has the first one
	c.endEpoch(dealings)
	c.refused(attest.ReasonOrder, c.order(&Quarantine{Replica: 2, Reason: "odd"}))
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{2}}))
	c.accepted(c.reboot(2))
	c.handoff()
	require.Equal(t, []bft.ReplicaID{1, 2, 4}, c.holders())
}

// In every state of small clusters a quarantine is accepted exactly when a handoff can begin after
// it, in this epoch or, when this one's is over, in the next, if all cooperate that are not
// quarantined.
func TestQuarantineIsAcceptedWhenAHandoffCanBegin(t *testing.T) {
	for _, s := range []bft.Size{{F: 1}, {F: 1, C: 1}, {F: 2}} {
		accepted, refused := 0, 0
		c := inEpoch1(t, size(s.F, s.C), withoutTPM)
		for shares := range 1 << s.N() {
			for quarantined := range 1 << s.N() {
				for _, phase := range []Phase{PhaseIdle, PhaseAttesting, PhaseReady} {
					arrange := func() *State {
						state := &State{genesis: c.genesis, cluster: c.state.cluster, ledger: c.state.ledger}
						state.members = slices.Clone(state.members)
						state.round.phase = phase
						for i := range state.members {
							m, share := &state.members[i], shares>>i&1 == 1
							m.quarantined = quarantined>>i&1 == 1
							m.holdsShare = share || phase == PhaseReady
							m.recovery.eligible = share && phase == PhaseReady
						}
						return state
					}
					if before := arrange(); before.count(before.carries) < s.Quorum() {
						continue // it is not reached
					}
					for id := bft.ReplicaID(1); int(id) <= s.N(); id++ {
						if quarantined>>(id-1)&1 == 1 {
							continue
						}
						state := arrange()
						refusal := state.quarantine(c.tip, &Quarantine{Replica: id, Reason: "odd"})
						state.member(id).quarantined = true // whatever it says
						if require.Equal(t, handsOver(state, c.tip), refusal == nil, "%v: shares %b, quarantined %b and %d, %v", s, shares, quarantined, id, phase); refusal == nil {
							accepted++
						} else {
							refused++
						}
					}
				}
			}
		}
		t.Logf("%v: %d quarantines accepted, %d refused", s, accepted, refused)
		require.NotZero(t, accepted)
		require.NotZero(t, refused)
	}
}

// handsOver says whether a dealing begins when all attest that may.
func handsOver(s *State, block replica.BlockInfo) bool {
	if s.round.phase == PhaseReady {
		s.round.groupKey = s.groupKey
		s.EndEpoch(block)
	}
	s.beginAttempt(block)
	for i := range s.members {
		s.members[i].recovery.verdict = verdictAttested
	}
	s.startDealing(block)
	return s.round.phase == PhaseDealing
}
