package threshold

import (
	"errors"
	"fmt"
	"slices"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// PublicKey returns the public key of the dealt secret. It fails for a dealing of zero, which no receiver may acknowledge.
func (c *Commitment) PublicKey() (*PublicKey, error) { return newPublicKey(c.shares[0]) }

// SumPublicKeys returns the public key of the sum of the secrets: the group key of a key generation. It fails if the sum is
// infinity.
func SumPublicKeys(keys ...*PublicKey) (*PublicKey, error) {
	return combineKeys(keys, func(points []curve.G2) curve.G2 {
		sum := curve.G2{}
		for i := range points {
			sum = curve.Add2(&sum, &points[i])
		}
		return sum
	})
}

// InterpolatePublicKey returns the public key of the secret that is interpolated at 0 from the secrets at the given indices
// (distinct, from 1): the group key of a resharing.
func InterpolatePublicKey(indices []int, keys []*PublicKey) (*PublicKey, error) {
	if len(indices) != len(keys) {
		return nil, fmt.Errorf("threshold: %d indices for %d public keys", len(indices), len(keys))
	}
	xs := make([]uint16, len(indices))
	for i, index := range indices {
		if index < 1 || index > MaxReceivers || slices.Contains(indices[:i], index) {
			return nil, fmt.Errorf("threshold: index %d is out of range or there twice", index)
		}
		xs[i] = uint16(index)
	}
	var interpolation curve.Interpolation
	interpolation.Prepare(xs)
	return combineKeys(keys, interpolation.At0G2)
}

func combineKeys(keys []*PublicKey, combine func([]curve.G2) curve.G2) (*PublicKey, error) {
	if len(keys) == 0 {
		return nil, errors.New("threshold: no public keys to combine")
	}
	points := make([]curve.G2, len(keys))
	for i, k := range keys {
		if k == nil {
			return nil, errors.New("threshold: a public key is missing")
		}
		points[i] = k.point
	}
	return newPublicKey(combine(points))
}
