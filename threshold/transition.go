package threshold

import (
	"fmt"
	"maps"
	"slices"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// Transition is the next sharing, made of the dealings that were chosen for it, and the way from
// parts of these dealings to a share of it. Immutable and safe for concurrent use.
type Transition struct {
	sharing *Sharing
	dealers []int      // ascending
	weights []curve.Fr // of the dealers
}

// KeyGeneration adds up dealings of random secrets, keyed by dealer: the secret key is the sum of what
// they deal, so nobody knows it unless all of them conspire. At least F+1 dealers are needed, so that
// one is correct. The commitments are verified.
func KeyGeneration(dealings map[int]*Commitment) (*Transition, error) {
	p, dealers, err := chosen(dealings)
	if err != nil {
		return nil, err
	}
	if len(dealers) <= p.F {
		return nil, fmt.Errorf("threshold: key generation from %d dealings: at least %d are needed", len(dealers), p.F+1)
	}
	weights := make([]curve.Fr, len(dealers))
	for i, d := range dealers {
		if err := dealings[d].Verify(); err != nil {
			return nil, fmt.Errorf("threshold: dealing of %d: %w", d, err)
		}
		weights[i].SetSmall(1)
	}
	sum := func(points []curve.G2) curve.G2 { return curve.Sum2(points, weights) }
	return newTransition(p, dealers, weights, dealings, sum)
}

// Resharing interpolates dealings of shares of old, keyed by dealer: exactly old.Params().T of them.
// The group key stays the same; receivers and numbers may be any. The commitments are verified,
// including that each dealer deals its own share of old.
func Resharing(old *Sharing, dealings map[int]*Commitment) (*Transition, error) {
	p, dealers, err := chosen(dealings)
	if err != nil {
		return nil, err
	}
	if len(dealers) != old.params.T {
		return nil, fmt.Errorf("threshold: resharing from %d dealings: exactly %d are needed", len(dealers), old.params.T)
	}
	xs := make([]uint16, len(dealers))
	for i, d := range dealers {
		if err := dealings[d].VerifyRedeal(old, d); err != nil {
			return nil, fmt.Errorf("threshold: dealing of %d: %w", d, err)
		}
		xs[i] = uint16(d)
	}
	var interpolation curve.Interpolation
	interpolation.Prepare(xs)
	t, err := newTransition(p, dealers, curve.Lagrange(xs, 0), dealings, interpolation.At0G2)
	if err != nil {
		return nil, err
	}
	if !t.sharing.group.Equal(old.group) {
		return nil, fmt.Errorf("%w: the group key would change", ErrInconsistent)
	}
	return t, nil
}

// chosen returns the numbers that all dealings share, and the dealers in ascending order.
func chosen(dealings map[int]*Commitment) (Params, []int, error) {
	dealers := slices.Sorted(maps.Keys(dealings))
	if len(dealers) == 0 {
		return Params{}, nil, fmt.Errorf("threshold: no dealings")
	}
	for _, d := range dealers {
		if d < 1 || d > MaxReceivers || dealings[d] == nil {
			return Params{}, nil, fmt.Errorf("threshold: dealer %d: index out of range, or no commitment", d)
		}
		if dealings[d].params != dealings[dealers[0]].params {
			return Params{}, nil, fmt.Errorf("%w: dealers %d and %d deal for different numbers", ErrInconsistent, dealers[0], d)
		}
	}
	return dealings[dealers[0]].params, dealers, nil
}

// newTransition combines the dealings: the weights are for the secrets, combine does the same in G2.
func newTransition(p Params, dealers []int, weights []curve.Fr, dealings map[int]*Commitment, combine func([]curve.G2) curve.G2) (*Transition, error) {
	polynomial := make([]curve.G2, p.rows())
	column := make([]curve.G2, len(dealers))
	for l := range polynomial {
		for i, d := range dealers {
			column[i] = dealings[d].shares[l]
		}
		polynomial[l] = combine(column)
	}
	sharing, err := newSharing(p, polynomial)
	if err != nil {
		return nil, err
	}
	return &Transition{sharing: sharing, dealers: dealers, weights: weights}, nil
}

// Sharing returns the next sharing.
func (t *Transition) Sharing() *Sharing { return t.sharing }

// Dealers returns the dealers whose dealings make the transition, ascending.
func (t *Transition) Dealers() []int { return slices.Clone(t.dealers) }

// Share makes a receiver's share of the next sharing from its part of every dealing, keyed by dealer
// (further parts are ignored). The share is checked against the sharing. The parts stay the caller's
// to wipe.
func (t *Transition) Share(parts map[int]*Part) (*Share, error) {
	values := make([]curve.Fr, len(t.dealers))
	defer curve.Wipe(values)
	share := new(Share)
	for i, d := range t.dealers {
		part := parts[d]
		switch {
		case part == nil:
			return nil, fmt.Errorf("threshold: the part of dealer %d's dealing is missing: complete it from points", d)
		case part.row == nil:
			return nil, ErrWiped
		case i > 0 && part.index != share.index:
			return nil, fmt.Errorf("threshold: parts of receivers %d and %d do not make one share", share.index, part.index)
		}
		share.index = part.index
		values[i] = part.row[0]
	}
	share.secret = curve.Inner(values, t.weights)
	if err := t.sharing.CheckShare(share); err != nil {
		share.Wipe()
		return nil, err
	}
	return share, nil
}
