package bls12381

import (
	"crypto/cipher"
	"encoding/hex"
	"io"

	"go.dedis.ch/kyber/v3"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// pointGT is an element of the target group, written additively as kyber does.
type pointGT struct {
	noEmbedding
	v curve.GT
}

func newPointGT() *pointGT { return &pointGT{v: curve.GTOne()} }

func gt(p kyber.Point) *curve.GT { return &p.(*pointGT).v }

func (p *pointGT) Equal(q kyber.Point) bool                       { return p.v.Equal(gt(q)) }
func (p *pointGT) Null() kyber.Point                              { p.v = curve.GTOne(); return p }
func (p *pointGT) Set(q kyber.Point) kyber.Point                  { p.v = *gt(q); return p }
func (p *pointGT) Clone() kyber.Point                             { return &pointGT{v: p.v} }
func (p *pointGT) Add(a, b kyber.Point) kyber.Point               { p.v.Mul(gt(a), gt(b)); return p }
func (p *pointGT) Neg(a kyber.Point) kyber.Point                  { p.v.Invert(gt(a)); return p }
func (p *pointGT) Embed(_ []byte, rand cipher.Stream) kyber.Point { return p.Pick(rand) }
func (p *pointGT) Pick(rand cipher.Stream) kyber.Point            { return p.Mul(new(scalar).Pick(rand), nil) }
func (p *pointGT) String() string                                 { return "bls12381.GT:" + hex.EncodeToString(p.v.Bytes()) }
func (p *pointGT) MarshalSize() int                               { return curve.GTLen }
func (p *pointGT) MarshalID() [8]byte                             { return [8]byte{'b', 'l', 's', '3', '8', '1', 'g', 't'} }
func (p *pointGT) MarshalBinary() ([]byte, error)                 { return p.v.Bytes(), nil }
func (p *pointGT) MarshalTo(w io.Writer) (int, error)             { return marshalTo(p, w) }
func (p *pointGT) UnmarshalFrom(r io.Reader) (int, error)         { return unmarshalFrom(p, r) }

// Base sets p to the pairing of the generators.
func (p *pointGT) Base() kyber.Point {
	one, two := curve.Generator1(), curve.Generator2()
	p.v = curve.Pair(&one, &two)
	return p
}

// Sub sets p to a-b.
func (p *pointGT) Sub(a, b kyber.Point) kyber.Point {
	var inverse curve.GT
	inverse.Invert(gt(b))
	p.v.Mul(gt(a), &inverse)
	return p
}

// Mul sets p to s*q, in constant time; a nil q is the base.
func (p *pointGT) Mul(s kyber.Scalar, q kyber.Point) kyber.Point {
	if q == nil {
		q = newPointGT().Base()
	}
	p.v.Exp(gt(q), fr(s))
	return p
}

// UnmarshalBinary decodes an element of the group.
func (p *pointGT) UnmarshalBinary(b []byte) error {
	var v curve.GT
	if err := v.SetBytes(b); err != nil {
		return err
	}
	p.v = v
	return nil
}
