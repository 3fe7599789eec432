package governance

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/attest"
)

func TestPresenceIsNotedAndCannotBeReplayed(t *testing.T) {
	c := inEpoch1(t)
	c.block()
	p := c.presence(3)
	c.accepted(p)
	d := c.state.View().Member(3).Device
	require.Equal(t, "v1", d.Running)
	require.EqualValues(t, 5, d.ResetCount)
	require.Equal(t, p.Presence.Anchor.Height, d.ShownAt)
	require.False(t, d.Outlawed)
	c.refused(attest.ReasonSuperseded, p)
	require.Contains(t, c.refused(attest.ReasonSuperfluous, c.presence(3)), "has shown this already")
	require.Equal(t, p.Presence.Anchor.Height, c.state.View().Member(3).Device.ShownAt, "what is refused changes nothing")

	held := c.presence(4) // by an intruder, for later
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{4}}))
	c.accepted(c.reboot(4))
	c.handoff()
	c.refused(attest.ReasonSuperseded, held)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	stale := *held
	stale.Presence.Replica = 3
	c.refused(attest.ReasonIdentity, &stale)
}

func TestPresenceOfAnEarlierRoundProvesNoReset(t *testing.T) {
	c := inEpoch1(t)
	c.block()
	before := c.presence(3) // count 5, held back
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	require.Less(t, before.Presence.Anchor.Height, c.state.View().Member(3).Awaited.Height)
	c.accepted(before)
	require.False(t, c.state.View().Member(3).Awaited.Shown, "its anchor is from before the round")
	c.tpms[3].boot(good14)
	require.Contains(t, c.refused(attest.ReasonNoReboot, c.evidence(3)), "reboot it now")
	require.Contains(t, c.state.View().Member(3).Status, "reboot it now")
	// It is mended within the round.
	c.accepted(c.presence(3))
	require.True(t, c.state.View().Member(3).Awaited.Shown)
	c.tpms[3].boot(good14)
}

func TestPresenceOfAnotherEpochIsRefused(t *testing.T) {
	c := inEpoch1(t)
	c.block()
	held := c.presence(5)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.accepted(c.reboot(3))
	c.handoff()
	c.block()
	c.refused(attest.ReasonRound, held)
}

func TestNobodyShowsAnothersBoot(t *testing.T) {
	c := inEpoch1(t)
	c.block()
	forged, err := attest.NewPresence(rand.Reader, c.challenge(3), c.identities[2], c.tpms[2].quote)
	require.NoError(t, err)
	c.refused(attest.ReasonIdentity, &Present{forged})
	forged, err = attest.NewPresence(rand.Reader, c.challenge(3), c.identities[3], c.tpms[2].quote)
	require.NoError(t, err)
	c.refused(attest.ReasonAttestationKey, &Present{forged})
	forged, err = attest.NewPresence(rand.Reader, c.challenge(3), c.identities[3], nil)
	require.NoError(t, err)
	c.refused(attest.ReasonNoQuote, &Present{forged})

	e := c.evidence(3).Evidence // the quote of evidence answers another nonce
	crossed, err := attest.NewPresence(rand.Reader, c.challenge(3), c.identities[3], func([]byte) ([]byte, error) { return e.Quote, nil })
	require.NoError(t, err)
	c.refused(attest.ReasonNonce, &Present{crossed})
	require.Zero(t, c.state.View().Member(3).Device.ShownAt)
}

func TestRebootMustComeAfterTheReplicaBecameDue(t *testing.T) {
	c := inEpoch1(t)
	c.tpms[3].boot(good14) // for another reason, before
	c.wait(time.Hour)
	c.tpms[3].since = time.Hour
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.refused(attest.ReasonNoReboot, c.evidence(3))
}

func TestReplicaThatWasDownIsJudgedByTime(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.wait(6 * time.Second)
	c.tpms[3].boot(good14)
	c.tpms[3].since = 3 * time.Second
	c.accepted(c.evidence(3))
}

func TestQuickRebootAfterItWasShown(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.accepted(c.presence(3))
	c.refused(attest.ReasonNoReboot, c.evidence(3))
	c.accepted(c.order(&StartRound{})) // the round begins again, and asks for no second reboot
	c.tpms[3].boot(good14)
	c.accepted(c.evidence(3))
}

// A replica that attested and is due again in the same epoch owes another reboot.
func TestDueAgainIsDueAnew(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.accepted(c.reboot(3))
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	require.False(t, c.state.View().Member(3).Awaited.Shown)
	c.refused(attest.ReasonNoReboot, c.evidence(3))
}
