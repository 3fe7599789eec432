package threshold

import (
	"crypto/rand"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// clusterParams draws the numbers of a cluster with f Byzantine and c absent replicas.
func clusterParams(t *rapid.T, label string) Params {
	f := rapid.IntRange(0, 2).Draw(t, label+" f")
	c := rapid.IntRange(0, 2).Draw(t, label+" c")
	return Params{N: 3*f + 2*c + 1, T: 2*f + c + 1, F: f}
}

// subset draws k of the indices 1..n, in any order.
func subset(t *rapid.T, label string, n, k int) []int {
	return rapid.Permutation(upTo(1, n)).Draw(t, label)[:k]
}

// quickGroup is a sharing made by one dealer, as deal1, inside a property.
func quickGroup(t *rapid.T, p Params) *testGroup {
	dealing, err := Deal(rand.Reader, Params{N: p.N, T: p.T}, nil)
	require.NoError(t, err)
	tr, err := KeyGeneration(certified(t, map[int]*Commitment{1: dealing.Commitment()})...)
	require.NoError(t, err)
	g := &testGroup{sharing: tr.Sharing()}
	for j := 1; j <= p.N; j++ {
		part, err := dealing.Part(j)
		require.NoError(t, err)
		share, err := tr.Share(map[int]*Part{1: part})
		require.NoError(t, err)
		g.shares = append(g.shares, share)
	}
	return g
}

func TestAnyTMakeTheSameSignature(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := clusterParams(t, "cluster")
		g := quickGroup(t, p)
		msg := rapid.SliceOf(rapid.Byte()).Draw(t, "message")
		first, _, err := g.sharing.Combine(msg, g.sign(msg, subset(t, "first", p.N, p.T)...))
		require.NoError(t, err)
		second, _, err := g.sharing.Combine(msg, g.sign(msg, subset(t, "second", p.N, p.T)...))
		require.NoError(t, err)
		require.Equal(t, first, second)
		require.NoError(t, g.sharing.GroupKey().Verify(msg, first))
	})
}

// TestFewerThanTMakeNothing shows that T-1 partial signatures are refused, and that T-1 shares are
// consistent with every secret: there is a polynomial through them and any value at zero.
func TestFewerThanTMakeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := clusterParams(t, "cluster")
		g := quickGroup(t, p)
		msg := []byte("m")
		holders := subset(t, "holders", p.N, p.T-1)
		_, _, err := g.sharing.Combine(msg, g.sign(msg, holders...))
		require.ErrorIs(t, err, ErrTooFewPartials)
		twice := append(g.sign(msg, holders...), g.sign(msg, holders...)...)
		_, _, err = g.sharing.Combine(msg, twice)
		require.ErrorIs(t, err, ErrTooFewPartials)

		xs, ys := []uint16{MaxReceivers + 1}, make([]curve.Fr, 1) // the last point steers the value at zero
		for _, i := range holders {
			xs, ys = append(xs, uint16(i)), append(ys, g.shares[i-1].copySecret())
		}
		var wanted curve.Fr
		require.NoError(t, wanted.SetRandom(rand.Reader))
		weights := curve.Lagrange(xs, 0)
		rest := inner(ys[1:], weights[1:])
		ys[0].Sub(&wanted, &rest)
		weights[0].Inverse(&weights[0])
		ys[0].Mul(&ys[0], &weights[0])
		got := curve.Interpolate(xs, ys)[0]
		require.True(t, got.Equal(&wanted))
	})
}

// TestCombineNamesExactlyTheBad spoils random partial signatures in random ways.
func TestCombineNamesExactlyTheBad(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := clusterParams(t, "cluster")
		g := quickGroup(t, p)
		msg := []byte("m")
		spoiled := subset(t, "spoiled", p.N, rapid.IntRange(0, p.N).Draw(t, "how many"))
		ps := g.sign(msg, rapid.Permutation(upTo(1, p.N)).Draw(t, "order")...)
		for i := range ps {
			if slices.Contains(spoiled, ps[i].Index) {
				ps[i].Signature = spoil(t, g, ps[i])
			}
		}
		sig, bad, err := g.sharing.Combine(msg, ps)
		slices.Sort(spoiled)
		if p.N-len(spoiled) < p.T {
			require.ErrorIs(t, err, ErrTooFewPartials)
			require.Equal(t, spoiled, bad)
			return
		}
		require.NoError(t, err)
		require.NoError(t, g.sharing.GroupKey().Verify(msg, sig))
		if bad != nil {
			require.Equal(t, spoiled, bad)
		}
	})
}

// spoil returns a signature that does not verify in the place of p.
func spoil(t *rapid.T, g *testGroup, p PartialSignature) Signature {
	share := g.shares[p.Index-1]
	switch rapid.IntRange(0, 4).Draw(t, "how spoiled") {
	case 0:
		return Signature{}
	case 1:
		return share.Sign([]byte("another message")).Signature
	case 2:
		return Signature{0xc0} // infinity
	case 3:
		other := &Share{index: p.Index, secret: share.copySecret()}
		other.secret.Neg(&other.secret)
		return other.Sign([]byte("m")).Signature
	}
	flipped := p.Signature
	flipped[rapid.IntRange(0, SignatureLen-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
	return flipped
}

// TestResharingKeepsTheKey goes from any cluster to any other, with parts that some receivers missed.
func TestResharingKeepsTheKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := clusterParams(t, "from"), clusterParams(t, "to")
		g := quickGroup(t, from)
		dealings, public := map[int]*Dealing{}, map[int]*Commitment{}
		for _, d := range subset(t, "dealers", from.N, from.T) {
			dealing, err := Redeal(rand.Reader, to, []byte{byte(d)}, g.shares[d-1])
			require.NoError(t, err)
			dealings[d], public[d] = dealing, dealing.Commitment()
		}
		tr, err := Resharing(g.sharing, certified(t, public)...)
		require.NoError(t, err)
		require.True(t, tr.Sharing().GroupKey().Equal(g.sharing.GroupKey()))

		receiver := rapid.IntRange(1, to.N).Draw(t, "receiver")
		parts := map[int]*Part{}
		for d, dealing := range dealings {
			if rapid.Bool().Draw(t, "missed") {
				parts[d] = completed(t, dealing, receiver, subset(t, "helpers", to.N, to.F+1))
				continue
			}
			part, err := dealing.Part(receiver)
			require.NoError(t, err)
			parts[d] = part
		}
		share, err := tr.Share(parts)
		require.NoError(t, err)
		require.NoError(t, tr.Sharing().VerifyPartial([]byte("m"), share.Sign([]byte("m"))))
	})
}

// completed is a receiver's part, computed from the points that helpers hold for it.
func completed(t *rapid.T, dealing *Dealing, receiver int, helpers []int) *Part {
	var points []Point
	for _, h := range helpers {
		part, err := dealing.Part(h)
		require.NoError(t, err)
		point, err := part.Point(receiver)
		require.NoError(t, err)
		points = append(points, point)
	}
	part, bad, err := dealing.Commitment().Complete(receiver, points)
	require.NoError(t, err)
	require.Empty(t, bad)
	return part
}
