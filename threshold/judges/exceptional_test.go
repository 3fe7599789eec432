package judges

import (
	"fmt"
	"math/big"
	"testing"

	gnark "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

func power(base, exponent int64) *big.Int {
	return new(big.Int).Exp(big.NewInt(base), big.NewInt(exponent), nil)
}

// tableExceptions solves, from the construction of the table for the generator of G1 (digits from
// -8 to 7, lowest first), where an addition meets equal points: a sum of lower digits that is
// d*16^w modulo r. It returns the whole scalars.
func tableExceptions() (out []*big.Int) {
	for w := range int64(64) {
		most := new(big.Int).Div(new(big.Int).Mul(big.NewInt(8), new(big.Int).Sub(power(16, w), big.NewInt(1))), big.NewInt(15))
		for d := int64(-8); d < 8; d++ {
			for m := int64(-8); m <= 8; m++ {
				multiple := new(big.Int).Mul(big.NewInt(d), power(16, w))
				sum := new(big.Int).Add(multiple, new(big.Int).Mul(big.NewInt(m), fr.Modulus()))
				if multiple.Sign() == 0 || sum.CmpAbs(most) > 0 {
					continue
				}
				if k := sum.Add(sum, multiple); k.Sign() >= 0 && k.Cmp(fr.Modulus()) < 0 {
					out = append(out, k)
				}
			}
		}
	}
	return out
}

func TestTheTableHasOneExceptionalScalar(t *testing.T) {
	k := new(big.Int).Mul(big.NewInt(14), power(16, 63))
	require.Equal(t, []*big.Int{k.Mod(k, fr.Modulus())}, tableExceptions())
}

// extremeScalars are those at which a window method may meet equal or opposite points, or infinity:
// around multiples of powers of two, for every width of window, and of the powers of z, by which
// blst splits scalars.
func extremeScalars() (out []*big.Int) {
	add := func(k *big.Int) {
		for _, near := range []int64{-1, 0, 1} {
			x := new(big.Int).Add(k, big.NewInt(near))
			out = append(out, x.Mod(x, fr.Modulus()))
		}
	}
	out = append(out, tableExceptions()...)
	for bit := int64(0); bit <= 256; bit += 4 {
		for _, d := range []int64{1, 14, -6} {
			add(new(big.Int).Mul(big.NewInt(d), power(2, bit)))
		}
	}
	for d := int64(2); d < 34; d++ {
		add(new(big.Int).Mul(big.NewInt(d), power(2, 252)))
	}
	z, _ := new(big.Int).SetString("d201000000010000", 16)
	split := big.NewInt(1)
	for range 4 {
		for _, d := range []int64{1, 2, 16, -1, -16} {
			add(new(big.Int).Mul(big.NewInt(d), split))
			add(new(big.Int).Add(new(big.Int).Mul(big.NewInt(d), split), big.NewInt(d)))
		}
		split = new(big.Int).Mul(split, z)
	}
	return out
}

func fieldElement(t testing.TB, k *big.Int) (x curve.Fr) {
	require.NoError(t, x.SetBytes(new(big.Int).Mod(k, fr.Modulus()).FillBytes(make([]byte, 32))))
	return x
}

func want1(k *big.Int) string {
	_, _, base, _ := gnark.Generators()
	b := new(gnark.G1Affine).ScalarMultiplication(&base, k).Bytes()
	return fmt.Sprintf("%x", b)
}

func want2(k *big.Int) string {
	_, _, _, base := gnark.Generators()
	b := new(gnark.G2Affine).ScalarMultiplication(&base, k).Bytes()
	return fmt.Sprintf("%x", b)
}

func got1(p curve.G1) string { return fmt.Sprintf("%x", p.Compress()) }
func got2(p curve.G2) string { return fmt.Sprintf("%x", p.Compress()) }

func TestExtremeScalarsOnEveryPath(t *testing.T) {
	base1, base2 := curve.Generator1(), curve.Generator2()
	for _, k := range extremeScalars() {
		x := fieldElement(t, k)
		one, two := want1(k), want2(k)
		require.Equal(t, one, got1(curve.Mult1(nil, &x)), "fixed base, G1: %x", k)
		require.Equal(t, one, got1(curve.Mult1(&base1, &x)), "any base, G1: %x", k)
		require.Equal(t, two, got2(curve.Mult2(nil, &x)), "fixed base, G2: %x", k)
		require.Equal(t, two, got2(curve.Mult2(&base2, &x)), "any base, G2: %x", k)
		require.Equal(t, one, got1(curve.Sum1([]curve.G1{base1}, []curve.Fr{x})), "sum of one, G1: %x", k)
		require.Equal(t, two, got2(curve.Sum2([]curve.G2{base2}, []curve.Fr{x})), "sum of one, G2: %x", k)
	}
}

// TestSumsOfRelatedPoints has equal, opposite and infinite points with equal, opposite and extreme
// scalars, in every size of multi-scalar multiplication: blst has one method for one point, one up
// to 31 and one beyond.
func TestSumsOfRelatedPoints(t *testing.T) {
	extreme := extremeScalars()
	for _, n := range []int{1, 2, 3, 4, 8, 15, 16, 17, 31, 32, 33, 70} {
		for round := range 8 {
			factors, scalars := make([]curve.Fr, n), make([]curve.Fr, n)
			sum := new(big.Int)
			for i := range factors {
				factor := []*big.Int{big.NewInt(5), big.NewInt(-5), big.NewInt(0), big.NewInt(10)}[(i*(round+1)+round/2)%4]
				scalar := extreme[(i/4+round*31)%len(extreme)]
				if round%2 == 1 {
					scalar = extreme[(i*7+round*97)%len(extreme)]
				}
				factors[i], scalars[i] = fieldElement(t, factor), fieldElement(t, scalar)
				sum.Add(sum, new(big.Int).Mul(factor, scalar))
			}
			sum.Mod(sum, fr.Modulus())
			require.Equal(t, want1(sum), got1(curve.Sum1(curve.Commit1(factors), scalars)), "n=%d", n)
			require.Equal(t, want2(sum), got2(curve.Sum2(curve.Commit2(factors), scalars)), "n=%d", n)
		}
	}
}

func TestAdditionOfEqualAndOppositePoints(t *testing.T) {
	for _, a := range []int64{0, 1, -1, 7} {
		for _, b := range []int64{0, 1, -1, 7, -7} {
			x, y := fieldElement(t, big.NewInt(a)), fieldElement(t, big.NewInt(b))
			p, q := curve.Mult1(nil, &x), curve.Mult1(nil, &y)
			r, s := curve.Mult2(nil, &x), curve.Mult2(nil, &y)
			require.Equal(t, want1(big.NewInt(a+b)), got1(curve.Add1(&p, &q)))
			require.Equal(t, want1(big.NewInt(a-b)), got1(curve.Sub1(&p, &q)))
			require.Equal(t, want2(big.NewInt(a+b)), got2(curve.Add2(&r, &s)))
			require.Equal(t, want2(big.NewInt(a-b)), got2(curve.Sub2(&r, &s)))
		}
	}
}

// TestInterpolationInTheExponentOfRelatedPoints has polynomials with equal, opposite and zero values.
func TestInterpolationInTheExponentOfRelatedPoints(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 31, 32, 64, 65, 70} {
		for _, constant := range []bool{true, false} {
			xs, values := make([]uint16, n), make([]curve.Fr, n)
			want := big.NewInt(0)
			for i := range xs {
				xs[i] = uint16(i + 1)
				values[i] = fieldElement(t, big.NewInt(int64(i+1))) // the polynomial x
				if constant || n == 1 {
					values[i] = fieldElement(t, big.NewInt(9))
					want = big.NewInt(9)
				}
			}
			var c curve.Interpolation
			c.Prepare(xs)
			require.Equal(t, want1(want), got1(c.At0(curve.Commit1(values))), "n=%d", n)
			require.Equal(t, want2(want), got2(c.At0G2(curve.Commit2(values))), "n=%d", n)
		}
	}
}

// TestSumsWithPointsOutsideTheSubgroup: gnark sums points of the whole curve with formulas of its own.
// Points of order three are the ones at which blst's tables fail.
func TestSumsWithPointsOutsideTheSubgroup(t *testing.T) {
	_, _, base, _ := gnark.Generators()
	var gnarkThree, beside gnark.G1Affine
	gnarkThree.Y.SetUint64(2) // (0, 2)
	beside.Add(&base, &gnarkThree)
	encoded := gnarkThree.RawBytes()
	var three curve.G1
	require.Error(t, curve.DecodeG1Full(&three, encoded[:]), "blst decodes no point of order three")
	encoded = beside.RawBytes()
	require.NoError(t, curve.DecodeG1Full(&three, encoded[:]), "but points that differ by one")
	generator := curve.Generator1()
	three = curve.Sub1(&three, &generator)
	for _, n := range []int{1, 2, 3, 8, 31, 32, 40} {
		for _, at := range []int{0, n / 2, n - 1} {
			points, scalars := make([]curve.G1, n), make([]curve.Fr, n)
			var sum gnark.G1Jac
			for i := range points {
				k := big.NewInt(int64(1000*i + 7))
				x := fieldElement(t, k)
				points[i], scalars[i] = curve.Mult1(nil, &x), x
				var p gnark.G1Jac
				p.FromAffine(new(gnark.G1Affine).ScalarMultiplication(&base, k))
				if i == at || i == at+1 {
					points[i] = curve.Add1(&points[i], &three)
					p.AddMixed(&gnarkThree)
				}
				if i == at {
					points[i] = three
					p.FromAffine(&gnarkThree)
				}
				for range 1000*i + 7 { // no endomorphism outside the subgroup
					sum.AddAssign(&p)
				}
			}
			b := new(gnark.G1Affine).FromJacobian(&sum).Bytes()
			require.Equal(t, fmt.Sprintf("%x", b), got1(curve.Sum1(points, scalars)), "n=%d at=%d", n, at)
		}
	}
}
