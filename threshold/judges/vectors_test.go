package judges

import (
	"encoding/json"
	"math/big"
	"os"
	"testing"

	gnark "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/threshold"
)

type transition struct {
	N, T, F  int
	Dealings []struct {
		Dealer       int
		Coefficients []string
		Commitment   string
		Parts        []string
	}
	GroupKey string
	Shares   []string
}

// TestVectorsAgainstGnark computes the published vectors again with gnark's arithmetic alone: points of
// commitments, parts, shares, group key, partial signatures and their combination.
func TestVectorsAgainstGnark(t *testing.T) {
	b, err := os.ReadFile("../testdata/vectors.json")
	require.NoError(t, err)
	var v struct {
		KeyGeneration, Resharing transition
		Signing                  []struct {
			Message, Signature string
			Partials           []string
		}
	}
	require.NoError(t, json.Unmarshal(b, &v))
	for _, tr := range []transition{v.KeyGeneration, v.Resharing} {
		checkDealings(t, tr)
	}
	weights := make([]fr.Element, len(v.KeyGeneration.Dealings))
	for i := range weights {
		weights[i].SetOne()
	}
	checkShares(t, v.KeyGeneration, weights)
	var dealers []int
	for _, d := range v.Resharing.Dealings {
		dealers = append(dealers, d.Dealer)
	}
	checkShares(t, v.Resharing, lagrange(dealers))
	require.Equal(t, v.KeyGeneration.GroupKey, v.Resharing.GroupKey)

	for _, s := range v.Signing {
		h, err := gnark.HashToG1(unhex(t, s.Message), []byte(threshold.Ciphersuite))
		require.NoError(t, err)
		for i, want := range s.Partials {
			require.Equal(t, unhex(t, want), multiple(&h, element(t, v.KeyGeneration.Shares[i][4:])))
		}
		signers := []int{4, 2, 1}
		var sum gnark.G1Jac
		for k, l := range lagrange(signers) {
			var p gnark.G1Affine
			_, err := p.SetBytes(unhex(t, s.Partials[signers[k]-1]))
			require.NoError(t, err)
			p.ScalarMultiplication(&p, l.BigInt(new(big.Int)))
			sum.AddMixed(&p)
		}
		var combined gnark.G1Affine
		got := combined.FromJacobian(&sum).Bytes()
		require.Equal(t, unhex(t, s.Signature), got[:])
	}
}

func element(t *testing.T, s string) *fr.Element {
	x := new(fr.Element)
	require.NoError(t, x.SetBytesCanonical(unhex(t, s)))
	return x
}

func multiple(p *gnark.G1Affine, k *fr.Element) []byte {
	b := new(gnark.G1Affine).ScalarMultiplication(p, k.BigInt(new(big.Int))).Bytes()
	return b[:]
}

// checkDealings compares every point of the commitments and every scalar of the parts.
func checkDealings(t *testing.T, tr transition) {
	_, _, base1, base2 := gnark.Generators()
	columns := tr.F + 1
	for _, d := range tr.Dealings {
		var coefficients []*fr.Element
		var points []byte
		for _, s := range d.Coefficients {
			x := element(t, s)
			coefficients = append(coefficients, x)
			p := new(gnark.G1Affine).ScalarMultiplication(&base1, x.BigInt(new(big.Int))).RawBytes()
			points = append(points, p[:]...)
		}
		for l := range tr.T {
			p := new(gnark.G2Affine).ScalarMultiplication(&base2, coefficients[l*columns].BigInt(new(big.Int))).RawBytes()
			points = append(points, p[:]...)
		}
		commitment := unhex(t, d.Commitment)
		require.Equal(t, points, commitment[len(commitment)-len(points):])

		for j, s := range d.Parts {
			var want []byte
			for k := range columns {
				want = append(want, evaluate(coefficients[k:], tr.T, columns, j+1)...)
			}
			for l := range tr.T {
				want = append(want, evaluate(coefficients[l*columns:], columns, 1, j+1)...)
			}
			part := unhex(t, s)
			require.Equal(t, want, part[len(part)-len(want):])
		}
	}
}

func evaluate(c []*fr.Element, n, stride, x int) []byte {
	var y, at fr.Element
	at.SetInt64(int64(x))
	for i := n - 1; i >= 0; i-- {
		y.Mul(&y, &at).Add(&y, c[i*stride])
	}
	b := y.Bytes()
	return b[:]
}

// checkShares sums the first scalars of the rows, and compares the group key.
func checkShares(t *testing.T, tr transition, weights []fr.Element) {
	const rowAt = 2 * 7 // tag, index and two lengths, in hexadecimal digits
	var secret fr.Element
	for i, d := range tr.Dealings {
		secret.Add(&secret, new(fr.Element).Mul(element(t, d.Coefficients[0]), &weights[i]))
	}
	_, _, _, base2 := gnark.Generators()
	key := new(gnark.G2Affine).ScalarMultiplication(&base2, secret.BigInt(new(big.Int))).Bytes()
	require.Equal(t, unhex(t, tr.GroupKey), key[:])
	for j, want := range tr.Shares {
		var sum fr.Element
		for i, d := range tr.Dealings {
			sum.Add(&sum, new(fr.Element).Mul(element(t, d.Parts[j][rowAt:rowAt+64]), &weights[i]))
		}
		require.Equal(t, element(t, want[4:]), &sum)
	}
}

// lagrange returns the coefficients at zero.
func lagrange(xs []int) []fr.Element {
	out := make([]fr.Element, len(xs))
	for i, x := range xs {
		out[i].SetOne()
		for j, y := range xs {
			if i != j {
				var num, den fr.Element
				num.SetInt64(int64(y))
				den.SetInt64(int64(y - x))
				out[i].Mul(&out[i], num.Div(&num, &den))
			}
		}
	}
	return out
}
