package threshold

import (
	"fmt"
	"slices"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// BadPointsError says that the points given do not make a part.
type BadPointsError struct {
	From []int // receivers whose points contradict the commitment, ascending; maybe none
	Need int   // further points, from others, that are needed
}

func (e *BadPointsError) Error() string {
	if len(e.From) == 0 {
		return fmt.Sprintf("threshold: too few points to complete a part: %d more are needed", e.Need)
	}
	return fmt.Sprintf("threshold: points from %v contradict the commitment; %d more are needed from others", e.From, e.Need)
}

// Unwrap makes errors.Is(err, ErrInconsistent) true.
func (e *BadPointsError) Unwrap() error { return ErrInconsistent }

// Complete computes the part of a receiver that missed it from F+1 points that others hold for it.
// The first F+1 from distinct receivers are tried; only if they give no valid part are the points
// checked one by one. bad lists the receivers whose points were found to contradict the commitment,
// also when Complete succeeds with others: ask those for nothing more. What is returned was verified as
// a whole (VerifyCompleted). The part has no column. The points stay the caller's to wipe.
func (c *Commitment) Complete(index int, points []Point) (part *Part, bad []int, err error) {
	if !c.made() {
		return nil, nil, errMissing
	}
	if err := c.params.checkIndex(index); err != nil {
		return nil, nil, err
	}
	candidates := c.usable(index, points)
	if part := c.interpolate(index, candidates); part != nil {
		if c.VerifyCompleted(part) == nil {
			return part, nil, nil
		}
		part.Wipe()
	}
	row := c.rowCommitment(index)
	var good []Point
	for _, p := range candidates {
		if holds(row, curve.Powers(uint64(p.From), len(row)), p.value) {
			good = append(good, p)
		} else {
			bad = append(bad, p.From)
		}
	}
	slices.Sort(bad)
	bad = slices.Compact(bad)
	good = slices.CompactFunc(good, func(a, b Point) bool { return a.From == b.From })
	part = c.interpolate(index, good)
	if part == nil {
		return nil, bad, &BadPointsError{From: bad, Need: c.params.columns() - len(good)}
	}
	if err := c.VerifyCompleted(part); err != nil { // nothing is returned that was not verified as a whole
		part.Wipe()
		return nil, bad, err
	}
	return part, bad, nil
}

// usable keeps the points that are for this receiver, from others in range, sorted by sender, each
// value of a sender once.
func (c *Commitment) usable(index int, points []Point) []Point {
	var out []Point
	for _, p := range points {
		if p.value != nil && p.To == index && c.params.checkIndex(p.From) == nil {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b Point) int { return a.From - b.From })
	return slices.CompactFunc(out, func(a, b Point) bool { return a.From == b.From && a.value.Equal(b.value) })
}

// rowCommitment commits to the coefficients of the row of a receiver: the sum over l of
// index^l matrix[l,k], for every k.
func (c *Commitment) rowCommitment(index int) []curve.G1 {
	rows, columns := c.params.rows(), c.params.columns()
	powers := curve.Powers(uint64(index), rows)
	out := make([]curve.G1, columns)
	column := make([]curve.G1, rows)
	for k := range out {
		for l := range column {
			column[l] = c.matrix[l*columns+k]
		}
		out[k] = curve.Sum1(column, powers)
	}
	return out
}

// interpolate gives the row through the first F+1 points from distinct senders, nil if there are too
// few. The points are sorted by sender.
func (c *Commitment) interpolate(index int, points []Point) *Part {
	var xs []uint16
	var values []curve.Fr
	for _, p := range points {
		if len(xs) == c.params.columns() {
			break
		}
		if len(xs) == 0 || int(xs[len(xs)-1]) != p.From {
			xs, values = append(xs, uint16(p.From)), append(values, *p.value)
		}
	}
	defer curve.Wipe(values)
	if len(xs) < c.params.columns() {
		return nil
	}
	return &Part{index: index, row: curve.Interpolate(xs, values)}
}
