package judges

import (
	"math/big"
	"slices"
	"testing"

	circl "github.com/cloudflare/circl/ecc/bls12381"
	gnark "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"github.com/stretchr/testify/require"
	"go.dedis.ch/kyber/v3"
	"pgregory.net/rapid"

	"github.com/reseal-bft/reseal/threshold/bls12381"
)

var suite = bls12381.NewSuite(nil)

// scalar draws a scalar, small and extreme ones often.
func scalar(t *rapid.T, label string) (kyber.Scalar, *big.Int) {
	x := new(big.Int)
	switch rapid.IntRange(0, 3).Draw(t, label+" kind") {
	case 0:
		x.SetInt64(rapid.Int64Range(0, 3).Draw(t, label))
	case 1:
		x.Sub(fr.Modulus(), big.NewInt(rapid.Int64Range(1, 3).Draw(t, label)))
	default:
		x.SetBytes(rapid.SliceOfN(rapid.Byte(), 40, 40).Draw(t, label))
		x.Mod(x, fr.Modulus())
	}
	return suite.G1().Scalar().SetBytes(x.Bytes()), x
}

func encoding(t require.TestingT, p kyber.Marshaling) []byte {
	b, err := p.MarshalBinary()
	require.NoError(t, err)
	return b
}

func TestScalarsAgainstBigIntegers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, x := scalar(t, "a")
		b, y := scalar(t, "b")
		is := func(got kyber.Scalar, want *big.Int) {
			require.Equal(t, want.Mod(want, fr.Modulus()).FillBytes(make([]byte, 32)), encoding(t, got))
		}
		is(suite.G1().Scalar().Add(a, b), new(big.Int).Add(x, y))
		is(suite.G1().Scalar().Sub(a, b), new(big.Int).Sub(x, y))
		is(suite.G1().Scalar().Mul(a, b), new(big.Int).Mul(x, y))
		is(suite.G1().Scalar().Neg(a), new(big.Int).Neg(x))
		if y.Sign() != 0 {
			inverse := new(big.Int).ModInverse(y, fr.Modulus())
			is(suite.G1().Scalar().Inv(b), inverse)
			is(suite.G1().Scalar().Div(a, b), new(big.Int).Mul(x, inverse))
		}
	})
}

func TestGroupsAgainstGnarkAndCircl(t *testing.T) {
	_, _, base1, base2 := gnark.Generators()
	rapid.Check(t, func(t *rapid.T) {
		a, x := scalar(t, "a")
		b, y := scalar(t, "b")
		sum := new(big.Int).Add(x, y)

		p, q := suite.G1().Point().Mul(a, nil), suite.G1().Point().Mul(b, nil)
		want1 := func(got kyber.Point, k *big.Int) {
			b := new(gnark.G1Affine).ScalarMultiplication(&base1, k).Bytes()
			require.Equal(t, b[:], encoding(t, got))
			require.Equal(t, circlG1(k).BytesCompressed(), encoding(t, got))
		}
		want1(p, x)
		want1(suite.G1().Point().Add(p, q), sum)
		want1(suite.G1().Point().Sub(p, q), new(big.Int).Sub(x, y))
		want1(suite.G1().Point().Neg(p), new(big.Int).Neg(x))
		want1(suite.G1().Point().Mul(b, p), new(big.Int).Mul(x, y))

		r, s := suite.G2().Point().Mul(a, nil), suite.G2().Point().Mul(b, nil)
		want2 := func(got kyber.Point, k *big.Int) {
			b := new(gnark.G2Affine).ScalarMultiplication(&base2, k).Bytes()
			require.Equal(t, b[:], encoding(t, got))
			require.Equal(t, circlG2(k).BytesCompressed(), encoding(t, got))
		}
		want2(r, x)
		want2(suite.G2().Point().Add(r, s), sum)
		want2(suite.G2().Point().Sub(r, s), new(big.Int).Sub(x, y))
		want2(suite.G2().Point().Neg(r), new(big.Int).Neg(x))
		want2(suite.G2().Point().Mul(b, r), new(big.Int).Mul(x, y))

		one, err := gnark.Pair([]gnark.G1Affine{base1}, []gnark.G2Affine{base2})
		require.NoError(t, err)
		e := new(gnark.GT).Exp(one, new(big.Int).Mod(new(big.Int).Mul(x, y), fr.Modulus()))
		require.Equal(t, gnarkGT(e), encoding(t, suite.Pair(p, s)))
		require.Equal(t, gnarkGT(e), encoding(t, suite.GT().Point().Mul(b, suite.Pair(p, suite.G2().Point().Base()))))
	})
}

func circlScalar(k *big.Int) *circl.Scalar {
	s := new(circl.Scalar)
	s.SetBytes(new(big.Int).Mod(k, fr.Modulus()).Bytes())
	return s
}

func circlG1(k *big.Int) *circl.G1 {
	p := new(circl.G1)
	p.ScalarMult(circlScalar(k), circl.G1Generator())
	return p
}

func circlG2(k *big.Int) *circl.G2 {
	p := new(circl.G2)
	p.ScalarMult(circlScalar(k), circl.G2Generator())
	return p
}

// gnarkGT is an element as our suite encodes it: gnark's twelve coordinates in the opposite order.
func gnarkGT(e *gnark.GT) []byte {
	b := e.Bytes()
	var out []byte
	for chunk := range slices.Chunk(b[:], 48) {
		out = append(bytesOf(chunk), out...)
	}
	return out
}

func bytesOf(b []byte) []byte { return append([]byte(nil), b...) }

func TestHashToCurveAgainstGnarkAndCircl(t *testing.T) {
	const dst = "BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
	rapid.Check(t, func(t *rapid.T) {
		msg := rapid.SliceOf(rapid.Byte()).Draw(t, "message")
		got := encoding(t, suite.G1().Point().(interface{ Hash([]byte) kyber.Point }).Hash(msg))
		p, err := gnark.HashToG1(msg, []byte(dst))
		require.NoError(t, err)
		want := p.Bytes()
		require.Equal(t, want[:], got)
		var q circl.G1
		q.Hash(msg, []byte(dst))
		require.Equal(t, q.BytesCompressed(), got)
	})
}

// TestExceptionalScalars: the scalars at which a window method that is not complete adds equal or
// opposite points (see the same in package curve), and their neighbours: the fixed base and the
// general multiplication give gnark's products, in both groups.
func TestExceptionalScalars(t *testing.T) {
	_, _, g1, g2 := gnark.Generators()
	for _, window := range []uint{0, 4, 5, 248, 250, 251, 252, 253, 254} {
		for d := int64(-32); d <= 32; d++ {
			for off := int64(-1); off <= 1; off++ {
				x := new(big.Int).Lsh(big.NewInt(d), window)
				x.Add(x, big.NewInt(off)).Mod(x, fr.Modulus())
				k := suite.G1().Scalar().SetBytes(x.Bytes())
				var want1 gnark.G1Affine
				var want2 gnark.G2Affine
				raw1, raw2 := want1.ScalarMultiplication(&g1, x).Bytes(), want2.ScalarMultiplication(&g2, x).Bytes()
				require.Equal(t, raw1[:], encoding(t, suite.G1().Point().Mul(k, nil)), "%x times the generator of G1", x)
				require.Equal(t, raw1[:], encoding(t, suite.G1().Point().Mul(k, suite.G1().Point().Base())), "%x times a point of G1", x)
				require.Equal(t, raw2[:], encoding(t, suite.G2().Point().Mul(k, nil)), "%x times the generator of G2", x)
				require.Equal(t, raw2[:], encoding(t, suite.G2().Point().Mul(k, suite.G2().Point().Base())), "%x times a point of G2", x)
			}
		}
	}
}
