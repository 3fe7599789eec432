package bls12381

import (
	"crypto/cipher"
	"fmt"
	"io"

	"go.dedis.ch/kyber/v3"
	"go.dedis.ch/kyber/v3/util/random"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// scalar is an integer modulo the group order.
type scalar struct{ v curve.Fr }

// fr unwraps a scalar of this suite.
func fr(s kyber.Scalar) *curve.Fr { return &s.(*scalar).v }

func (s *scalar) Equal(o kyber.Scalar) bool          { return s.v.Equal(fr(o)) }
func (s *scalar) Set(a kyber.Scalar) kyber.Scalar    { s.v = *fr(a); return s }
func (s *scalar) Clone() kyber.Scalar                { return &scalar{s.v} }
func (s *scalar) Zero() kyber.Scalar                 { s.v = curve.Fr{}; return s }
func (s *scalar) One() kyber.Scalar                  { s.v.SetSmall(1); return s }
func (s *scalar) Add(a, b kyber.Scalar) kyber.Scalar { s.v.Add(fr(a), fr(b)); return s }
func (s *scalar) Sub(a, b kyber.Scalar) kyber.Scalar { s.v.Sub(fr(a), fr(b)); return s }
func (s *scalar) Neg(a kyber.Scalar) kyber.Scalar    { s.v.Neg(fr(a)); return s }
func (s *scalar) Mul(a, b kyber.Scalar) kyber.Scalar { s.v.Mul(fr(a), fr(b)); return s }
func (s *scalar) Inv(a kyber.Scalar) kyber.Scalar    { s.v.Inverse(fr(a)); return s }

// SetInt64 sets s to a small integer, which may be negative.
func (s *scalar) SetInt64(v int64) kyber.Scalar {
	if v >= 0 {
		s.v.SetSmall(uint64(v))
		return s
	}
	s.v.SetSmall(-uint64(v))
	s.v.Neg(&s.v)
	return s
}

// Div sets s to a/b; division by zero gives zero.
func (s *scalar) Div(a, b kyber.Scalar) kyber.Scalar {
	var inverse curve.Fr
	inverse.Inverse(fr(b))
	s.v.Mul(fr(a), &inverse)
	inverse.Wipe()
	return s
}

// Pick sets s to a uniform scalar.
func (s *scalar) Pick(rand cipher.Stream) kyber.Scalar {
	var wide [48]byte
	random.Bytes(wide[:], rand)
	s.v.SetWide(wide[:])
	clear(wide[:])
	return s
}

// SetBytes reads a big-endian number of any length and reduces it.
func (s *scalar) SetBytes(b []byte) kyber.Scalar {
	s.v.SetWide(b)
	return s
}

// String shows nothing: scalars are secrets more often than not.
func (s *scalar) String() string                 { return "[scalar]" }
func (s *scalar) GoString() string               { return s.String() }
func (s *scalar) Format(f fmt.State, _ rune)     { _, _ = io.WriteString(f, s.String()) }
func (s *scalar) MarshalSize() int               { return curve.ScalarLen }
func (s *scalar) MarshalID() [8]byte             { return [8]byte{'b', 'l', 's', '3', '8', '1', '.', 's'} }
func (s *scalar) MarshalBinary() ([]byte, error) { return s.v.AppendBytes(nil), nil }
func (s *scalar) UnmarshalBinary(b []byte) error { return s.v.SetBytes(b) }

func (s *scalar) MarshalTo(w io.Writer) (int, error)     { return marshalTo(s, w) }
func (s *scalar) UnmarshalFrom(r io.Reader) (int, error) { return unmarshalFrom(s, r) }

func marshalTo(m kyber.Marshaling, w io.Writer) (int, error) {
	b, err := m.MarshalBinary()
	if err != nil {
		return 0, err
	}
	return w.Write(b)
}

// unmarshalFrom decodes from r, or, as kyber has it, picks from a stream of randomness.
func unmarshalFrom(m kyber.Marshaling, r io.Reader) (int, error) {
	if stream, ok := r.(cipher.Stream); ok {
		switch x := m.(type) {
		case kyber.Scalar:
			x.Pick(stream)
		case kyber.Point:
			x.Pick(stream)
		}
		return -1, nil
	}
	b := make([]byte, m.MarshalSize())
	n, err := io.ReadFull(r, b)
	if err != nil {
		return n, err
	}
	return n, m.UnmarshalBinary(b)
}
