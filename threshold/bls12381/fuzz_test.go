package bls12381_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.dedis.ch/kyber/v3"
)

// FuzzDecoding feeds the decoder of every kind of element: nothing panics, and what is accepted encodes
// to the same bytes and lies in its group.
func FuzzDecoding(f *testing.F) {
	for kind, g := range groups() {
		for _, p := range []kyber.Point{g.Point().Null(), g.Point().Base(), g.Point().Mul(g.Scalar().SetInt64(-7), nil)} {
			b, err := p.MarshalBinary()
			require.NoError(f, err)
			f.Add(kind, b)
		}
	}
	scalar, err := suite.G1().Scalar().SetInt64(-1).MarshalBinary()
	require.NoError(f, err)
	f.Add(len(groups()), scalar)
	order := suite.G1().Scalar().SetInt64(-1)
	f.Fuzz(func(t *testing.T, kind int, b []byte) {
		if kind < 0 || kind >= len(groups()) {
			s := suite.G1().Scalar()
			if s.UnmarshalBinary(b) == nil {
				requireSame(t, b, s)
			}
			return
		}
		g := groups()[kind]
		p := g.Point()
		if p.UnmarshalBinary(b) == nil {
			requireSame(t, b, p)
			require.True(t, g.Point().Mul(order, p).Equal(g.Point().Neg(p)))
		}
	})
}

func requireSame(t *testing.T, b []byte, m kyber.Marshaling) {
	again, err := m.MarshalBinary()
	require.NoError(t, err)
	require.Equal(t, b, again)
}
