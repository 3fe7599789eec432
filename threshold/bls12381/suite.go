package bls12381

import (
	"crypto/cipher"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"

	"go.dedis.ch/kyber/v3"
	"go.dedis.ch/kyber/v3/pairing"
	"go.dedis.ch/kyber/v3/util/random"
	"go.dedis.ch/kyber/v3/xof/blake2xb"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// Suite is the pairing suite. Immutable and safe for concurrent use if its randomness is.
type Suite struct{ rand cipher.Stream }

var _ pairing.Suite = (*Suite)(nil)

// NewSuite returns the suite drawing its RandomStream from rand; nil is the system's randomness.
func NewSuite(rand cipher.Stream) *Suite {
	if rand == nil {
		rand = random.New()
	}
	return &Suite{rand: rand}
}

// G1 returns the group of signatures.
func (*Suite) G1() kyber.Group {
	return group{"bls12381.G1", curve.G1Len, func() kyber.Point { return new(pointG1) }}
}

// G2 returns the group of public keys.
func (*Suite) G2() kyber.Group {
	return group{"bls12381.G2", curve.G2Len, func() kyber.Point { return new(pointG2) }}
}

// GT returns the target group; its operation, multiplication, is called Add as in all of kyber.
func (*Suite) GT() kyber.Group {
	return group{"bls12381.GT", curve.GTLen, func() kyber.Point { return newPointGT() }}
}

// Pair returns e(p1, p2), p1 in G1 and p2 in G2.
func (*Suite) Pair(p1, p2 kyber.Point) kyber.Point {
	return &pointGT{v: curve.Pair(&p1.(*pointG1).v, &p2.(*pointG2).v)}
}

// Hash returns SHA-256.
func (*Suite) Hash() hash.Hash { return sha256.New() }

// XOF returns BLAKE2Xb keyed by seed.
func (*Suite) XOF(seed []byte) kyber.XOF { return blake2xb.New(seed) }

// RandomStream returns the suite's randomness.
func (s *Suite) RandomStream() cipher.Stream { return s.rand }

// Write encodes points and scalars one after the other.
func (*Suite) Write(w io.Writer, objs ...interface{}) error {
	return each(objs, func(m kyber.Marshaling) error {
		_, err := m.MarshalTo(w)
		return err
	})
}

// Read decodes into points and scalars one after the other.
func (*Suite) Read(r io.Reader, objs ...interface{}) error {
	return each(objs, func(m kyber.Marshaling) error {
		_, err := m.UnmarshalFrom(r)
		return err
	})
}

func each(objs []interface{}, do func(kyber.Marshaling) error) error {
	for _, o := range objs {
		m, ok := o.(kyber.Marshaling)
		if !ok {
			return fmt.Errorf("bls12381: cannot encode %T: give points and scalars", o)
		}
		if err := do(m); err != nil {
			return err
		}
	}
	return nil
}

// group makes scalars and points.
type group struct {
	name     string
	pointLen int
	newPoint func() kyber.Point
}

func (g group) String() string       { return g.name }
func (g group) ScalarLen() int       { return curve.ScalarLen }
func (g group) Scalar() kyber.Scalar { return new(scalar) }
func (g group) PointLen() int        { return g.pointLen }
func (g group) Point() kyber.Point   { return g.newPoint() }
