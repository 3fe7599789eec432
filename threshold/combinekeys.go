package threshold

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// PublicKey returns the public key of the dealt secret. It fails for a dealing of zero, which no receiver may acknowledge.
func (c *Commitment) PublicKey() (*PublicKey, error) {
	if !c.made() {
		return nil, errMissing
	}
	return newPublicKey(c.shares[0])
}

// CertifiedKey is the public key of a dealt secret, as a quorum of receivers certified it together with the dealing. It lets one
// who has not seen the commitments, such as the state of a log, compute the key that they will give.
type CertifiedKey struct {
	dealer int
	key    *PublicKey
}

// Certify checks that a quorum certified k as the public key of what the dealer dealt: the message names the key by its encoding. The
// certification's context is not looked at: the message binds it.
func (k *PublicKey) Certify(by Certification) (*CertifiedKey, error) {
	if !k.made() || by.Verify == nil {
		return nil, errMissing
	}
	if by.Dealer < 1 || by.Dealer > MaxReceivers {
		return nil, fmt.Errorf("threshold: dealer %d is outside 1..%d", by.Dealer, MaxReceivers)
	}
	if !bytes.Contains(by.Message, k.encoded[:]) {
		return nil, fmt.Errorf("%w: the certificate for the key dealt by %d is about another key", ErrInconsistent, by.Dealer)
	}
	if err := by.Verify(by.Message, by.Certificate); err != nil {
		return nil, fmt.Errorf("threshold: certificate of the key dealt by %d: %w", by.Dealer, err)
	}
	return &CertifiedKey{dealer: by.Dealer, key: k}, nil
}

// SumPublicKeys returns the public key of the sum of the dealt secrets: the group key of a key generation. Keys that nobody certified are not
// summed up: one dealer that chooses its own after the others' would hold the sum alone. It fails if two are of one dealer, and if the sum is
// infinity.
func SumPublicKeys(keys ...*CertifiedKey) (*PublicKey, error) {
	plain := make([]*PublicKey, len(keys))
	for i, k := range keys {
		if k == nil || k.key == nil {
			return nil, errMissing
		}
		if slices.ContainsFunc(keys[:i], func(other *CertifiedKey) bool { return other.dealer == k.dealer }) {
			return nil, fmt.Errorf("threshold: two keys of dealer %d", k.dealer)
		}
		plain[i] = k.key
	}
	return combineKeys(plain, func(points []curve.G2) curve.G2 {
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
		if !k.made() {
			return nil, errMissing
		}
		points[i] = k.point
	}
	return newPublicKey(combine(points))
}
