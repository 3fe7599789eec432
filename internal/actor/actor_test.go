package actor

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/threshold"
)

func acting(t *testing.T, c Conduct) *Actor {
	file := filepath.Join(t.TempDir(), "conduct.json")
	require.NoError(t, c.Save(file))
	a, err := New(t.Context(), file)
	require.NoError(t, err)
	return a
}

// TestDealsAreWhatTheySay has each way of dealing judged as a receiver would.
func TestDealsAreWhatTheySay(t *testing.T) {
	params := threshold.Params{N: 4, T: 3, F: 1}
	dealing, err := threshold.Deal(rand.Reader, params, []byte("about"))
	require.NoError(t, err)
	commitment, err := dealing.Commitment().MarshalBinary()
	require.NoError(t, err)
	part, err := dealing.Part(2)
	require.NoError(t, err)
	var b cryptobyte.Builder
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(commitment) })
	b.AddBytes(part.SecretBytes())
	answer := b.BytesOrPanic()

	// good says whether a receiver would acknowledge what it got, and of which dealing.
	good := func(answer []byte) (bool, bft.Digest) {
		s := cryptobyte.String(answer)
		var raw cryptobyte.String
		require.True(t, s.ReadUint24LengthPrefixed(&raw))
		c, err := threshold.ParseCommitment(raw)
		if err != nil {
			return false, bft.Digest{}
		}
		p, err := threshold.ParsePart(s)
		return err == nil && c.VerifyPart(p) == nil, c.Digest()
	}
	for deal, acknowledged := range map[Deal]bool{"": true, DealLate: true, DealRow: false, DealWrong: false, DealOther: false} {
		a := acting(t, Conduct{Deals: map[bft.ReplicaID]Deal{2: deal}})
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			got, err := a.deals(t.Context(), 2, answer)
			require.NoError(t, err)
			require.Equal(t, deal == DealLate, time.Since(began) > 0)
			ok, of := good(got)
			require.Equal(t, acknowledged, ok, deal)
			require.Equal(t, deal != DealOther, of == dealing.Commitment().Digest(), deal)
			other, err := a.deals(t.Context(), 3, answer)
			require.NoError(t, err)
			require.Equal(t, answer, other, "who is not named gets what it should")
		})
	}
	_, err = acting(t, Conduct{Deals: map[bft.ReplicaID]Deal{2: DealNothing}}).deals(t.Context(), 2, answer)
	require.ErrorIs(t, err, errNoPart)
}

func TestATwinIsAnotherBlockOfTheViewUnderTheSameKey(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	n := &network{actor: acting(t, Conduct{Equivocate: true}), cluster: bft.Digest{1}, self: 3}
	for range keptKeys - 1 { // credentials of other epochs
		_, other, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		n.wear(tls.Certificate{PrivateKey: other})
	}
	n.wear(tls.Certificate{PrivateKey: private})
	b := &bft.Block{Header: bft.Header{Epoch: 1, View: 5, Height: 2, Proposer: 3, Payload: bft.PayloadDigest([]byte("x"))}, Payload: []byte("x")}
	b.Signature = ed25519.Sign(private, bft.ProposalBytes(n.cluster, b.Digest()))
	frame := bft.MarshalMessage(b)

	require.Equal(t, frame, n.shown(2, frame))
	shown := n.shown(1, frame)
	require.Equal(t, shown, n.shown(5, frame), "the same twin, whoever asks")
	message, err := bft.ParseMessage(shown)
	require.NoError(t, err)
	twin := message.(*bft.Block)
	require.Equal(t, b.View, twin.View)
	require.NotEqual(t, b.Digest(), twin.Digest())
	require.True(t, ed25519.Verify(public, bft.ProposalBytes(n.cluster, twin.Digest()), twin.Signature))

	n.self = 4
	require.Equal(t, frame, n.shown(1, frame), "others' blocks are as they are")
	n.self, n.actor = 3, acting(t, Conduct{})
	require.Equal(t, frame, n.shown(1, frame), "it does so only while it is told to")
}

func TestStepsAreCountedOnce(t *testing.T) {
	var s steps
	require.Equal(t, 1, s.take("a"))
	require.Equal(t, 2, s.take("b"))
	require.Zero(t, s.take("a"))
	require.Equal(t, 3, s.take("c"))
	s.forget()
	require.Equal(t, 1, s.take("c"))
}
