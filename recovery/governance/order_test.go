package governance

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/attest"
)

func TestOrderNeedsAQuorumOfOperators(t *testing.T) {
	c := inEpoch1(t)
	o := &Order{Sequence: 1, Body: &StartRound{}}
	c.refused(attest.ReasonSignatures, o)
	require.NoError(t, o.Sign(c.genesis, c.operators[1]))
	require.NoError(t, o.Sign(c.genesis, c.operators[1]), "signing twice is signing once")
	require.Contains(t, c.refused(attest.ReasonSignatures, o), "1 signatures; 2 operators must sign")
	_, stranger := epochKey(t)
	require.ErrorContains(t, o.Sign(c.genesis, stranger), "not one of the genesis's operators")

	require.NoError(t, o.Sign(c.genesis, c.operators[0]))
	bad := &Order{Sequence: 1, Body: &StartRound{Due: []bft.ReplicaID{1}}, Signatures: o.Signatures}
	require.Contains(t, c.refused(attest.ReasonSignatures, bad), "operator 0 on the order does not verify")
	bad = &Order{Sequence: 1, Body: o.Body, Signatures: []OperatorSignature{o.Signatures[0], {200, o.Signatures[1].Signature}}}
	c.refused(attest.ReasonSignatures, bad)
	c.accepted(o)
}

func TestOrderCannotBeReplayed(t *testing.T) {
	c := inEpoch1(t)
	start := c.order(&StartRound{Due: []bft.ReplicaID{1}})
	c.accepted(start)
	require.Equal(t, "the order has number 1; the next one is 2", c.refused(attest.ReasonSequence, start))

	// An order that cannot be carried out uses up its number: it cannot come back when it could be.
	early := c.order(&Release{Replica: 2})
	c.refused(attest.ReasonOrder, early)
	c.accepted(c.order(&Quarantine{Replica: 2, Reason: "odd"}))
	c.refused(attest.ReasonSequence, early)
	require.EqualValues(t, 3, c.state.View().OrderSequence)

	// One that is numbered ahead would be good until its number is reached: as often as whoever has
	// it likes.
	ahead := &Order{Sequence: 5, Body: &StartRound{}}
	require.NoError(t, ahead.Sign(c.genesis, c.operators[0]))
	require.NoError(t, ahead.Sign(c.genesis, c.operators[1]))
	c.refused(attest.ReasonSequence, ahead)
	require.EqualValues(t, 3, c.state.View().OrderSequence)
}

func TestOrderOfAnotherClusterIsRefused(t *testing.T) {
	c, other := inEpoch1(t), newCluster(t)
	o := &Order{Sequence: 1, Body: &StartRound{}}
	require.NoError(t, o.Sign(other.genesis, other.operators[0]))
	require.NoError(t, o.Sign(other.genesis, other.operators[1]))
	c.refused(attest.ReasonSignatures, o)
}

func TestWhoMayBeNamedDue(t *testing.T) {
	c := inEpoch1(t)
	require.Contains(t, c.refused(attest.ReasonOrder, c.order(&StartRound{Due: []bft.ReplicaID{1, 2}})), "name at most 1")
	c.refused(attest.ReasonUnknownReplica, c.order(&StartRound{Due: []bft.ReplicaID{7}}))
	c.accepted(c.order(&Quarantine{Replica: 2, Reason: "odd"}))
	c.refused(attest.ReasonOrder, c.order(&StartRound{Due: []bft.ReplicaID{2}}))
	require.Equal(t, PhaseIdle, c.phase())

	zero := newCluster(t)
	require.Contains(t, zero.refused(attest.ReasonOrder, zero.order(&StartRound{Due: []bft.ReplicaID{1}})), "epoch 0")
}

func TestNoOrderStopsAHandoffThatIsReady(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{}))
	c.accepted(c.reboot(1))
	dealings, ops := c.deal(c.dealers()...)
	c.accepted(ops...)
	c.refused(attest.ReasonOrder, c.order(&StartRound{}))
	c.accepted(c.order(&Quarantine{Replica: 5, Reason: "odd"}))
	c.wait(time.Hour)
	require.True(t, c.state.HandoffReady())
	c.endEpoch(dealings)
	require.NotContains(t, c.state.Membership().Leaders, bft.ReplicaID(5))
	require.Contains(t, c.holders(), bft.ReplicaID(5), "until the next handoff")
}

func TestQuarantine(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{}))
	c.accepted(c.reboot(1))
	_, stale := c.deal(1, 2)
	c.accepted(stale[0])
	c.accepted(c.order(&Quarantine{Replica: 5, Reason: "smells of smoke"}))
	require.Equal(t, PhaseDealing, c.phase())
	require.Equal(t, without(everybody, 5), c.state.View().Eligible, "the dealing began again without it")
	c.refused(attest.ReasonRound, stale[1])
	c.handoff()
	require.Equal(t, "quarantined: smells of smoke", c.state.View().Member(5).Status)
	require.Equal(t, without(everybody, 5), c.holders())

	c.refused(attest.ReasonOrder, c.order(&Quarantine{Replica: 5, Reason: "again"}))
	c.refused(attest.ReasonUnknownReplica, c.order(&Quarantine{Replica: 9, Reason: "who"}))
	c.accepted(c.order(&Quarantine{Replica: 6, Reason: "odd"}))
	require.Contains(t, c.refused(attest.ReasonOrder, c.order(&Quarantine{Replica: 4, Reason: "odd"})), "only 3 are left")

	c.accepted(c.order(&Release{Replica: 5}))
	c.accepted(c.order(&Release{Replica: 6}))
}

func TestQuarantinedReplicaIsNotAwaited(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{5}}))
	c.accepted(c.order(&Quarantine{Replica: 5, Reason: "odd"}))
	require.Equal(t, PhaseDealing, c.phase())
	c.handoff()
	c.accepted(c.order(&Release{Replica: 5}))
	c.accepted(c.order(&StartRound{}))
	require.Equal(t, []bft.ReplicaID{1}, c.state.View().Due, "it was due in the last round")
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{1, 5}}))
	c.accepted(c.reboot(1), c.reboot(5))
	c.handoff()
	require.Equal(t, everybody, c.holders())
}

// What a quarantined replica shows is not judged: released in the same round, it would have a share
// of evidence that nobody waited for.
func TestQuarantinedReplicaShowsNothing(t *testing.T) {
	c := inEpoch1(t, size(1, 2))
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3, 4}}))
	c.accepted(c.order(&Quarantine{Replica: 3, Reason: "odd"}))
	require.Equal(t, PhaseAttesting, c.phase())
	c.refused(attest.ReasonNotDue, c.reboot(3))
	require.Nil(t, c.state.Membership().Member(3).NextKey)
}

func TestSoftwareIsUpgradedByApprovalBeforeTheReboot(t *testing.T) {
	c := inEpoch1(t)
	v2 := attest.ApprovedState{Name: "v2", PCRs: map[int]attest.Measurement{7: good7, 14: {2}}}
	c.accepted(c.order(c.approve(v2)))
	c.accepted(c.order(c.approve(v2))) // its approvals are renewed
	other := v2
	other.PCRs = map[int]attest.Measurement{7: good7, 14: {3}}
	require.Contains(t, c.refused(attest.ReasonOrder, c.order(c.approve(other))), "with other values")
	c.refused(attest.ReasonOrder, c.order(&ApproveState{attest.ApprovedState{Name: "v3", PCRs: map[int]attest.Measurement{7: good7}}}))
	c.refused(attest.ReasonOrder, c.order(c.revoke("v0")))

	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{1}}))
	c.announce(1)
	c.tpms[1].boot(v2.PCRs[14])
	c.accepted(c.evidence(1))
	c.handoff()
	require.Equal(t, "v2", c.state.View().Member(1).State)

	require.Equal(t, "v2", c.state.View().Member(1).Device.Running)
}

func TestRoundWithOtherNamesKeepsWhatWasAttested(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{1}}))
	attest := c.reboot(1)
	c.accepted(attest)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{2}}))
	c.accepted(c.reboot(2))
	c.handoff()
	require.Equal(t, everybody, c.holders())
	require.Equal(t, attest.Evidence.EpochKey, c.state.Membership().Member(1).EpochKey)
	require.EqualValues(t, 2, c.state.View().Counts.Recoveries)
}

func TestBadOrdersAreNamedBeforeTheyAreSigned(t *testing.T) {
	c := newCluster(t)
	for body, says := range map[OrderBody]string{
		&StartRound{Due: []bft.ReplicaID{1, 1}}:        "named twice",
		&Quarantine{Replica: 0, Reason: "x"}:           "numbered from 1",
		&Quarantine{Replica: 1}:                        "reason: choose 1 to 64",
		&Release{}:                                     "numbered from 1",
		&RevokeState{Name: "a\nb"}:                     "printable",
		&ApproveState{attest.ApprovedState{PCRs: nil}}: "name: choose",
		&ApproveState{attest.ApprovedState{Name: "x", PCRs: pcrs(24, good7)}}: "PCRs are 0 to 23",
	} {
		require.ErrorContains(t, (&Order{Sequence: 1, Body: body}).Sign(c.genesis, c.operators[0]), says)
	}
}

func pcrs(index int, value attest.Measurement) map[int]attest.Measurement {
	return map[int]attest.Measurement{index: value}
}
