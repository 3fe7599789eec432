package bls12381

import (
	"crypto/cipher"
	"encoding/hex"
	"io"

	"go.dedis.ch/kyber/v3"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// pointG2 is a point of G2; the zero value is infinity.
type pointG2 struct {
	noEmbedding
	v curve.G2
}

func g2(p kyber.Point) *curve.G2 { return &p.(*pointG2).v }

func (p *pointG2) Equal(q kyber.Point) bool                       { return p.v == *g2(q) }
func (p *pointG2) Null() kyber.Point                              { p.v = curve.G2{}; return p }
func (p *pointG2) Base() kyber.Point                              { p.v = curve.Generator2(); return p }
func (p *pointG2) Set(q kyber.Point) kyber.Point                  { p.v = *g2(q); return p }
func (p *pointG2) Clone() kyber.Point                             { return &pointG2{v: p.v} }
func (p *pointG2) Add(a, b kyber.Point) kyber.Point               { p.v = curve.Add2(g2(a), g2(b)); return p }
func (p *pointG2) Sub(a, b kyber.Point) kyber.Point               { p.v = curve.Sub2(g2(a), g2(b)); return p }
func (p *pointG2) Neg(a kyber.Point) kyber.Point                  { p.v = curve.Sub2(new(curve.G2), g2(a)); return p }
func (p *pointG2) Embed(_ []byte, rand cipher.Stream) kyber.Point { return p.Pick(rand) }
func (p *pointG2) Pick(rand cipher.Stream) kyber.Point            { return p.Mul(new(scalar).Pick(rand), nil) }
func (p *pointG2) String() string                                 { return "bls12381.G2:" + hex.EncodeToString(p.v.Compress()) }
func (p *pointG2) MarshalSize() int                               { return curve.G2Len }
func (p *pointG2) MarshalID() [8]byte                             { return [8]byte{'b', 'l', 's', '3', '8', '1', 'g', '2'} }
func (p *pointG2) MarshalBinary() ([]byte, error)                 { return p.v.Compress(), nil }
func (p *pointG2) MarshalTo(w io.Writer) (int, error)             { return marshalTo(p, w) }
func (p *pointG2) UnmarshalFrom(r io.Reader) (int, error)         { return unmarshalFrom(p, r) }

// Mul sets p to s*q, in constant time; a nil q is the base point.
func (p *pointG2) Mul(s kyber.Scalar, q kyber.Point) kyber.Point {
	if q == nil {
		p.v = curve.Mult2(nil, fr(s))
	} else {
		p.v = curve.Mult2(g2(q), fr(s))
	}
	return p
}

// UnmarshalBinary decodes a point of the subgroup.
func (p *pointG2) UnmarshalBinary(b []byte) error {
	var v curve.G2
	if err := curve.DecodeG2(&v, b); err != nil {
		return err
	}
	p.v = v
	return nil
}
