package bls12381

import (
	"crypto/cipher"
	"encoding/hex"
	"io"

	"go.dedis.ch/kyber/v3"

	"github.com/reseal-bft/reseal/threshold"
	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// noEmbedding is what all points share: zero bytes can be embedded in them, so Embed picks a point and
// Data returns nothing.
type noEmbedding struct{}

func (noEmbedding) EmbedLen() int         { return 0 }
func (noEmbedding) Data() ([]byte, error) { return nil, nil }

// pointG1 is a point of G1; the zero value is infinity.
type pointG1 struct {
	noEmbedding
	v curve.G1
}

func g1(p kyber.Point) *curve.G1 { return &p.(*pointG1).v }

func (p *pointG1) Equal(q kyber.Point) bool                       { return p.v == *g1(q) }
func (p *pointG1) Null() kyber.Point                              { p.v = curve.G1{}; return p }
func (p *pointG1) Base() kyber.Point                              { p.v = curve.Generator1(); return p }
func (p *pointG1) Set(q kyber.Point) kyber.Point                  { p.v = *g1(q); return p }
func (p *pointG1) Clone() kyber.Point                             { return &pointG1{v: p.v} }
func (p *pointG1) Add(a, b kyber.Point) kyber.Point               { p.v = curve.Add1(g1(a), g1(b)); return p }
func (p *pointG1) Sub(a, b kyber.Point) kyber.Point               { p.v = curve.Sub1(g1(a), g1(b)); return p }
func (p *pointG1) Neg(a kyber.Point) kyber.Point                  { p.v = curve.Sub1(new(curve.G1), g1(a)); return p }
func (p *pointG1) Embed(_ []byte, rand cipher.Stream) kyber.Point { return p.Pick(rand) }
func (p *pointG1) Pick(rand cipher.Stream) kyber.Point            { return p.Mul(new(scalar).Pick(rand), nil) }
func (p *pointG1) String() string                                 { return "bls12381.G1:" + hex.EncodeToString(p.v.Compress()) }
func (p *pointG1) MarshalSize() int                               { return curve.G1Len }
func (p *pointG1) MarshalID() [8]byte                             { return [8]byte{'b', 'l', 's', '3', '8', '1', 'g', '1'} }
func (p *pointG1) MarshalBinary() ([]byte, error)                 { return p.v.Compress(), nil }
func (p *pointG1) MarshalTo(w io.Writer) (int, error)             { return marshalTo(p, w) }
func (p *pointG1) UnmarshalFrom(r io.Reader) (int, error)         { return unmarshalFrom(p, r) }

// Mul sets p to s*q, in constant time; a nil q is the base point.
func (p *pointG1) Mul(s kyber.Scalar, q kyber.Point) kyber.Point {
	if q == nil {
		p.v = curve.Mult1(nil, fr(s))
	} else {
		p.v = curve.Mult1(g1(q), fr(s))
	}
	return p
}

// Hash sets p to the hash of a message, under threshold.Ciphersuite.
func (p *pointG1) Hash(msg []byte) kyber.Point {
	p.v = curve.HashToG1(msg, []byte(threshold.Ciphersuite))
	return p
}

// UnmarshalBinary decodes a point of the subgroup.
func (p *pointG1) UnmarshalBinary(b []byte) error {
	var v curve.G1
	if err := curve.DecodeG1(&v, b); err != nil {
		return err
	}
	if !v.InG1() {
		return curve.ErrPoint
	}
	p.v = v
	return nil
}
