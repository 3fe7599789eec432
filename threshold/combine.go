package threshold

import (
	"fmt"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// combination is the working memory of one Combine, reused between calls.
type combination struct {
	seen          [MaxReceivers + 1]bool
	indices       []uint16   // of the T chosen
	points        []curve.G1 // theirs
	interpolation curve.Interpolation
}

func newCombination(t int) *combination {
	return &combination{indices: make([]uint16, 0, t), points: make([]curve.G1, t)}
}

// Combine makes the group's signature on msg from T partial signatures with distinct indices, and
// verifies the result once. Only if that fails are the bad ones looked for; with enough good ones
// Combine still succeeds. bad lists, ascending and without repetition, the indices under which a partial
// signature was given that does not verify. It is nil when the first T that decode did verify: nothing
// else is looked at then.
//
// With fewer than T valid ones the error wraps ErrTooFewPartials; bad is nil if there are not even T
// distinct indices. Looking for bad ones takes time in proportion to len(ps): give one per receiver.
func (s *Sharing) Combine(msg []byte, ps []PartialSignature) (sig Signature, bad []int, err error) {
	if !s.made() {
		return sig, nil, errMissing
	}
	c := s.combinations.Get().(*combination)
	defer s.combinations.Put(c)
	if s.gather(c, ps) {
		if sig, ok := s.combineGathered(c, msg); ok {
			return sig, nil, nil
		}
	}
	if distinct := s.distinct(c, ps); distinct < s.params.T {
		return Signature{}, nil, fmt.Errorf("%w: %d of the %d needed", ErrTooFewPartials, distinct, s.params.T)
	}
	good, bad := s.sift(msg, ps)
	if !s.gather(c, good) {
		return Signature{}, bad, fmt.Errorf("%w: %d of the %d needed; those of %v do not verify",
			ErrTooFewPartials, len(c.indices), s.params.T, bad)
	}
	sig, ok := s.combineGathered(c, msg)
	if !ok {
		return Signature{}, bad, ErrInvalidSignature
	}
	return sig, bad, nil
}

// CombineUnverified is Combine without any verification, for callers who verify what it returns, in a
// batch with other signatures say (VerifyBatch). It fails only if there are no T distinct indices with
// partial signatures that decode.
func (s *Sharing) CombineUnverified(ps []PartialSignature) (Signature, error) {
	if !s.made() {
		return Signature{}, errMissing
	}
	c := s.combinations.Get().(*combination)
	defer s.combinations.Put(c)
	if !s.gather(c, ps) {
		return Signature{}, fmt.Errorf("%w: %d of the %d needed", ErrTooFewPartials, len(c.indices), s.params.T)
	}
	c.interpolation.Prepare(c.indices)
	point := c.interpolation.At0(c.points)
	return Signature(point.Compress()), nil
}

// gather decodes the first T partial signatures with distinct indices, as far as they decode, and
// reports whether there are as many. Points outside the subgroup pass: they would show in the result.
func (s *Sharing) gather(c *combination, ps []PartialSignature) bool {
	clear(c.seen[:])
	c.indices = c.indices[:0]
	for i := range ps {
		if len(c.indices) == s.params.T {
			break
		}
		p := &ps[i]
		point := &c.points[len(c.indices)]
		if s.params.checkIndex(p.Index) != nil || c.seen[p.Index] ||
			curve.DecodeG1(point, p.Signature[:]) != nil || curve.IsZero1(point) {
			continue
		}
		c.seen[p.Index] = true
		c.indices = append(c.indices, uint16(p.Index))
	}
	return len(c.indices) == s.params.T
}

// distinct counts the indices in range.
func (s *Sharing) distinct(c *combination, ps []PartialSignature) (n int) {
	clear(c.seen[:])
	for i := range ps {
		if s.params.checkIndex(ps[i].Index) == nil && !c.seen[ps[i].Index] {
			c.seen[ps[i].Index] = true
			n++
		}
	}
	return n
}

// combineGathered interpolates at zero what was gathered and verifies it under the group key.
func (s *Sharing) combineGathered(c *combination, msg []byte) (sig Signature, ok bool) {
	c.interpolation.Prepare(c.indices)
	point := c.interpolation.At0(c.points)
	if curve.IsZero1(&point) || !point.InG1() {
		return sig, false
	}
	h := curve.HashToG1(msg, ciphersuite)
	if !curve.CheckPairing(&point, &h, s.group.lines()) {
		return sig, false
	}
	return Signature(point.Compress()), true
}
