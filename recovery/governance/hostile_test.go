package governance

import (
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/attest"
)

func TestHostileDealings(t *testing.T) {
	for _, c := range []*cluster{newCluster(t), inEpoch1(t)} {
		c.block()
		if c.sharing != nil {
			_, early := c.deal(1)
			c.refused(attest.ReasonPhase, early[0])
			c.accepted(c.order(&StartRound{}))
			c.accepted(c.reboot(1))
		}
		_, ops := c.deal(1, 2)
		good := *ops[0].(*Dealing)
		for reason, bend := range map[attest.Reason]func(*Dealing){
			attest.ReasonRound:          func(d *Dealing) { d.Round-- },
			attest.ReasonUnknownReplica: func(d *Dealing) { d.Dealer = 7 },
			attest.ReasonCertificate:    func(d *Dealing) { d.Commitment[0] ^= 1 },
			attest.ReasonMalformed:      func(d *Dealing) { d.PublicKey = [PublicKeySize]byte{0xc0} },
		} {
			d := good
			bend(&d)
			c.refused(reason, &d)
		}
		for _, certificate := range [][]byte{nil, make([]byte, 48), make([]byte, MaxCertificate), good.Certificate[:len(good.Certificate)-1]} {
			d := good
			d.Certificate = certificate
			c.refused(attest.ReasonCertificate, &d)
		}
		stolen := good // another replica's certificate
		stolen.Dealer = 3
		c.refused(attest.ReasonCertificate, &stolen)

		c.accepted(&good)
		c.refused(attest.ReasonSuperfluous, &good)
		_, again := c.deal(1)
		c.refused(attest.ReasonSuperfluous, again[0])
		require.Len(t, c.state.View().Dealings, 1)

		_, more := c.deal(3, 4)
		c.accepted(ops[1], more[0], more[1])
		_, late := c.deal(5)
		c.refused(attest.ReasonSuperfluous, late[0])
	}
}

// More than f Byzantine replicas would be needed to certify this; even then the group key is not lost.
func TestDealingsThatWouldLoseTheGroupKeyAreNotCombined(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{}))
	c.accepted(c.reboot(1))
	round := c.state.View().Round
	_, ops := c.deal(1, 2, 3, 4)
	wrong, other := ops[3].(*Dealing), ops[2].(*Dealing)
	wrong.PublicKey = other.PublicKey
	wrong.Certificate = c.sign(wrong.Statement(c.genesis.ClusterID()))
	c.accepted(ops...)
	require.Equal(t, PhaseDealing, c.phase())
	require.Equal(t, round+1, c.state.View().Round)
	require.EqualValues(t, 1, c.state.View().Counts.DealingsRestarted)
	c.handoff()
}

func TestReplicaWithoutAShareCannotDeal(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{2}}))
	c.wait(10 * time.Second)
	c.handoff()
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{3}}))
	c.accepted(c.reboot(3))
	_, ops := c.deal(1)
	d := ops[0].(*Dealing)
	d.Dealer = 2
	d.Certificate = c.sign(d.Statement(c.genesis.ClusterID()))
	c.refused(attest.ReasonDealer, d)
}

// equivocate signs two headers of one view.
func (c *cluster) equivocate(id bft.ReplicaID) *Accuse {
	a := bft.Header{Epoch: c.state.Membership().Epoch, View: 9, Height: 9, Proposer: id}
	b := a
	b.Time = 1
	sign := func(h bft.Header) bft.SignedHeader {
		return bft.SignedHeader{Header: h, Signature: ed25519.Sign(c.epochKeys[id], bft.ProposalBytes(c.genesis.ClusterID(), h.Digest()))}
	}
	return &Accuse{bft.Evidence{A: sign(a), B: sign(b)}}
}

func TestEquivocatorRecoversFirst(t *testing.T) {
	c := inEpoch1(t)
	proof := c.equivocate(4)
	c.accepted(proof)
	require.Equal(t, PhaseAttesting, c.phase(), "a round opens at once")
	require.Equal(t, []bft.ReplicaID{4}, c.state.View().Due)
	c.refused(attest.ReasonSuperfluous, proof)
	c.accepted(c.reboot(4))
	c.handoff()
	require.False(t, c.state.View().Member(4).Accused)
	c.refused(attest.ReasonAccusation, proof) // it was signed with the key that the replica had before
	require.Equal(t, PhaseIdle, c.phase())
}

func TestAccusedDuringARoundIsDueInTheNext(t *testing.T) {
	c := inEpoch1(t)
	c.accepted(c.order(&StartRound{Due: []bft.ReplicaID{1}}))
	c.accepted(c.equivocate(4))
	require.Equal(t, []bft.ReplicaID{1}, c.state.View().Due)
	c.accepted(c.reboot(1))
	c.handoff()
	require.NotContains(t, c.state.Membership().Leaders, bft.ReplicaID(4))
	c.block()
	require.Equal(t, []bft.ReplicaID{4}, c.state.View().Due, "the next round opens with the first block")
	c.wait(10 * time.Second)
	c.handoff()
	require.False(t, c.state.View().Member(4).HoldsShare)
	c.refused(attest.ReasonSuperfluous, c.equivocate(4)) // old proofs cannot open round after round
	c.block()
	require.Equal(t, PhaseIdle, c.phase())
}

func TestOneThatEquivocatesAgainAndAgainDoesNotKeepTheOthersFromTheirTurn(t *testing.T) {
	c := inEpoch1(t, interval(time.Minute))
	due := map[bft.ReplicaID]int{}
	for range 14 {
		if !c.state.View().Member(4).Accused {
			c.accepted(c.equivocate(4))
		}
		if c.phase() == PhaseIdle {
			c.block()
		}
		require.Equal(t, PhaseAttesting, c.phase(), "rounds follow each other at once")
		id := c.state.View().Due[0]
		due[id]++
		c.accepted(c.reboot(id))
		c.handoff()
		c.tip.Time += time.Minute.Milliseconds()
	}
	require.Len(t, due, 6)
	require.LessOrEqual(t, due[4], 8, "every other round")
}

func TestHostileAccusations(t *testing.T) {
	c := inEpoch1(t)
	for name, bend := range map[string]func(a, b *bft.SignedHeader){
		"the same header twice": func(a, b *bft.SignedHeader) { *b = *a },
		"another view":          func(_, b *bft.SignedHeader) { b.View++ },
		"another epoch":         func(_, b *bft.SignedHeader) { b.Epoch++ },
		"another proposer":      func(_, b *bft.SignedHeader) { b.Proposer++ },
		"a bad signature":       func(_, b *bft.SignedHeader) { b.Signature[5] ^= 1 },
		"in another's name":     func(a, b *bft.SignedHeader) { a.Proposer, b.Proposer = 2, 2 },
	} {
		t.Run(name, func(t *testing.T) {
			proof := c.equivocate(4)
			bend(&proof.Evidence.A, &proof.Evidence.B)
			c.refused(attest.ReasonAccusation, proof)
		})
	}
	// An honest leader proposes in many views, and signs in the next epoch with the key that it has
	// if it was not due: that is no equivocation.
	for name, bend := range map[string]func(b *bft.SignedHeader){
		"of the next view":  func(b *bft.SignedHeader) { b.View++ },
		"of the next epoch": func(b *bft.SignedHeader) { b.Epoch++ },
	} {
		t.Run("two good proposals, one "+name, func(t *testing.T) {
			proof := c.equivocate(4)
			b := &proof.Evidence.B
			bend(b)
			b.Signature = ed25519.Sign(c.epochKeys[4], bft.ProposalBytes(c.genesis.ClusterID(), b.Digest()))
			c.refused(attest.ReasonAccusation, proof)
		})
	}
	proof := c.equivocate(4)
	proof.Evidence.A.Proposer, proof.Evidence.B.Proposer = 50, 50
	c.refused(attest.ReasonUnknownReplica, proof)
	require.Equal(t, PhaseIdle, c.phase())
}

func TestMalformedOperationsChangeNothing(t *testing.T) {
	c := inEpoch1(t)
	root := c.state.Root()
	for _, data := range [][]byte{nil, {0}, {1}, {2, 1, 2, 3}, {3, 0}, {99}, make([]byte, MaxOperation+1), append([]byte{1, 0xff, 0xff}, make([]byte, 1<<16)...)} {
		r := c.raw(bft.Operation{Data: data})[0]
		require.Equal(t, attest.ReasonMalformed, r.Reason)
	}
	require.Equal(t, root, c.state.Root())
}

func TestTooLargeIsRefusedBeforeItIsSent(t *testing.T) {
	c := inEpoch1(t)
	e := c.evidence(1)
	e.Evidence.Quote = make([]byte, attest.MaxEvidence)
	_, err := Encode(e)
	require.Error(t, err)
	_, err = Encode(&Dealing{Dealer: 1, Certificate: make([]byte, MaxCertificate+1)})
	require.Error(t, err)
	_, err = Encode(&Dealing{Dealer: 1, Certificate: make([]byte, 1<<16)})
	require.Error(t, err)
}
