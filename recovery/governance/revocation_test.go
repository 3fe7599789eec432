package governance

import (
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/attest"
)

var v2 = attest.ApprovedState{Name: "v2", PCRs: map[int]attest.Measurement{7: good7, 14: {2}}, MinimumFirmware: 0x10_0000}

// upgraded is a cluster in which v2 is approved and the first q of six replicas run it; the others
// run v1.
func upgraded(t *testing.T, options ...option) *cluster {
	c := inEpoch1(t, options...)
	c.block()
	for _, id := range everybody {
		c.accepted(c.presence(id))
	}
	c.accepted(c.order(c.approve(v2)))
	for id := range bft.ReplicaID(c.genesis.Size().Quorum()) {
		c.upgrade(id + 1)
	}
	c.block()
	return c
}

// upgrade recovers a replica into v2.
func (c *cluster) upgrade(id bft.ReplicaID) { c.t.Helper(); c.upgradeTo(id, v2) }

func (c *cluster) upgradeTo(id bft.ReplicaID, state attest.ApprovedState) {
	c.t.Helper()
	if c.phase() == PhaseIdle {
		c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{id}}))
	}
	c.announce(id)
	c.tpms[id].boot(state.PCRs[14])
	c.accepted(c.evidence(id))
	c.handoff()
}

// execute has replicas do to their TPMs what the log asks for, and show it.
func (c *cluster) execute(ids ...bft.ReplicaID) {
	c.t.Helper()
	for _, id := range ids {
		c.tpms[id].raise(c.state.View().Member(id).Device.RequiredVersion)
		c.accepted(c.presence(id))
	}
}

func (c *cluster) device(id bft.ReplicaID) *DeviceView { return c.state.View().Member(id).Device }

func TestRevocation(t *testing.T) {
	c := upgraded(t)
	c.accepted(c.order(c.revoke("v1")))
	require.Equal(t, PhaseAttesting, c.phase(), "who runs in it is due at once")
	require.Equal(t, []bft.ReplicaID{5}, c.state.View().Due, "one after the other")
	require.True(t, c.device(5).Outlawed)
	require.True(t, c.device(6).Outlawed)
	require.Equal(t, "v1", c.device(5).Running)
	for _, id := range everybody {
		require.False(t, c.device(id).RevocationReached)
		require.EqualValues(t, 1, c.device(id).RequiredVersion)
	}

	// Replica 4 is down; the round waits for it, not for ever.
	c.execute(1, 2, 3, 6)
	c.announce(5)
	c.tpms[5].raise(1)
	c.tpms[5].boot(v2.PCRs[14])
	c.accepted(c.evidence(5))
	require.True(t, c.device(5).RevocationReached, "evidence shows it too")
	require.False(t, c.device(5).Outlawed)
	require.Equal(t, PhaseAttesting, c.phase())
	require.Contains(t, c.state.View().Member(4).Status, "has not shown yet")
	c.wait(10 * time.Second)
	require.Equal(t, []bft.ReplicaID{1, 2, 3, 5, 6}, c.state.View().Eligible)
	c.handoff()
	require.Contains(t, c.state.View().Member(4).Status, "did not show by round")

	// Replica 6 is next by itself. Replica 4, meanwhile, boots the revoked binary, and gets nothing
	// for it.
	c.block()
	require.Equal(t, []bft.ReplicaID{6}, c.state.View().Due)
	c.upgrade(6)
	c.block()
	c.block()
	require.Equal(t, PhaseIdle, c.phase(), "nobody with a share runs in it any more")
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{4}}))
	c.announce(4)
	require.Contains(t, c.refused(attest.ReasonPCR, c.reboot(4)), "PCR 14")
	c.handoff()
	require.False(t, c.state.View().Member(4).HoldsShare)

	// In v2, with its counter raised, it is back.
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{4}}))
	c.tpms[4].raise(1)
	c.announce(4)
	c.upgrade(4)
	require.Equal(t, everybody, c.holders())
}

// A TPM that still takes revoked approvals gets its replica no share, whatever else it shows: the
// log says no, and the device would still open.
func TestTPMWithALowerCounterGetsNoShare(t *testing.T) {
	c := upgraded(t)
	c.accepted(c.order(c.revoke("v1")))
	c.execute(1, 2, 3, 4, 6)
	c.announce(5)
	c.tpms[5].boot(v2.PCRs[14])
	c.accepted(c.evidence(5)) // it came up clean, but its counter is not raised
	require.Equal(t, PhaseAttesting, c.phase(), "it may still raise it")
	require.NotContains(t, c.state.View().Eligible, bft.ReplicaID(5))
	c.wait(10 * time.Second)
	c.handoff()
	require.NotContains(t, c.holders(), bft.ReplicaID(5))
}

func TestTPMThatRaisesItsCounterInTime(t *testing.T) {
	c := upgraded(t)
	c.accepted(c.order(c.revoke("v1")))
	c.execute(1, 2, 3, 4, 6)
	c.announce(5)
	c.tpms[5].boot(v2.PCRs[14])
	c.accepted(c.evidence(5))
	c.execute(5)
	require.Equal(t, PhaseDealing, c.phase(), "it waits for nobody else")
	c.handoff()
	require.Contains(t, c.holders(), bft.ReplicaID(5))
}

func TestSharesOfTPMsThatDoNotAnswerEndSoon(t *testing.T) {
	c := upgraded(t)
	c.upgrade(5)
	c.upgrade(6)
	c.accepted(c.order(c.revoke("v1"))) // nobody runs in it
	c.execute(1, 2, 3, 4, 5)
	require.Equal(t, PhaseIdle, c.phase())
	require.NotZero(t, c.state.View().NextRound)
	c.wait(10 * time.Second)
	require.Equal(t, []bft.ReplicaID{6}, c.state.View().Due)
	c.wait(10 * time.Second)
	c.handoff()
	require.Equal(t, without(everybody, 6), c.holders())
	c.block()
	require.Equal(t, PhaseIdle, c.phase())
}

func TestCarelessOperatorIsRefused(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(c.approve(v2)))
	require.Contains(t, c.refused(attest.ReasonOrder, c.order(c.revoke("v1"))), "only 0 replicas", "nobody has shown yet where it runs")
	c.block()
	for _, id := range everybody {
		c.accepted(c.presence(id))
	}
	require.Contains(t, c.refused(attest.ReasonOrder, c.order(c.revoke("v1"))), "upgrade the others first")
	c.upgrade(1)
	c.upgrade(2)
	require.Contains(t, c.refused(attest.ReasonOrder, c.order(c.revoke("v1"))), "only 2 replicas")
	require.Len(t, c.state.View().Approved, 2)
	c.accepted(c.order(c.revoke("v2"))) // the way back: both are due, one after the other
	require.Equal(t, []bft.ReplicaID{1}, c.state.View().Due)
	require.Contains(t, c.refused(attest.ReasonOrder, c.order(c.revoke("v1"))), "the only approved boot state")
	require.Contains(t, c.refused(attest.ReasonOrder, c.order(c.revoke("v3"))), `no boot state "v3"`)
}

func TestARevocationLeavesAQuorumAndNoFewer(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(c.approve(v2)))
	for id := bft.ReplicaID(1); int(id) < c.state.View().Quorum; id++ {
		c.upgrade(id)
	}
	require.Contains(t, c.refused(attest.ReasonOrder, c.order(c.revoke("v1"))), fmt.Sprintf("only %d replicas", c.state.View().Quorum-1))
	c.upgrade(bft.ReplicaID(c.state.View().Quorum))
	c.accepted(c.order(c.revoke("v1")))
}

func TestRevocationInTheMiddleOfARound(t *testing.T) {
	c := upgraded(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{5}}))
	c.accepted(c.reboot(5)) // into v1
	require.Equal(t, PhaseDealing, c.phase())
	_, stale := c.deal(1)
	c.accepted(c.order(c.revoke("v1")))
	require.Equal(t, PhaseAttesting, c.phase(), "its receivers have not shown it, and replica 5 attested what is revoked now")
	require.Empty(t, c.state.View().Attested)
	c.refused(attest.ReasonPhase, stale[0])
	c.execute(everybody...)
	require.Equal(t, PhaseAttesting, c.phase())
	c.tpms[5].boot(v2.PCRs[14])
	c.accepted(c.evidence(5))
	c.handoff()
	require.Equal(t, everybody, c.holders())

	zero := newCluster(t)
	zero.accepted(zero.order(zero.approve(v2)))
	require.Contains(t, zero.refused(attest.ReasonOrder, zero.order(zero.revoke("v1"))), "in epoch 1")
}

// What an intruder held back, made before a revocation, gives nothing after it: neither evidence of
// a boot that was approved then, nor a presence, nor an order that was never ordered.
func TestWhatWasMadeBeforeARevocationIsWorthNothingAfterIt(t *testing.T) {
	c := upgraded(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{5}}))
	approves := c.order(c.approve(attest.ApprovedState{Name: "v1 again", PCRs: map[int]attest.Measurement{7: good7, 14: good14}, MinimumFirmware: 0x10_0000}))
	evidence := c.reboot(5) // into v1
	presence := c.presence(6)
	c.accepted(c.order(c.revoke("v1")))
	require.NotNil(t, c.block(evidence)[0])
	require.Empty(t, c.state.View().Attested)
	c.block(presence)
	require.False(t, c.device(6).RevocationReached)
	require.NotNil(t, c.block(approves)[0], "its number is taken")
	require.Len(t, c.state.View().Approved, 1)
	c.tpms[5].boot(good14)
	require.NotNil(t, c.block(c.evidence(5))[0], "nor does the same boot state with a new quote")
	require.Empty(t, c.state.View().Attested)
}

func TestNoRevocationOfAHandoffThatIsReady(t *testing.T) {
	c := upgraded(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{5}}))
	c.accepted(c.reboot(5))
	_, ops := c.deal(c.dealers()...)
	c.accepted(ops...)
	require.Contains(t, c.refused(attest.ReasonOrder, c.order(c.revoke("v1"))), "give the order again")
}

func TestCounterThatSomebodyRaised(t *testing.T) {
	c := upgraded(t)
	c.tpms[3].raise(7)
	stale := c.approve(c.genesis.Attestation.Approved[0]) // signed before it is known
	c.accepted(c.presence(3))
	require.True(t, c.device(3).Stranded)
	require.True(t, c.device(3).RevocationReached)
	require.Contains(t, c.state.View().Member(3).Status, "`order approve`")
	c.accepted(c.order(stale)) // one that counts on does not spoil the order for the others
	require.True(t, c.device(3).Stranded)

	c.accepted(c.order(c.approve(v2)))
	require.False(t, c.device(3).Stranded)
	require.EqualValues(t, 7, c.device(3).ApprovableVersion)
	require.EqualValues(t, 0, c.device(2).ApprovableVersion)
	approvals := c.state.Approvals(3)
	require.EqualValues(t, 7, approvals[1].State.Version)

	c.accepted(c.order(c.revoke("v1")))
	require.EqualValues(t, 8, c.device(3).RequiredVersion, "beyond all that was ever issued")
	require.EqualValues(t, 1, c.device(2).RequiredVersion)
	require.False(t, c.device(3).RevocationReached)
}

// The counter of replica 3 was raised, and the machine rebooted: it cannot claim its boot, so it
// cannot show it. Its operator reads the value from the device.
func TestCounterOfAReplicaThatCannotShowIt(t *testing.T) {
	c := upgraded(t)
	order := c.approve(v2)
	approvals, err := c.genesis.Approve(rand.Reader, c.approval, &v2, func(id bft.ReplicaID) uint64 {
		if id == 3 {
			return 12
		}
		return 0
	})
	require.NoError(t, err)
	order.State.Approvals = approvals
	c.accepted(c.order(order))
	require.EqualValues(t, 12, c.device(3).ApprovableVersion)
	require.True(t, c.device(3).RevocationReached, "nothing was revoked")
	c.accepted(c.order(c.revoke("v1")))
	require.EqualValues(t, 13, c.device(3).RequiredVersion, "no approval outlasts a revocation")
}

// The counter was raised by tens of thousands: one order follows it. Many orders together do not go
// further than one, so that no TPM is told to count for ever.
func TestCounterThatWasRaisedFar(t *testing.T) {
	c := upgraded(t)
	give := func(version uint64) *Order {
		order := c.approve(v2)
		approvals, err := c.genesis.Approve(rand.Reader, c.approval, &v2, func(id bft.ReplicaID) uint64 {
			if id == 3 {
				return version
			}
			return 0
		})
		require.NoError(t, err)
		order.State.Approvals = approvals
		return c.order(order)
	}
	c.accepted(give(60_000))
	require.EqualValues(t, 60_000, c.device(3).ApprovableVersion)
	c.accepted(give(65_536))
	c.refused(attest.ReasonOrder, give(65_537))
	c.accepted(c.order(c.revoke("v1")))
	require.EqualValues(t, 65_537, c.device(3).RequiredVersion)
	c.accepted(c.order(c.approve(v2)))
}

func TestApprovalsOfAnOrder(t *testing.T) {
	c := upgraded(t)
	for name, bend := range map[string]func(*attest.ApprovedState){
		"no approval for the TPM of replica 2": func(s *attest.ApprovedState) { s.Approvals = append(s.Approvals[:1], s.Approvals[2:]...) },
		"no approval for the TPM of replica 6": func(s *attest.ApprovedState) { s.Approvals = s.Approvals[:5] },
		"not signed by the operator key":       func(s *attest.ApprovedState) { s.Approvals[1].Signature = s.Approvals[0].Signature },
		"has an approval for replica 9": func(s *attest.ApprovedState) {
			s.Approvals = append(s.Approvals, attest.DeviceApproval{Replica: 9, Signature: s.Approvals[0].Signature})
		},
		"it must be 0 to 65536": func(s *attest.ApprovedState) { // a TPM would have to count so far at the next revocation
			approvals, err := c.genesis.Approve(rand.Reader, c.approval, s, func(bft.ReplicaID) uint64 { return 65537 })
			require.NoError(t, err)
			s.Approvals = approvals
		},
	} {
		order := c.approve(attest.ApprovedState{Name: "v3", PCRs: map[int]attest.Measurement{7: good7, 14: {3}}})
		bend(&order.State)
		require.Contains(t, c.refused(attest.ReasonOrder, c.order(order)), name)
	}
	for says, bend := range map[string]func(*RevokeState){
		"renews the approvals of 0":                func(v *RevokeState) { v.Remaining = nil },
		`renews "v1" in its place`:                 func(v *RevokeState) { v.Remaining[0].Name = "v1" },
		"with version 0, and it must be 1 to 1":    func(v *RevokeState) { v.Remaining[0].Approvals = c.approvals(&v2, 0) },
		"with version 100, and it must be 1 to 1:": func(v *RevokeState) { v.Remaining[0].Approvals = c.approvals(&v2, 100) },
	} {
		order := c.revoke("v1")
		bend(order)
		require.Contains(t, c.refused(attest.ReasonOrder, c.order(order)), says)
	}
	require.Len(t, c.state.View().Approved, 2)
	require.EqualValues(t, 0, c.device(1).RequiredVersion)
}

func TestSoManyStatesThatOneOrderRenewsThem(t *testing.T) {
	for _, n := range []int{4, 6, 64, bft.MaxReplicas} {
		g := &Genesis{Members: make([]GenesisMember, n)}
		most := g.mostApproved()
		require.Greater(t, most, 2)
		order := &RevokeState{Name: "old"}
		list := make([]attest.DeviceApproval, n)
		for i := range list {
			list[i] = attest.DeviceApproval{Replica: bft.ReplicaID(i + 1), Signature: make([]byte, approvalSignature)}
		}
		for range most - 1 {
			order.Remaining = append(order.Remaining, RemainingState{"a state with a name of the greatest length that any name may have", list})
		}
		var w writer
		order.encodeBody(&w)
		b, err := w.Result()
		require.NoError(t, err)
		require.Less(t, len(b), MaxOperation-8<<10, "n = %d: %d states", n, most)
	}
}

func TestEvidenceIsKeptForAuditors(t *testing.T) {
	c := inEpoch1(t)
	require.Nil(t, c.state.View().Evidence(3))
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	accepted := c.reboot(3)
	c.accepted(accepted)
	c.handoff()
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.announce(3)
	c.tpms[3].boot(bad14)
	c.refused(attest.ReasonPCR, c.evidence(3))
	kept, err := attest.ParseEvidence(c.state.View().Evidence(3))
	require.NoError(t, err)
	require.Equal(t, accepted.Evidence, kept, "the last that was accepted")
	require.Nil(t, c.state.View().Evidence(99))
}

// Who still runs in a state that was revoked before counts for no quorum of the next revocation,
// though that state is not the one revoked now.
func TestOutlawedReplicasAreNoQuorum(t *testing.T) {
	v3 := attest.ApprovedState{Name: "v3", PCRs: map[int]attest.Measurement{7: good7, 14: {3}}, MinimumFirmware: 0x10_0000}
	c := upgraded(t) // 1 to 4 run v2; 5 and 6 run v1
	c.accepted(c.order(c.approve(v3)))
	for id := bft.ReplicaID(1); id <= 3; id++ {
		c.upgradeTo(id, v3)
	}
	c.accepted(c.order(c.revoke("v1")))
	require.True(t, c.device(5).Outlawed)
	require.Contains(t, c.refused(attest.ReasonOrder, c.order(c.revoke("v2"))), "only 3 replicas")
}

// Who has no share counts for no quorum either, whatever state it runs in.
func TestReplicasWithoutAShareAreNoQuorum(t *testing.T) {
	c := upgraded(t) // 1 to 4 run v2; 5 and 6 run v1
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{1}}))
	c.wait(10 * time.Second)
	c.handoff()
	require.NotContains(t, c.holders(), bft.ReplicaID(1))
	require.Equal(t, "v2", c.device(1).Running)
	require.Contains(t, c.refused(attest.ReasonOrder, c.order(c.revoke("v1"))), "only 3 replicas")
}
