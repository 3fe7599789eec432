//go:build mutants

package governance

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/internal/plant"
)

// Each planted bug lets pass what a scenario of the tests says must not: so the scenario finds it.
func TestPlantedBugsAreFound(t *testing.T) {
	for _, test := range []struct {
		bug  string
		lets func(t *testing.T) bool
	}{
		{"presence-not-required", func(t *testing.T) bool { // see TestRebootMustComeAfterTheReplicaBecameDue
			c := inEpoch1(t)
			c.tpms[3].boot(good14)
			c.wait(time.Hour)
			c.tpms[3].since = time.Hour
			c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
			return c.block(c.evidence(3))[0] == nil
		}},
		{"tpm-clock-trusted", func(t *testing.T) bool { // a clock that is slow by 15%: reset a minute before the replica became due
			c := inEpoch1(t, func(g *Genesis) { g.RoundDeadline = Duration(time.Hour) })
			c.tpms[3].boot(good14)
			c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
			c.wait(10 * time.Minute)
			c.tpms[3].since = time.Duration(0.85 * float64(11*time.Minute))
			return c.block(c.evidence(3))[0] == nil
		}},
		{"version-not-asked", func(t *testing.T) bool { // see TestTPMWithALowerCounterGetsNoShare
			c := upgraded(t)
			c.accepted(c.order(c.revoke("v1")))
			c.execute(1, 2, 3, 4, 6)
			c.announce(5)
			c.tpms[5].boot(v2.PCRs[14])
			c.accepted(c.evidence(5))
			c.wait(10 * time.Second)
			return c.state.members[4].recovery.eligible
		}},
		{"cap-unchecked", func(t *testing.T) bool { // see TestPolicy, "not claimed"
			c := inEpoch1(t)
			c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
			c.announce(3)
			c.tpms[3].boot(good14)
			c.tpms[3].Unclaimed = true
			return c.block(c.evidence(3))[0] == nil
		}},
		{"certifiers-not-counted", func(t *testing.T) bool { // see TestRoundWithTooFewToCertifyIsAbandoned
			c := inEpoch1(t, size(1, 0))
			c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{1}}))
			c.wait(10 * time.Second)
			c.handoff()
			c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{1, 2}}))
			c.accepted(c.reboot(1))
			c.wait(10 * time.Second)
			return c.phase() == PhaseDealing
		}},
		{"carriers-not-counted", func(t *testing.T) bool { // see TestQuarantineLeavesWhoCanHandOver
			c := lapsed(t)
			return c.block(c.order(&Quarantine{Replica: 3, Reason: "odd"}))[0] == nil
		}},
	} {
		t.Run(test.bug, func(t *testing.T) {
			require.False(t, test.lets(t), "without the bug")
			plant.Planted = test.bug
			defer func() { plant.Planted = "" }()
			require.True(t, test.lets(t), "the bug is not found")
		})
	}
}
