package governance

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// Each case bends what replica 3 shows after its reboot. Refusals that anybody could have provoked
// in its name leave it pending; the others count against it.
func TestPolicy(t *testing.T) {
	for _, test := range []struct {
		name string
		// prepare bends the world before the evidence is made, bend the challenge, forge the
		// evidence after it was signed.
		prepare func(*cluster)
		bend    func(*cluster, *attest.Challenge)
		forge   func(*cluster, *attest.Evidence)
		reason  attest.Reason
		says    string
	}{
		{name: "clean", reason: attest.ReasonNone},
		{name: "safe is not asked for, suspended in between", prepare: func(c *cluster) { c.tpms[3].ResetCount += 7 }},
		{
			name: "other identity", prepare: func(c *cluster) { c.identities[3] = c.identities[2] },
			reason: attest.ReasonIdentity, says: "not signed by the identity key of replica 3",
		},
		{
			name: "changed after signing", forge: func(_ *cluster, e *attest.Evidence) { e.EpochKey[0] ^= 1 },
			reason: attest.ReasonIdentity,
		},
		{
			name: "another cluster", bend: func(_ *cluster, ch *attest.Challenge) { ch.Cluster[0] ^= 1 },
			reason: attest.ReasonIdentity,
		},
		{
			name: "in another replica's name", bend: func(_ *cluster, ch *attest.Challenge) { ch.Replica = 2 },
			reason: attest.ReasonNotDue, says: "replica 2 is not due",
		},
		{
			name: "no such replica", bend: func(_ *cluster, ch *attest.Challenge) { ch.Replica = 99 },
			reason: attest.ReasonUnknownReplica, says: "no replica 99",
		},
		{
			name: "another round", bend: func(_ *cluster, ch *attest.Challenge) { ch.Round-- },
			reason: attest.ReasonRound, says: "epoch 1, round 1; this is epoch 1, round 2",
		},
		{
			name: "another epoch", bend: func(_ *cluster, ch *attest.Challenge) { ch.Epoch++ },
			reason: attest.ReasonRound,
		},
		{
			name: "anchor from before the round", bend: func(c *cluster, ch *attest.Challenge) { c.anchorAt(ch, c.state.View().Opened-1, bft.Notarize) },
			reason: attest.ReasonStaleAnchor, says: "before the round",
		},
		{
			name: "anchor of another epoch", bend: func(c *cluster, ch *attest.Challenge) { c.tip.Epoch = 0; c.anchorAt(ch, 100, bft.Notarize) },
			reason: attest.ReasonStaleAnchor,
		},
		{
			name: "certificate of another block", bend: func(_ *cluster, ch *attest.Challenge) { ch.Anchor.Height++ },
			reason: attest.ReasonAnchor,
		},
		{
			name: "nullification instead of notarization", bend: func(c *cluster, ch *attest.Challenge) { c.anchorAt(ch, c.tip.Height, bft.Nullify) },
			reason: attest.ReasonAnchor,
		},
		{
			name: "certificate that does not verify", bend: func(c *cluster, ch *attest.Challenge) {
				ch.Certificate.Signature = c.sign([]byte("something else"))
			},
			reason: attest.ReasonCertificate, says: "under the group key",
		},
		{
			name: "certificate that is no signature", bend: func(_ *cluster, ch *attest.Challenge) { ch.Certificate.Signature = make([]byte, 48) },
			reason: attest.ReasonCertificate,
		},
		{
			name: "certificate of another length", bend: func(_ *cluster, ch *attest.Challenge) { ch.Certificate.Signature = nil },
			reason: attest.ReasonCertificate,
		},
		{
			name: "no quote", bend: func(c *cluster, _ *attest.Challenge) { c.tpms[3] = nil },
			reason: attest.ReasonNoQuote, says: "no quote",
		},
		{
			name: "another TPM", bend: func(c *cluster, _ *attest.Challenge) { c.tpms[3] = c.tpms[4] },
			reason: attest.ReasonAttestationKey, says: "not that of the attestation key",
		},
		{
			name: "tampered binary", prepare: func(c *cluster) { c.tpms[3].PCRs[14] = bad14 },
			reason: attest.ReasonPCR, says: `PCR 14 is not approved: it holds ` + capped(bad14).String()[:16] + `..., state "v1" gives`,
		},
		{
			name: "tampered boot loader", prepare: func(c *cluster) { c.tpms[3].PCRs[7] = bad14 },
			reason: attest.ReasonPCR, says: "PCR 7",
		},
		{
			name: "a register is not quoted", prepare: func(c *cluster) { delete(c.tpms[3].PCRs, 7) },
			reason: attest.ReasonPCR, says: "PCR 7 is not in the quote",
		},
		{
			name: "claimed in another register", prepare: func(c *cluster) { c.tpms[3].PCRs[23] = bad14 },
			reason: attest.ReasonUnclaimed, says: "before it was claimed",
		},
		{
			name: "not claimed", prepare: func(c *cluster) { c.tpms[3].Unclaimed = true },
			reason: attest.ReasonUnclaimed, says: "before it was claimed",
		},
		{
			name: "another keystore on the same TPM", prepare: func(c *cluster) { c.tpms[3].Slot = 1 },
			reason: attest.ReasonQuote, says: "slot 1",
		},
		{
			name: "not rebooted", prepare: func(c *cluster) { c.tpms[3].ResetCount-- },
			reason: attest.ReasonNoReboot, says: "still 5",
		},
		{
			name: "cleared", prepare: func(c *cluster) { c.tpms[3].ResetCount = 1 },
			reason: attest.ReasonResetCountFell, says: "fell from 5 to 1",
		},
		{
			name: "old firmware", prepare: func(c *cluster) { c.tpms[3].Firmware = 0xf_ffff },
			reason: attest.ReasonFirmware, says: "older than 0x100000",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := inEpoch1(t)
			c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
			c.announce(3)
			c.tpms[3].boot(good14)
			if test.prepare != nil {
				test.prepare(c)
			}
			challenge := c.challenge(3)
			if test.bend != nil {
				test.bend(c, &challenge)
			}
			e := c.answer(3, challenge)
			if test.forge != nil {
				test.forge(c, e)
			}
			if test.reason == attest.ReasonNone {
				c.accepted(&Attest{e})
				require.Equal(t, []bft.ReplicaID{3}, c.state.View().Attested)
				return
			}
			require.Contains(t, c.refused(test.reason, &Attest{e}), test.says)
			require.Equal(t, test.reason.HeldAgainst(), len(c.state.View().Refused) == 1)
			if !test.reason.HeldAgainst() {
				require.Equal(t, PhaseAttesting, c.phase(), "the replica itself can still attest")
			}
		})
	}
}

// capped is what a register holds after the boot was claimed.
func capped(m attest.Measurement) attest.Measurement {
	return attest.Measurement(keystore.Capped([]keystore.PCRValue{{Digest: m}})[0].Digest)
}

// answer makes evidence for a challenge, bent or not.
func (c *cluster) answer(id bft.ReplicaID, challenge attest.Challenge) *attest.Evidence {
	c.t.Helper()
	public, _ := epochKey(c.t)
	var quote func([]byte) ([]byte, error)
	if tpm := c.tpms[id]; tpm != nil {
		quote = tpm.quote
	}
	e, err := attest.NewEvidence(rand.Reader, challenge, public, c.identities[id], quote)
	require.NoError(c.t, err)
	return e
}

// anchorAt gives a challenge an anchor at another height, or another certificate.
func (c *cluster) anchorAt(challenge *attest.Challenge, height bft.Height, kind bft.VoteKind) {
	h := bft.Header{Epoch: c.tip.Epoch, View: bft.View(height), Height: height, Proposer: 1, Time: c.tip.Time}
	s := bft.Statement{Epoch: h.Epoch, View: h.View, Kind: kind, Block: h.Digest()}
	challenge.Anchor = h
	challenge.Certificate = bft.Certificate{Statement: s, Signature: c.sign(s.Bytes(c.genesis.ClusterID()))}
}

// A replica that comes back may know no certificate but the finalization by which it caught up.
func TestAnchorMayBeAFinalization(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.accepted(c.presence(3))
	c.tpms[3].boot(good14)
	challenge := c.challenge(3)
	c.anchorAt(&challenge, c.tip.Height, bft.Finalize)
	c.accepted(&Attest{c.answer(3, challenge)})
	require.Equal(t, []bft.ReplicaID{3}, c.state.View().Attested)
}

func TestQuoteOfAnotherNonceIsRefused(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.tpms[3].boot(good14)
	public, _ := epochKey(t)
	e, err := attest.NewEvidence(rand.Reader, c.challenge(3), public, c.identities[3], func(nonce []byte) ([]byte, error) {
		nonce[0] ^= 1
		return c.tpms[3].quote(nonce)
	})
	require.NoError(t, err)
	require.Contains(t, c.refused(attest.ReasonNonce, &Attest{e}), "another nonce")
}

func TestEpochKeyMustBeFresh(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.tpms[3].boot(good14)
	e, err := attest.NewEvidence(rand.Reader, c.challenge(3), c.epochKeys[3].Public().(ed25519.PublicKey), c.identities[3], c.tpms[3].quote)
	require.NoError(t, err)
	c.refused(attest.ReasonKeyReused, &Attest{e})
}

func TestNobodyIsRefusedBecauseAnotherClaimsItsKey(t *testing.T) {
	c := inEpoch1(t, size(1, 2))
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3, 4}}))
	c.announce(4)
	owner := c.reboot(3)
	c.tpms[4].boot(good14)
	thief, err := attest.NewEvidence(rand.Reader, c.challenge(4), owner.Evidence.EpochKey, c.identities[4], c.tpms[4].quote)
	require.NoError(t, err)
	c.accepted(&Attest{thief}, owner)
	require.Equal(t, PhaseDealing, c.phase())
}

func TestEvidenceOfAnEarlierRoundIsWorthNothing(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	old := c.reboot(3)
	c.accepted(old)
	c.handoff()
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.refused(attest.ReasonRound, old)
	c.refused(attest.ReasonNoReboot, c.evidence(3))
}

func TestLaterEvidenceOfTheSameRoundCounts(t *testing.T) {
	c := inEpoch1(t, size(1, 2))
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3, 4}}))
	first := c.reboot(3)
	c.accepted(first)
	c.refused(attest.ReasonSuperseded, first) // or whoever has seen it would fill the log with it
	second := c.reboot(3)                     // it crashed and lost its fresh key
	c.accepted(second)
	require.Equal(t, second.Evidence.EpochKey, c.state.Membership().Member(3).NextKey)
	c.refused(attest.ReasonSuperseded, first)
	c.tpms[3].boot(bad14)
	c.refused(attest.ReasonPCR, c.evidence(3))
	require.Equal(t, []bft.ReplicaID{3}, c.state.View().Refused, "its own TPM says that it is no longer clean")
	require.Nil(t, c.state.Membership().Member(3).NextKey)
}

// Whoever was there after a member attested has that key. Named again in the same epoch, it is not
// recovered by it: not at once, not after a refusal, and not when the key was used in between for a
// state that was revoked.
func TestAKeyThatWasAttestedIsNotAttestedAgain(t *testing.T) {
	c := inEpoch1(t, size(1, 2), withoutTPM)
	claim := func(key ed25519.PublicKey) *Attest {
		e, err := attest.NewEvidence(rand.Reader, c.challenge(3), key, c.identities[3], nil)
		require.NoError(t, err)
		return &Attest{e}
	}
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3, 5}})) // whom the round awaits too
	key, _ := epochKey(t)
	c.accepted(claim(key))
	require.Equal(t, key, c.state.Membership().Member(3).NextKey)
	c.refused(attest.ReasonSuperfluous, claim(key)) // the same process was not sure that it was heard
	require.Equal(t, key, c.state.Membership().Member(3).NextKey)

	since := c.state.View().Member(3).Awaited
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3, 5}}))
	require.Greater(t, c.state.View().Member(3).Awaited.Height, since.Height, "it is asked for another restart")
	require.Nil(t, c.state.Membership().Member(3).NextKey, "what it attested before does not count")
	for range 2 {
		c.refused(attest.ReasonKeyReused, claim(key))
	}
	require.Equal(t, []bft.ReplicaID{3}, c.state.View().Refused)
	fresh, private := epochKey(t)
	c.nextKeys[3] = private
	c.accepted(claim(fresh), c.evidence(5))
	c.handoff()
	require.Equal(t, fresh, c.state.Membership().Member(3).EpochKey)
}

func TestWithoutTPMNothingIsAttested(t *testing.T) {
	c := inEpoch1(t, withoutTPM)
	c.accepted(c.order(&StartRound{}))
	c.accepted(c.evidence(1))
	c.handoff()
	m := c.state.View().Member(1)
	require.True(t, m.HoldsShare)
	require.False(t, m.Attested)
	require.EqualValues(t, 1, m.Recoveries)
	require.EqualValues(t, 2, m.RecoveredEpoch)
}

func TestNearestStateIsNamed(t *testing.T) {
	c := inEpoch1(t)
	v2 := attest.ApprovedState{Name: "v2", PCRs: map[int]attest.Measurement{7: {1}, 14: {2}}}
	c.accepted(c.order(c.approve(v2)))
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.tpms[3].boot(attest.Measurement{3})
	require.Contains(t, c.refused(attest.ReasonPCR, c.evidence(3)), `state "v1"`)
}
