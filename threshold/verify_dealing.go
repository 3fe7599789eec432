package threshold

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// challenge derives n coefficients of 128 bits from everything that a check depends on: what it is
// asked to believe, and every key and commitment that it believes it by. Whoever wants a false
// statement to pass would have to find a digest that suits it: 2^128 work. Derived rather than
// drawn, the verdict is the same at every replica, and no source of randomness can spoil it.
func challenge(label string, n int, parts ...[]byte) []byte {
	h := sha256.New()
	h.Write([]byte{byte(len(label))})
	h.Write([]byte(label))
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
		h.Write(p)
	}
	seed := h.Sum(nil)
	wipeHash(h)
	out := make([]byte, 0, n*coefficientLen+sha256.Size)
	for block := uint32(0); len(out) < n*coefficientLen; block++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32(seed[:sha256.Size:sha256.Size], block))
		out = append(out, sum[:]...)
	}
	return out[:n*coefficientLen]
}

// wipeHash overwrites what SHA-256 keeps of its input, a block at most: parts of dealings are
// hashed here.
func wipeHash(h hash.Hash) {
	var zero [sha256.BlockSize]byte
	h.Reset()
	h.Write(zero[:sha256.BlockSize-1])
	h.Write(zero[:1])
	h.Reset()
}

// challengeScalars is challenge as elements of the field.
func challengeScalars(label string, n int, parts ...[]byte) []curve.Fr {
	b := challenge(label, n, parts...)
	out := make([]curve.Fr, n)
	for i := range out {
		out[i].SetWide(b[i*coefficientLen : (i+1)*coefficientLen])
	}
	return out
}

// Verify checks that the commitments in G1 and in G2 to phi(x, 0) are to the same polynomial, with
// one multi-pairing. The result is remembered.
func (c *Commitment) Verify() error {
	if !c.made() {
		return errMissing
	}
	return c.verify()
}

func (c *Commitment) checkConsistency() error {
	n := len(c.shares)
	coefficients := challenge("commitment", n-1, c.digest[:]) // of all but the first: that has one
	inG1 := make([]curve.G1, n)
	for l := range inG1 {
		inG1[l] = c.matrix[l*c.params.columns()]
	}
	left := curve.MSM1(inG1[1:], coefficients, 8*coefficientLen)
	left = curve.Add1(&left, &inG1[0])
	right := curve.MSM2(c.shares[1:], coefficients, 8*coefficientLen)
	right = curve.Add2(&right, &c.shares[0])
	if !curve.SameLogCleared(&left, &right) {
		return fmt.Errorf("%w: the dealer committed to different polynomials in G1 and G2", ErrInconsistent)
	}
	return nil
}

// VerifyRedeal checks that what is dealt is the dealer's share of old, and Verify.
func (c *Commitment) VerifyRedeal(old *Sharing, dealer int) error {
	if !c.made() || !old.made() {
		return errMissing
	}
	key := old.ShareKey(dealer)
	if key == nil {
		return fmt.Errorf("threshold: dealer %d is none of the old sharing", dealer)
	}
	if c.shares[0] != key.point {
		return fmt.Errorf("%w: dealer %d does not deal its share", ErrInconsistent, dealer)
	}
	return c.Verify()
}

// VerifyPart checks a part that a dealer gave against the commitment: its row and its column,
// without which it must not be acknowledged (ErrNoColumn): the columns are what others complete
// their parts from. It does not Verify the commitment itself.
func (c *Commitment) VerifyPart(p *Part) error {
	if p != nil && p.row != nil && p.column == nil {
		return ErrNoColumn
	}
	return c.checkPart(p)
}

// VerifyCompleted checks a part that was completed from points, which has a row only.
func (c *Commitment) VerifyCompleted(p *Part) error {
	if p != nil && p.column != nil {
		return fmt.Errorf("%w: a part with a column was not completed from points", ErrInconsistent)
	}
	return c.checkPart(p)
}

func (c *Commitment) checkPart(p *Part) error {
	if !c.made() || p == nil {
		return errMissing
	}
	rows, columns := c.params.rows(), c.params.columns()
	if err := c.params.checkIndex(p.index); err != nil {
		return err
	}
	if p.row == nil {
		return ErrWiped
	}
	if len(p.row) != columns || (p.column != nil && len(p.column) != rows) {
		return fmt.Errorf("%w: a part of wrong degree", ErrInconsistent)
	}
	j := uint64(p.index)
	secret := p.SecretBytes()
	defer clear(secret)
	u := challengeScalars("row", columns, c.digest[:], secret)
	weights := make([]curve.Fr, rows*columns)
	var value curve.Fr
	value.Inner(p.row, u)
	defer value.Wipe()
	curve.AddOuter(weights, curve.Powers(j, rows), u)
	if p.column != nil {
		v := challengeScalars("column", rows, c.digest[:], secret)
		var inner curve.Fr
		inner.Inner(p.column, v)
		value.Add(&value, &inner)
		inner.Wipe()
		curve.AddOuter(weights, v, curve.Powers(j, columns))
	}
	if !holds(c.matrix, weights, &value) {
		return fmt.Errorf("%w: the part of receiver %d", ErrInconsistent, p.index)
	}
	return nil
}

// holds checks value*generator = sum of weights[i]*points[i], up to parts outside the subgroup.
func holds(points []curve.G1, weights []curve.Fr, value *curve.Fr) bool {
	sum := curve.Sum1(points, weights)
	claimed := curve.Mult1(nil, value)
	difference := curve.Sub1(&sum, &claimed)
	cleared := curve.ClearCofactor(&difference)
	return curve.IsZero1(&cleared)
}
