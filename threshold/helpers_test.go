package threshold

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

func inner(a, b []curve.Fr) (y curve.Fr) {
	y.Inner(a, b)
	return y
}

// testGroup is a sharing with all its shares; shares[i] is that of receiver i+1.
type testGroup struct {
	sharing *Sharing
	shares  []*Share
}

// generate runs key generation among dealers 1..dealers for the receivers of p.
func generate(t testing.TB, p Params, dealers int) *testGroup {
	t.Helper()
	dealings := map[int]*Dealing{}
	for d := 1; d <= dealers; d++ {
		dealing, err := Deal(rand.Reader, p, fmt.Appendf(nil, "epoch 0, dealer %d", d))
		require.NoError(t, err)
		dealings[d] = dealing
	}
	tr, err := KeyGeneration(certified(t, commitments(dealings))...)
	require.NoError(t, err)
	return receive(t, tr, dealings)
}

// reshare has the holders named by dealers deal their shares of g to the receivers of p.
func reshare(t testing.TB, g *testGroup, p Params, dealers []int) *testGroup {
	t.Helper()
	dealings := map[int]*Dealing{}
	for _, d := range dealers {
		dealing, err := Redeal(rand.Reader, p, fmt.Appendf(nil, "epoch n, dealer %d", d), g.shares[d-1])
		require.NoError(t, err)
		dealings[d] = dealing
	}
	tr, err := Resharing(g.sharing, certified(t, commitments(dealings))...)
	require.NoError(t, err)
	return receive(t, tr, dealings)
}

// certify certifies dealings as a quorum would that found nothing wrong.
func certify(dealings map[int]*Commitment) (out []*CertifiedDealing, err error) {
	for dealer, c := range dealings {
		d, err := c.Certify(Certification{Dealer: dealer, Context: c.context, Verify: func(message, certificate []byte) error { return nil }})
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func certified(t require.TestingT, dealings map[int]*Commitment) []*CertifiedDealing {
	out, err := certify(dealings)
	require.NoError(t, err)
	return out
}

func commitments(dealings map[int]*Dealing) map[int]*Commitment {
	out := map[int]*Commitment{}
	for d, dealing := range dealings {
		out[d] = dealing.Commitment()
	}
	return out
}

// receive gives every receiver its verified parts and makes all shares.
func receive(t testing.TB, tr *Transition, dealings map[int]*Dealing) *testGroup {
	t.Helper()
	g := &testGroup{sharing: tr.Sharing()}
	for j := 1; j <= g.sharing.Params().N; j++ {
		parts := map[int]*Part{}
		for d, dealing := range dealings {
			part, err := dealing.Part(j)
			require.NoError(t, err)
			require.NoError(t, dealing.Commitment().VerifyPart(part))
			parts[d] = part
		}
		share, err := tr.Share(parts)
		require.NoError(t, err)
		g.shares = append(g.shares, share)
	}
	return g
}

// sign makes the partial signatures of the receivers with the given indices.
func (g *testGroup) sign(msg []byte, indices ...int) []PartialSignature {
	var out []PartialSignature
	for _, i := range indices {
		out = append(out, g.shares[i-1].Sign(msg))
	}
	return out
}

// upTo is from, ..., to.
func upTo(from, to int) []int {
	var out []int
	for i := from; i <= to; i++ {
		out = append(out, i)
	}
	return out
}

// deal1 is a sharing made by one dealer, who knows the secret: the quick way to a large one.
func deal1(t testing.TB, p Params) *testGroup {
	t.Helper()
	dealing, err := Deal(rand.Reader, Params{N: p.N, T: p.T}, nil)
	require.NoError(t, err)
	tr, err := KeyGeneration(certified(t, map[int]*Commitment{1: dealing.Commitment()})...)
	require.NoError(t, err)
	g := receive(t, tr, map[int]*Dealing{1: dealing})
	return g
}
