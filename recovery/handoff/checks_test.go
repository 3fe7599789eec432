package handoff

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
)

// attempting gives replicas their attempts at the handoff that is open, without running them.
func attempting(t testing.TB, x *cluster) []*attempt {
	t.Helper()
	var attempts []*attempt
	for _, m := range x.machines {
		a := m.party.wanted(x.View())
		require.NoError(t, m.keeper.Prepare(a.to, a.round, a.epochKey))
		m.party.attempt, a.stop = a, func() {}
		require.NoError(t, a.deal())
		attempts = append(attempts, a)
	}
	return attempts
}

// A dealing is bound to cluster, epoch, round and dealer, and of the cluster's size.
func TestADealingOfAnotherAttemptIsNone(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	x.open(nil)
	a, share := x.machines[3].party.wanted(x.View()), x.machines[0].keeper.now.share
	for name, about := range map[string][]byte{
		"another cluster": dealingContext(bft.ClusterID{9}, a.from, a.round, 1),
		"another epoch":   dealingContext(testCluster, a.from+1, a.round, 1),
		"another round":   dealingContext(testCluster, a.from, a.round+1, 1),
		"another dealer":  dealingContext(testCluster, a.from, a.round, 2),
		"nothing":         nil,
	} {
		dealing, err := threshold.Redeal(rand.Reader, a.params, about, share)
		require.NoError(t, err, name)
		require.Error(t, a.check(1, dealing.Commitment()), name)
	}
	large, err := threshold.Redeal(rand.Reader, threshold.Params{N: 7, T: 5, F: 2}, dealingContext(testCluster, a.from, a.round, 1), share)
	require.NoError(t, err)
	require.Error(t, a.check(1, large.Commitment()), "another size")
}

// A bad acknowledgement is found out once: what its sender says of the dealing afterwards costs
// nothing more, and the others certify it.
func TestAForgerOfAcknowledgementsIsHeardOnce(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	x.open(nil)
	attempts := attempting(t, x)
	dealer := attempts[0]
	acknowledgement := func(by int) []byte {
		_, signer, err := x.machines[by-1].keeper.Scheme(x.Membership())
		require.NoError(t, err)
		ack, err := signer.Sign(dealer.ackMessage)
		require.NoError(t, err)
		return ack
	}
	require.NoError(t, dealer.acknowledged(1, acknowledgement(1)))
	require.NoError(t, dealer.acknowledged(3, acknowledgement(3)))
	require.NoError(t, dealer.acknowledged(2, acknowledgement(4))) // another's is a bad one
	for _, ack := range [][]byte{acknowledgement(4), acknowledgement(2), {}} {
		require.NotContains(t, dealer.acks, bft.ReplicaID(2))
		require.NoError(t, dealer.acknowledged(2, ack))
	}
	require.Len(t, dealer.acks, 2)
	require.False(t, dealer.sent)
	require.NoError(t, dealer.acknowledged(4, acknowledgement(4)))
	require.True(t, dealer.sent)
	require.Equal(t, []bft.ReplicaID{1}, dealersOf(x))
}

// Acknowledgements are made and counted in the epoch of the dealing, come under the member's key,
// and are of bounded size.
func TestWhatIsNoAcknowledgementIsRefused(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	x.open(nil)
	attempts := attempting(t, x)
	dealer := attempts[0]
	say := func(from *transport.Sender, a *attempt, ack []byte) error {
		_, err := x.call(t.Context(), from, 1, methodAcknowledge, a.name(ack...))
		return err
	}
	good := &transport.Sender{ID: 2, EpochKey: x.Membership().Member(2).EpochKey}
	foreign := newKey(t).Public().(ed25519.PublicKey)
	require.Error(t, say(&transport.Sender{ID: 2, EpochKey: foreign}, dealer, []byte{1}), "another key")
	require.Error(t, say(&transport.Sender{ID: 9, EpochKey: foreign}, dealer, []byte{1}), "a stranger")
	require.Error(t, say(good, dealer, make([]byte, maxAcknowledgement+1)), "too large")
	require.Error(t, say(good, &attempt{from: dealer.from, round: dealer.round + 1}, []byte{1}), "another round")
	require.Error(t, say(good, &attempt{from: dealer.from - 1, round: dealer.round}, []byte{1}), "another epoch")
	require.Error(t, say(good, &attempt{from: dealer.from, round: dealer.round - 1}, []byte{1}), "the round before")
	require.Empty(t, dealer.acks)
	require.NoError(t, say(good, dealer, make([]byte, maxAcknowledgement)))
	require.Contains(t, dealer.acks, bft.ReplicaID(2))

	commitment := dealer.dealing.Commitment()
	x.mu.Lock()
	later := *x.membership
	later.Epoch++
	x.membership = &later
	x.mu.Unlock()
	require.ErrorIs(t, attempts[1].acknowledge(t.Context(), 1, commitment), errEpochOver)
	require.ErrorIs(t, dealer.acknowledged(3, []byte{1}), errEpochOver)
}

// What a dealer or a helper answers is for who asked, and from who was asked.
func TestAnswersForOthersAreThrownAway(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	x.open(nil)
	attempts := attempting(t, x)
	dealer, mine := attempts[0], attempts[3]
	for id := 2; id <= 3; id++ {
		require.NoError(t, attempts[id-1].receive(t.Context(), 1))
	}
	commitment := dealer.dealing.Commitment()
	digest := bft.Digest(commitment.Digest())

	x.meddle = func(_, _ bft.ReplicaID, method string, answer []byte, err error) ([]byte, error) {
		if method == methodPart {
			part, err := dealer.dealing.Part(2)
			require.NoError(t, err)
			return answerOf(t, commitment, part.SecretBytes()), nil
		}
		return answer, err
	}
	require.Error(t, mine.receive(t.Context(), 1), "the part of replica 2")
	require.Nil(t, x.machines[3].keeper.has(mine.to, digest))

	point := func(from, to int) []byte {
		part, err := dealer.dealing.Part(from)
		require.NoError(t, err)
		p, err := part.Point(to)
		require.NoError(t, err)
		return p.SecretBytes()
	}
	for name, lie := range map[string][]byte{"another helper's": point(2, 4), "for another": point(3, 1), "none": {}} {
		x.meddle = func(_, to bft.ReplicaID, method string, answer []byte, err error) ([]byte, error) {
			if method == methodPoint && to == 3 {
				return bytes.Clone(lie), nil
			}
			return answer, err
		}
		points := mine.fetchPoints(t.Context(), digest, func([]threshold.Point) bool { return false })
		require.Len(t, points, 1, name)
		require.Equal(t, 2, points[0].From, name)
	}

	other, err := attempts[1].dealing.Commitment().MarshalBinary()
	require.NoError(t, err)
	for liar := bft.ReplicaID(2); liar <= 3; liar++ {
		x.meddle = func(_, to bft.ReplicaID, method string, answer []byte, err error) ([]byte, error) {
			if method == methodCommitment && to == liar {
				return bytes.Clone(other), nil
			}
			return answer, err
		}
		found, err := x.machines[3].party.fetchCommitment(t.Context(), governance.ChosenDealing{Dealer: 1, Commitment: digest})
		require.NoError(t, err)
		require.EqualValues(t, digest, found.Digest())
	}
}

// Parts of another receiver, kept by mistake, make no share of this replica.
func TestAShareOfAnotherIndexIsNone(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	x.open(nil)
	x.follow(x.machines[:3]...)
	m, theirs := x.machines[3], x.machines[2].keeper
	a := m.party.wanted(x.View())
	require.NoError(t, m.keeper.Prepare(a.to, a.round, a.epochKey))
	for _, c := range x.View().Dealings {
		require.NoError(t, theirs.with(c.Commitment, func(d *held) error {
			part, err := threshold.ParsePart(d.part.SecretBytes())
			require.NoError(t, err)
			return m.keeper.keep(&held{to: a.to, round: a.round, commitment: d.commitment, part: part})
		}))
	}
	require.ErrorContains(t, a.complete(t.Context(), x.View().Dealings), "the share of replica 3")
	require.False(t, m.keeper.ready(a.to, a.epochKey))
}

// A share counts in the group that it was made for only.
func TestAShareOfAnotherGroupSignsNothing(t *testing.T) {
	x := newCluster(t, 1, 0)
	now := x.handoff()
	keeper := x.machines[0].keeper
	require.NotNil(t, keeper.Keys(now))
	foreign := *now
	foreign.GroupKey = bytes.Clone(now.GroupKey)
	foreign.GroupKey[5]++
	require.Nil(t, keeper.Keys(&foreign))

	x.open(nil)
	x.follow()
	next := *x.begin()
	next.GroupKey = foreign.GroupKey
	require.NoError(t, keeper.Learn(&next))
	require.Nil(t, keeper.now.share)
	require.Nil(t, keeper.Keys(&next))
}

// Parts belong to one attempt: the next one begins without them, what is void leaves those of
// another alone, and a part that is replaced is wiped.
func TestPartsBelongToOneAttempt(t *testing.T) {
	m := newSolo(t)
	h := m.deal(1)
	require.NoError(t, m.receive(h))
	digest := bft.Digest(h.parts[0].commitment.Digest())
	require.NoError(t, m.keeper.void(1, h.round+1))
	require.NotNil(t, m.keeper.has(1, digest), "another attempt was void")

	old := m.keeper.held[digest]
	again, err := threshold.ParsePart(h.parts[0].part.SecretBytes())
	require.NoError(t, err)
	require.NoError(t, m.keeper.keep(&held{to: 1, round: h.round, commitment: old.commitment, part: again}))
	require.Error(t, old.commitment.VerifyPart(old.part), "what was replaced is wiped")
	require.NoError(t, old.commitment.VerifyPart(again))

	require.NoError(t, m.keeper.Prepare(1, h.round+1, m.key(1)))
	require.Nil(t, m.keeper.has(1, digest), "it is of an attempt that is void")
	require.Error(t, old.commitment.VerifyPart(again))
	late, err := threshold.ParsePart(h.parts[0].part.SecretBytes())
	require.NoError(t, err)
	require.ErrorIs(t, m.keeper.keep(&held{to: 1, round: h.round, commitment: old.commitment, part: late}), errEpochOver)
}

// What fails again and again for the same reason is said once, and another reason too.
func TestTheSameErrorIsSaidOnce(t *testing.T) {
	reasons := []string{"a", "a", "b", "b", "a"}
	var said []string
	try := saying(t.Context(), func() error {
		err := errors.New(reasons[0])
		reasons = reasons[1:]
		return err
	}, func(err error) { said = append(said, err.Error()) })
	for len(reasons) > 0 {
		require.Error(t, try())
	}
	require.Equal(t, []string{"a", "b", "a"}, said)
}
