package threshold

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// TestMobileAdversary lets an adversary take the shares of F other receivers in every epoch, until it
// has held far more than T, and every receiver's at some time: it can sign with none of them, and what
// they interpolate to is not the key.
func TestMobileAdversary(t *testing.T) {
	p := Params{N: 7, T: 5, F: 2}
	g := generate(t, p, 3)
	key := g.sharing.GroupKey()
	msg := []byte("forged")
	stolen := map[int]*Share{}
	var partials []PartialSignature
	for epoch := range 4 {
		for k := range p.F {
			victim := (epoch*p.F+k)%p.N + 1
			stolen[victim] = g.shares[victim-1]
			partials = append(partials, g.shares[victim-1].Sign(msg))
		}
		_, _, err := g.sharing.Combine(msg, partials)
		require.ErrorIs(t, err, ErrTooFewPartials, "epoch %d", epoch)
		g = reshare(t, g, p, upTo(epoch%3+1, epoch%3+p.T))
		require.True(t, key.Equal(g.sharing.GroupKey()))
	}
	require.Len(t, stolen, p.N, "a share of everybody")

	var xs []uint16
	var ys []curve.Fr
	for i := 1; i <= p.T; i++ {
		xs, ys = append(xs, uint16(i)), append(ys, stolen[i].copySecret())
	}
	secret := inner(ys, curve.Lagrange(xs, 0))
	require.NotEqual(t, key.point, curve.Mult2(nil, &secret))
	for i, share := range stolen {
		require.ErrorIs(t, g.sharing.CheckShare(share), ErrInconsistent)
		require.ErrorIs(t, g.sharing.VerifyPartial(msg, stolen[i].Sign(msg)), ErrInvalidSignature)
	}
}

// TestSharesOfTwoEpochsDoNotCombine mixes T-1 shares of one epoch with one of the next.
func TestSharesOfTwoEpochsDoNotCombine(t *testing.T) {
	g := generate(t, defaultParams, 2)
	next := reshare(t, g, defaultParams, upTo(1, 4))
	msg := []byte("m")
	mixed := append(g.sign(msg, 1, 2, 3), next.sign(msg, 4)...)
	_, bad, err := g.sharing.Combine(msg, mixed)
	require.ErrorIs(t, err, ErrTooFewPartials)
	require.Equal(t, []int{4}, bad)
	_, bad, err = next.sharing.Combine(msg, mixed)
	require.ErrorIs(t, err, ErrTooFewPartials)
	require.Equal(t, []int{1, 2, 3}, bad)
}

// TestFCorruptedReceiversOfADealing shows what F receivers see of a dealing, and that it leaves the
// secret open: their rows and columns are those of a dealing of any other secret too.
func TestFCorruptedReceiversOfADealing(t *testing.T) {
	d := dealt(t, wideParams)
	// psi(x, y) = (x-1)(x-2)(y-1)(y-2) vanishes on everything that receivers 1 and 2 are given, and is
	// 4 at (0, 0): phi + c*psi deals another secret and looks the same to them.
	factor := make([]curve.Fr, 3)
	factor[0].SetSmall(2)
	factor[1].SetSmall(3)
	factor[1].Neg(&factor[1])
	factor[2].SetSmall(1)
	other := &Dealing{commitment: d.commitment, coefficients: append([]curve.Fr(nil), d.coefficients...)}
	padded := append(append([]curve.Fr(nil), factor...), make([]curve.Fr, wideParams.T-3)...)
	curve.AddOuter(other.coefficients, padded, factor)
	require.False(t, other.coefficients[0].Equal(&d.coefficients[0]))
	for j := 1; j <= wideParams.F; j++ {
		require.True(t, partOf(t, d, j).Equal(partOf(t, other, j)))
	}
	require.False(t, partOf(t, d, 3).Equal(partOf(t, other, 3)))
}
