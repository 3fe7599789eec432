package judges

import (
	"bytes"
	"testing"

	circl "github.com/cloudflare/circl/ecc/bls12381"
	gnark "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/stretchr/testify/require"
	"go.dedis.ch/kyber/v3"
	"pgregory.net/rapid"
)

// mangled draws bytes near a valid encoding: a point, with its flags or some bytes changed.
func mangled(t *rapid.T, valid []byte) []byte {
	b := bytes.Clone(valid)
	switch rapid.IntRange(0, 4).Draw(t, "how") {
	case 0: // as it is
	case 1:
		b[0] = b[0]&0x1f | byte(rapid.IntRange(0, 7).Draw(t, "flags"))<<5
	case 2:
		b[rapid.IntRange(0, len(b)-1).Draw(t, "position")] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
	case 3:
		rest := rapid.SliceOfN(rapid.Byte(), len(b)-1, len(b)-1).Draw(t, "rest")
		copy(b[1:], rest)
	case 4:
		clear(b)
		b[0] = byte(rapid.IntRange(0, 7).Draw(t, "flags")) << 5
		b[len(b)-1] = byte(rapid.IntRange(0, 4).Draw(t, "last"))
	}
	return b
}

// TestDecodingAgainstGnarkAndCircl: all three accept the same bytes and read the same point. Both
// others also take uncompressed points, which begin with another flag; we take compressed ones only.
func TestDecodingAgainstGnarkAndCircl(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := suite.G1().Scalar().Pick(suite.RandomStream())
		for _, g := range []kyber.Group{suite.G1(), suite.G2()} {
			valid, err := g.Point().Mul(s, nil).MarshalBinary()
			require.NoError(t, err)
			b := mangled(t, valid)
			p := g.Point()
			ours := p.UnmarshalBinary(b) == nil
			compressed := b[0]&0x80 != 0
			require.Equal(t, compressed && gnarkAccepts(g.PointLen(), b), ours, "gnark on %x", b)
			require.Equal(t, compressed && circlAccepts(g.PointLen(), b), ours, "circl on %x", b)
			if ours {
				again, err := p.MarshalBinary()
				require.NoError(t, err)
				require.Equal(t, b, again)
			}
		}
	})
}

func gnarkAccepts(size int, b []byte) bool {
	if size == gnark.SizeOfG1AffineCompressed {
		n, err := new(gnark.G1Affine).SetBytes(b)
		return err == nil && n == len(b)
	}
	n, err := new(gnark.G2Affine).SetBytes(b)
	return err == nil && n == len(b)
}

func circlAccepts(size int, b []byte) bool {
	if size == circl.G1SizeCompressed {
		return new(circl.G1).SetBytes(b) == nil
	}
	return new(circl.G2).SetBytes(b) == nil
}
