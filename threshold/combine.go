package threshold

import (
	"fmt"
	"slices"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// combination is the working memory of one Combine, reused between calls.
type combination struct {
	seen    [MaxReceivers + 1]bool
	indices []uint16
	points  []curve.G1
	scalars []curve.Scalar
}

func newCombination(t int) *combination {
	return &combination{
		indices: make([]uint16, 0, t),
		points:  make([]curve.G1, t),
		scalars: make([]curve.Scalar, t),
	}
}

// Combine makes the group's signature on msg from T partial signatures with distinct indices, and
// checks the result once. Only if that fails are the partial signatures checked one by one; with
// enough good ones among them Combine still succeeds. bad lists, ascending and without repetition,
// the indices under which a partial signature was given that does not verify; it is nil when the
// first check succeeded, whatever the partial signatures beyond the first T are.
// With fewer than T valid ones the error wraps ErrTooFewPartials.
func (s *Sharing) Combine(msg []byte, ps []PartialSignature) (sig Signature, bad []int, err error) {
	c := s.indices.Get().(*combination)
	defer s.indices.Put(c)
	if s.gather(c, ps) {
		if sig, ok := s.combineChecked(c, msg); ok {
			return sig, nil, nil
		}
	}
	good, bad := s.sift(msg, ps)
	if !s.gather(c, good) {
		return Signature{}, bad, fmt.Errorf("%w: %d of the %d needed", ErrTooFewPartials, len(c.indices), s.params.T)
	}
	sig, ok := s.combineChecked(c, msg)
	if !ok {
		return Signature{}, bad, ErrInvalidSignature
	}
	return sig, bad, nil
}

// gather decodes the first T partial signatures with distinct indices and reports whether there are
// as many. Points outside the subgroup pass: they would show in the combined signature.
func (s *Sharing) gather(c *combination, ps []PartialSignature) bool {
	clear(c.seen[:])
	c.indices = c.indices[:0]
	for i := range ps {
		p := &ps[i]
		if len(c.indices) == s.params.T {
			break
		}
		if s.params.checkIndex(p.Index) != nil || c.seen[p.Index] ||
			curve.DecodeG1(&c.points[len(c.indices)], p.Signature[:]) != nil {
			continue
		}
		c.seen[p.Index] = true
		c.indices = append(c.indices, uint16(p.Index))
	}
	return len(c.indices) == s.params.T
}

// combineChecked interpolates what was gathered at zero and verifies it under the group key.
func (s *Sharing) combineChecked(c *combination, msg []byte) (sig Signature, ok bool) {
	c.scalars = curve.Scalars(c.scalars, curve.Lagrange(c.indices, 0))
	point := curve.MSM1(c.points, curve.ScalarBytes(c.scalars), 255)
	if curve.IsZero1(&point) || !point.InG1() {
		return sig, false
	}
	h := curve.HashToG1(msg, ciphersuite)
	if !curve.CheckPairing(&point, &h, s.group.lines()) {
		return sig, false
	}
	return Signature(point.Compress()), true
}

// sift checks partial signatures one by one.
func (s *Sharing) sift(msg []byte, ps []PartialSignature) (good []PartialSignature, bad []int) {
	checked := make(map[PartialSignature]bool, len(ps))
	for _, p := range ps {
		if checked[p] {
			continue
		}
		checked[p] = true
		if s.VerifyPartial(msg, p) == nil {
			good = append(good, p)
		} else {
			bad = append(bad, p.Index)
		}
	}
	slices.Sort(bad)
	return good, slices.Compact(bad)
}
