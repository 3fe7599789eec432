package threshold

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// commitmentScheme names the scheme at the head of an encoded Commitment, and in its digest.
const commitmentScheme = "reseal/bivariate-dealing/bls12381-g1/v1"

// Commitment is the public side of a dealing. Immutable and safe for concurrent use.
//
// The coefficients of phi(x, y) are committed to in G1, where checks are three times cheaper than in
// G2; those of phi(x, 0), which become part of the next public polynomial, in G2 as well. Points of G2
// are checked to lie in the subgroup when they are decoded. Points of G1 are only checked to lie on the
// curve: that check would cost several times all others, and none is needed, because every equation
// over them is compared after multiplication by the cofactor. So a commitment is to the parts of its
// points in the subgroup, whatever a dealer adds outside.
type Commitment struct {
	params  Params
	context []byte
	matrix  []curve.G1 // x^l y^k at l*(F+1)+k
	shares  []curve.G2 // x^l y^0 at l
	encoded []byte
	digest  [32]byte
	verify  func() error // checks the two against each other, once
}

func newCommitment(p Params, context []byte, matrix []curve.G1, shares []curve.G2) *Commitment {
	c := &Commitment{params: p, context: context, matrix: matrix, shares: shares}
	c.encoded = c.encode()
	c.finish()
	return c
}

// finish sets what follows from the encoding.
func (c *Commitment) finish() {
	c.digest = sha256.Sum256(c.encoded)
	c.verify = sync.OnceValue(c.checkConsistency)
}

// made reports that c is neither nil nor the zero value.
func (c *Commitment) made() bool { return c != nil && c.verify != nil }

// Params returns the numbers of the dealing.
func (c *Commitment) Params() Params {
	if c == nil {
		return Params{}
	}
	return c.params
}

// Context returns the context that the dealer bound in. The caller compares it with what it expects.
func (c *Commitment) Context() []byte {
	if c == nil {
		return nil
	}
	return append([]byte(nil), c.context...)
}

// Digest is the SHA-256 of the encoding: it binds scheme, numbers, context and every point. Receivers
// acknowledge a dealing by signing it (see AcknowledgementMessage).
func (c *Commitment) Digest() [32]byte {
	if c == nil {
		return [32]byte{}
	}
	return c.digest
}

// Equal reports whether two commitments are the same bytes.
func (c *Commitment) Equal(other *Commitment) bool {
	return c.made() && other.made() && bytes.Equal(c.encoded, other.encoded)
}

// MarshalBinary encodes the commitment: scheme, N, T, F (2 bytes each), context (length in 2 bytes),
// then the points, uncompressed (a square root for each would cost more than all checks): T*(F+1) of
// 96 bytes and T of 192.
func (c *Commitment) MarshalBinary() ([]byte, error) {
	if !c.made() {
		return nil, errMissing
	}
	return append([]byte(nil), c.encoded...), nil
}

func (c *Commitment) encode() []byte {
	size := headerLen(commitmentScheme) + 2 + len(c.context) + pointsLen(c.params)
	b := appendHeader(make([]byte, 0, size), commitmentScheme, c.params)
	b = binary.BigEndian.AppendUint16(b, uint16(len(c.context)))
	b = append(b, c.context...)
	for i := range c.matrix {
		b = append(b, c.matrix[i].Serialize()...)
	}
	for i := range c.shares {
		b = append(b, c.shares[i].Serialize()...)
	}
	return b
}

// pointsLen is the size of the points of an encoded commitment.
func pointsLen(p Params) int {
	return p.rows()*p.columns()*curve.G1FullLen + p.rows()*curve.G2FullLen
}

// ParseCommitment decodes MarshalBinary. What it accepts encodes to the same bytes again; whether the
// dealing is consistent is for Verify and VerifyPart to say.
func ParseCommitment(b []byte) (*Commitment, error) {
	p, rest, err := parseHeader(b, commitmentScheme)
	if err != nil {
		return nil, err
	}
	if len(rest) < 2 {
		return nil, errors.New("threshold: commitment: cut off before its context")
	}
	contextLen := int(binary.BigEndian.Uint16(rest))
	rest = rest[2:]
	if contextLen > MaxContext || len(rest) != contextLen+pointsLen(p) {
		return nil, fmt.Errorf("threshold: commitment: %d bytes after the header, want %d of context and %d of points",
			len(rest), contextLen, pointsLen(p))
	}
	c := &Commitment{
		params:  p,
		encoded: bytes.Clone(b),
		context: bytes.Clone(rest[:contextLen]),
		matrix:  make([]curve.G1, p.rows()*p.columns()),
		shares:  make([]curve.G2, p.rows()),
	}
	if err := c.decodePoints(rest[contextLen:]); err != nil {
		return nil, err
	}
	c.finish()
	return c, nil
}

func (c *Commitment) decodePoints(b []byte) error {
	for i := range c.matrix {
		if err := curve.DecodeG1Full(&c.matrix[i], b[:curve.G1FullLen]); err != nil {
			return fmt.Errorf("threshold: commitment: point %d of the matrix: %w", i, err)
		}
		b = b[curve.G1FullLen:]
	}
	for i := range c.shares {
		if err := curve.DecodeG2Full(&c.shares[i], b[:curve.G2FullLen]); err != nil {
			return fmt.Errorf("threshold: commitment: point %d in G2: %w", i, err)
		}
		b = b[curve.G2FullLen:]
	}
	return nil
}

// acknowledgementDomain separates what AcknowledgementMessage returns from everything else signed.
const acknowledgementDomain = "reseal/dealing-acknowledged/v1"

// AcknowledgementMessage is what a receiver signs when it holds its part and the part verified. T
// partial signatures of the current sharing on it combine into the certificate of the dealing: at
// least T-F correct receivers hold their parts, and every other can complete its own.
func (c *Commitment) AcknowledgementMessage() []byte {
	digest := c.Digest()
	return append([]byte(acknowledgementDomain), digest[:]...)
}
