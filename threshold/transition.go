package threshold

import (
	"errors"
	"fmt"
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

// KeyGeneration adds up dealings of random secrets: the secret key is the sum of what they deal, so
// nobody knows it unless all of the dealers conspire. At least F+1 are needed, so that one is
// correct.
func KeyGeneration(dealings ...*CertifiedDealing) (*Transition, error) {
	p, chosen, err := inOrder(dealings)
	if err != nil {
		return nil, err
	}
	if len(chosen) <= p.F {
		return nil, fmt.Errorf("threshold: key generation from %d dealings: at least %d are needed", len(chosen), p.F+1)
	}
	weights := make([]curve.Fr, len(chosen))
	for i := range weights {
		weights[i].SetSmall(1)
	}
	return newTransition(p, chosen, weights, func(points []curve.G2) curve.G2 { return curve.Sum2(points, weights) })
}

// Resharing interpolates dealings of shares of old: exactly old.Params().T of them. The group key
// stays the same; receivers and numbers may be any. That each dealer deals its own share of old is
// checked.
func Resharing(old *Sharing, dealings ...*CertifiedDealing) (*Transition, error) {
	if !old.made() {
		return nil, errMissing
	}
	p, chosen, err := inOrder(dealings)
	if err != nil {
		return nil, err
	}
	if len(chosen) != old.params.T {
		return nil, fmt.Errorf("threshold: resharing from %d dealings: exactly %d are needed", len(chosen), old.params.T)
	}
	xs := make([]uint16, len(chosen))
	for i, d := range chosen {
		if err := d.commitment.VerifyRedeal(old, d.dealer); err != nil {
			return nil, fmt.Errorf("threshold: dealing of %d: %w", d.dealer, err)
		}
		xs[i] = uint16(d.dealer)
	}
	var interpolation curve.Interpolation
	interpolation.Prepare(xs)
	t, err := newTransition(p, chosen, curve.Lagrange(xs, 0), interpolation.At0G2)
	if err != nil {
		return nil, err
	}
	if !t.sharing.group.Equal(old.group) {
		return nil, fmt.Errorf("%w: the group key would change", ErrInconsistent)
	}
	return t, nil
}

// inOrder returns the numbers that all dealings share, and the dealings by dealer, ascending.
func inOrder(dealings []*CertifiedDealing) (Params, []*CertifiedDealing, error) {
	if len(dealings) == 0 {
		return Params{}, nil, errors.New("threshold: no dealings")
	}
	for _, d := range dealings {
		if d == nil || d.commitment == nil {
			return Params{}, nil, errMissing
		}
		if d.commitment.params != dealings[0].commitment.params {
			return Params{}, nil, fmt.Errorf("%w: dealers %d and %d deal for different numbers", ErrInconsistent, dealings[0].dealer, d.dealer)
		}
	}
	chosen := slices.SortedFunc(slices.Values(dealings), func(a, b *CertifiedDealing) int { return a.dealer - b.dealer })
	dealerOf := make(map[string]int, len(chosen)) // by context
	for i, d := range chosen {
		if i > 0 && d.dealer == chosen[i-1].dealer {
			return Params{}, nil, fmt.Errorf("threshold: two dealings of dealer %d: choose one", d.dealer)
		}
		if other, taken := dealerOf[string(d.commitment.context)]; taken {
			return Params{}, nil, fmt.Errorf("%w: the dealings of %d and %d have one context: let it name the dealer, or one can deal in another's name",
				ErrInconsistent, other, d.dealer)
		}
		dealerOf[string(d.commitment.context)] = d.dealer
	}
	return chosen[0].commitment.params, chosen, nil
}

// newTransition combines the dealings: the weights are for the secrets, combine does the same in G2.
func newTransition(p Params, chosen []*CertifiedDealing, weights []curve.Fr, combine func([]curve.G2) curve.G2) (*Transition, error) {
	polynomial := make([]curve.G2, p.rows())
	column := make([]curve.G2, len(chosen))
	for l := range polynomial {
		for i, d := range chosen {
			column[i] = d.commitment.shares[l]
		}
		polynomial[l] = combine(column)
	}
	sharing, err := newSharing(p, polynomial)
	if err != nil {
		return nil, err
	}
	t := &Transition{sharing: sharing, weights: weights}
	for _, d := range chosen {
		t.dealers = append(t.dealers, d.dealer)
	}
	return t, nil
}

// Sharing returns the next sharing.
func (t *Transition) Sharing() *Sharing {
	if t == nil {
		return nil
	}
	return t.sharing
}

// Dealers returns the dealers whose dealings make the transition, ascending.
func (t *Transition) Dealers() []int {
	if t == nil {
		return nil
	}
	return slices.Clone(t.dealers)
}

// Share makes a receiver's share of the next sharing from its part of every dealing, keyed by dealer
// (further parts are ignored). The share is checked against the sharing. The parts stay the caller's
// to wipe.
func (t *Transition) Share(parts map[int]*Part) (*Share, error) {
	if !t.Sharing().made() {
		return nil, errMissing
	}
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
	share.secret.Inner(values, t.weights)
	if err := t.sharing.CheckShare(share); err != nil {
		share.Wipe()
		return nil, err
	}
	return share, nil
}
