package threshold

import (
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// orderThree is (0, 2), of order three. blst decodes it nowhere; the difference of two points that
// it decodes it is all the same: the generator plus (0, 2), computed here with big integers, and
// the generator.
func orderThree(t *testing.T) curve.G1 {
	t.Helper()
	p, _ := new(big.Int).SetString("1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab", 16)
	generator := curve.Generator1()
	encoded := generator.Serialize()
	x, y := new(big.Int).SetBytes(encoded[:48]), new(big.Int).SetBytes(encoded[48:])
	slope := new(big.Int).Sub(y, big.NewInt(2))
	slope.Mul(slope, new(big.Int).ModInverse(x, p))
	x3 := new(big.Int).Mul(slope, slope)
	x3.Sub(x3, x).Mod(x3, p)
	y3 := new(big.Int).Mul(slope, x3)
	y3.Neg(y3).Sub(y3, big.NewInt(2)).Mod(y3, p)
	var sum curve.G1
	require.NoError(t, curve.DecodeG1Full(&sum, append(x3.FillBytes(make([]byte, 48)), y3.FillBytes(make([]byte, 48))...)))
	return curve.Sub1(&sum, &generator)
}

// TestDealerAddsAPointOfOrderThree: a dealer chooses its polynomial so that one coefficient of a
// victim's row is zero, and adds a point of order three to the commitment there, so that the
// commitment to the victim's row has one alone. Sums over it must come out right all the same: or
// the points of the correct would be taken for lies as soon as one liar is among them.
func TestDealerAddsAPointOfOrderThree(t *testing.T) {
	three := orderThree(t)
	for _, p := range []Params{defaultParams, {N: 7, T: 5, F: 2}, {N: 16, T: 11, F: 5}, {N: 40, T: 27, F: 13}} {
		const liar, victim = 1, 4
		d := dealt(t, p)
		var value curve.Fr // the victim's coefficient of y, which becomes zero
		value.Eval(d.coefficients[1:], p.rows(), p.columns(), victim)
		d.coefficients[1].Sub(&d.coefficients[1], &value)
		honest := commit(p, nil, d.coefficients)
		matrix := append([]curve.G1(nil), honest.matrix...)
		matrix[1] = curve.Add1(&matrix[1], &three)
		raw, err := newCommitment(p, nil, matrix, honest.shares).MarshalBinary()
		require.NoError(t, err)
		c, err := ParseCommitment(raw)
		require.NoError(t, err)
		require.NoError(t, c.Verify())

		var points []Point
		for from := 1; from <= p.F+2; from++ {
			part := partOf(t, d, from)
			require.NoError(t, c.VerifyPart(part))
			point, err := part.Point(victim)
			require.NoError(t, err)
			if from == liar {
				point.value.Add(point.value, point.value)
			}
			points = append(points, point)
		}
		part, bad, err := c.Complete(victim, points)
		require.NoError(t, err, "F=%d", p.F)
		require.Equal(t, []int{liar}, bad)
		require.True(t, part.row[0].Equal(&partOf(t, d, victim).row[0]))
	}
}
