package governance

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/attest"
)

var everybody = []bft.ReplicaID{1, 2, 3, 4, 5, 6}

func TestKeyGenerationIsTheHandoffOfEpochZero(t *testing.T) {
	c := newCluster(t)
	v := c.state.View()
	require.Equal(t, PhaseDealing, v.Phase)
	require.Equal(t, everybody, v.Eligible)
	require.Equal(t, everybody, v.Leaders)
	require.Nil(t, c.state.Membership().GroupKey)
	require.Equal(t, c.genesis.ClusterID(), c.state.Membership().Base.Digest)

	c.handoff()
	m := c.state.Membership()
	require.EqualValues(t, 1, m.Epoch)
	require.Len(t, m.GroupKey, PublicKeySize)
	require.Equal(t, bft.Base{Height: c.tip.Height, Digest: c.tip.Digest, Time: c.tip.Time}, m.Base)
	require.Equal(t, everybody, c.holders())
	require.Equal(t, []bft.ReplicaID{2, 3, 4, 5, 6}, m.Leaders, "replica 1 is due first and does not lead")
	require.Equal(t, PhaseIdle, c.phase())
}

func TestEveryReplicaRecoversInTurn(t *testing.T) {
	c := inEpoch1(t, interval(time.Minute))
	key := c.state.Membership().GroupKey
	for _, id := range everybody {
		require.Equal(t, PhaseIdle, c.phase())
		require.NotContains(t, c.state.Membership().Leaders, id, "a planned reboot never costs a timeout")
		c.wait(time.Minute)
		require.Equal(t, PhaseAttesting, c.phase())
		require.Equal(t, []bft.ReplicaID{id}, c.state.View().Due)

		attest := c.reboot(id)
		c.accepted(attest)
		require.Equal(t, PhaseDealing, c.phase(), "nobody else is awaited")
		require.Equal(t, attest.Evidence.EpochKey, c.state.Membership().Member(id).NextKey)
		c.handoff()

		m := c.state.View().Member(id)
		require.True(t, m.Attested)
		require.Equal(t, c.tpms[id].ResetCount, m.ResetCount)
		require.Equal(t, "v1", m.State)
		require.Equal(t, attest.Evidence.EpochKey, c.state.Membership().Member(id).EpochKey)
		require.Nil(t, c.state.Membership().Member(id).NextKey)
	}
	require.EqualValues(t, 7, c.state.Membership().Epoch)
	require.Equal(t, key, c.state.Membership().GroupKey)
	require.EqualValues(t, 6, c.state.View().Counts.Recoveries)
	require.Equal(t, everybody, c.holders())
}

func TestTamperedReplicaGetsNoShareUntilRestored(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.tpms[3].boot(bad14)
	sentence := c.refused(attest.ReasonPCR, c.evidence(3))
	require.Contains(t, sentence, "PCR 14 is not approved")
	require.Equal(t, PhaseDealing, c.phase(), "the others go on")
	require.Equal(t, without(everybody, 3), c.state.View().Eligible)
	c.handoff()

	m := c.state.View().Member(3)
	require.False(t, m.HoldsShare)
	require.Contains(t, m.Status, "PCR 14 is not approved")
	require.NotContains(t, c.state.Membership().Leaders, bft.ReplicaID(3))
	require.Equal(t, map[string]uint64{"pcr": 1}, c.state.View().Counts.Refused)

	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.accepted(c.reboot(3))
	c.handoff()
	require.Equal(t, everybody, c.holders())
}

func TestRepairedWithinTheRound(t *testing.T) {
	c := inEpoch1(t, size(1, 2))
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3, 4}}))
	c.tpms[3].boot(bad14)
	bad := c.evidence(3)
	c.refused(attest.ReasonPCR, bad)
	require.Equal(t, PhaseAttesting, c.phase(), "replica 4 is awaited")
	c.accepted(c.reboot(3))
	c.refused(attest.ReasonSuperseded, bad)
	c.accepted(c.reboot(4))
	require.Len(t, c.state.View().Eligible, 8)
	c.handoff()
	require.Len(t, c.holders(), 8)
}

func TestLeaseLapsesWhenDueAndSilent(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{2}}))
	c.wait(10 * time.Second)
	require.Equal(t, PhaseDealing, c.phase())
	c.refused(attest.ReasonPhase, c.reboot(2))
	c.handoff()
	require.Equal(t, without(everybody, 2), c.holders())
	require.Equal(t, "lease lapsed: did not attest in round 2", c.state.View().Member(2).Status)
}

func TestOneThatIsGoneForGoodDoesNotKeepTheOthersFromTheirTurn(t *testing.T) {
	c := inEpoch1(t, interval(time.Minute))
	recovered := map[bft.ReplicaID]bool{}
	for range 12 {
		c.wait(time.Minute)
		due := c.state.View().Due
		require.Len(t, due, 1)
		if id := due[0]; id == 4 {
			c.wait(10 * time.Second)
		} else {
			recovered[id] = true
			c.accepted(c.reboot(id))
		}
		c.handoff()
	}
	require.Len(t, recovered, 5)
	require.Equal(t, without(everybody, 4), c.holders())
}

// A ceremony of drand failed in February 2024 because after an abort every new proposal was refused.
func TestDealingCanAlwaysBeginAgain(t *testing.T) {
	for _, from := range []string{"key generation", "recovery"} {
		t.Run(from, func(t *testing.T) {
			c := newCluster(t)
			c.block()
			if from == "recovery" {
				c.handoff()
				c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{6}}))
				c.accepted(c.reboot(6))
			}
			for attempt := range 7 {
				_, stale := c.deal(1, 2, 3)
				c.accepted(stale...)
				round := c.state.View().Round
				switch attempt % 2 {
				case 0:
					c.wait(time.Duration(c.state.View().Deadline-c.tip.Time) * time.Millisecond)
				case 1:
					c.accepted(c.order(&StartRound{}))
				}
				require.Equal(t, PhaseDealing, c.phase())
				require.Equal(t, round+1, c.state.View().Round)
				require.Empty(t, c.state.View().Dealings)
				require.Equal(t, everybody, c.state.View().Eligible, "who attested stays attested")
				c.refused(attest.ReasonRound, stale[0])
			}
			c.handoff()
			require.Equal(t, everybody, c.holders())
		})
	}
}

func TestRoundWithTooFewReceiversIsAbandoned(t *testing.T) {
	c := inEpoch1(t)
	for _, id := range []bft.ReplicaID{1, 2} {
		c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{id}}))
		c.wait(10 * time.Second)
		c.handoff()
	}
	require.Len(t, c.holders(), 4, "a quorum")
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.wait(10 * time.Second)
	v := c.state.View()
	require.Equal(t, PhaseIdle, v.Phase)
	require.Equal(t, "round 4 was abandoned: 3 replicas could receive a share, and 4 are needed", v.Note)
	require.EqualValues(t, 3, v.Epoch, "the epoch in force stays in force")
	require.Len(t, c.holders(), 4)

	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{1, 2, 3}}))
	c.accepted(c.reboot(1), c.reboot(2), c.reboot(3))
	c.handoff()
	require.Equal(t, everybody, c.holders())
	require.Empty(t, c.state.View().Note)
}

// A dealing is certified by q receivers that hold a share of this epoch: those that only get one
// cannot sign. Such a dealing used to begin again for ever, and whoever was late to attest could not.
func TestRoundWithTooFewToCertifyIsAbandoned(t *testing.T) {
	c := inEpoch1(t, size(1, 0))
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{1}}))
	c.wait(10 * time.Second)
	c.handoff()
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{1, 2}}))
	c.accepted(c.reboot(1))
	c.wait(10 * time.Second)
	v := c.state.View()
	require.Equal(t, PhaseIdle, v.Phase)
	require.Equal(t, "round 3 was abandoned: of those that could receive a share 2 hold one now, and 3 are needed to certify dealings", v.Note)

	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{1, 2}}))
	c.accepted(c.reboot(1), c.reboot(2))
	c.handoff()
	require.Len(t, c.holders(), 4)
}

// Of four replicas one was late to attest, and is back. Of the three that receive, one is faulty:
// with the one that was late there are enough.
func TestADealingThatFailsLetsWhoWasLateAttest(t *testing.T) {
	c := inEpoch1(t, size(1, 0))
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{2}}))
	c.wait(10 * time.Second)
	require.Equal(t, PhaseDealing, c.phase())
	require.Equal(t, without(everybody[:4], 2), c.state.View().Eligible)
	c.refused(attest.ReasonPhase, c.reboot(2))
	c.wait(10 * time.Second)
	require.Equal(t, PhaseAttesting, c.phase())
	c.accepted(c.reboot(2))
	require.Equal(t, PhaseDealing, c.phase())
	require.Equal(t, everybody[:4], c.state.View().Eligible)
	require.Equal(t, int64(20_000), c.state.View().Deadline-c.tip.Time, "the time for a dealing doubles as well")
	c.handoff()
	require.Len(t, c.holders(), 4)
}

// One that never attests puts off each attempt, and no more of them than there would be anyway.
func TestADealingThatFailsWithoutALateReplicaIsAbandoned(t *testing.T) {
	c := inEpoch1(t, size(1, 0))
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{2}}))
	for _, seconds := range []time.Duration{10, 20, 40, 80, 160} {
		require.Equal(t, PhaseAttesting, c.phase())
		c.wait(10 * time.Second)
		require.Equal(t, PhaseDealing, c.phase())
		require.Equal(t, without(everybody[:4], 2), c.state.View().Eligible)
		c.wait(seconds * time.Second)
	}
	require.Equal(t, PhaseIdle, c.phase())
	require.Contains(t, c.state.View().Note, "round 6 was abandoned")

	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{2}}))
	c.accepted(c.reboot(2))
	c.handoff()
	require.Len(t, c.holders(), 4)
}

// The time for a dealing doubles with each attempt that fails, 16 times at most: a cluster whose
// replicas come back late is not made to wait for hours.
func TestTheTimeForADealingIsBounded(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{6}}))
	c.accepted(c.reboot(6))
	for _, seconds := range []int64{10, 20, 40, 80, 160, 160, 160} {
		require.Equal(t, PhaseDealing, c.phase())
		left := c.state.View().Deadline - c.tip.Time
		require.Equal(t, 1000*seconds, left)
		c.wait(time.Duration(left) * time.Millisecond)
	}
}

// An urgent round that was abandoned opens again when a deadline's time has passed, and not at once:
// with too few receivers rounds would follow each other block by block.
func TestAnUrgentRoundThatWasAbandonedWaits(t *testing.T) {
	c := inEpoch1(t)
	for _, id := range []bft.ReplicaID{1, 2} {
		c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{id}}))
		c.wait(10 * time.Second)
		c.handoff()
	}
	require.Len(t, c.holders(), 4, "a quorum")
	c.accepted(c.equivocate(4))
	require.Equal(t, PhaseAttesting, c.phase())
	c.wait(10 * time.Second)
	require.Equal(t, PhaseIdle, c.phase(), "3 could receive a share")
	round := c.state.View().Round
	c.wait(9 * time.Second)
	require.Equal(t, PhaseIdle, c.phase())
	c.wait(time.Second)
	require.Equal(t, PhaseAttesting, c.phase())
	require.Equal(t, round+1, c.state.View().Round)
}
