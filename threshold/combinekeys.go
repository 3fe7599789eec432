package threshold

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// PublicKey returns the public key of the dealt secret. It fails for a dealing of zero, which no
// receiver may acknowledge.
func (c *Commitment) PublicKey() (*PublicKey, error) {
	if !c.made() {
		return nil, errMissing
	}
	return newPublicKey(c.shares[0])
}

// CertifiedKey is the public key of a dealt secret, as a quorum of receivers certified it together
// with the dealing. It lets one who has not seen the commitments, such as the state of a log,
// compute the key that they will give.
type CertifiedKey struct {
	dealer     int
	commitment [32]byte
	key        *PublicKey
}

// Certify checks that a quorum certified k as the public key of what the dealer dealt by the
// commitment with the given digest. The certification has a Statement, which names both. Its
// Context is not looked at: the digest binds it.
func (k *PublicKey) Certify(commitment [32]byte, by Certification) (*CertifiedKey, error) {
	if !k.made() || by.Statement == nil {
		return nil, errMissing
	}
	if !bytes.Contains(by.Statement(commitment, k), k.encoded[:]) {
		return nil, fmt.Errorf("%w: the statement about the dealing of %d does not name its public key", ErrInconsistent, by.Dealer)
	}
	if err := by.check(commitment, k); err != nil {
		return nil, err
	}
	return &CertifiedKey{dealer: by.Dealer, commitment: commitment, key: k}, nil
}

// SumPublicKeys returns the public key of the sum of the dealt secrets: the group key of a key
// generation. Keys that nobody certified are not summed up: one dealer that chooses its own after
// the others' would hold the sum alone. It fails if two are of one dealer or one commitment, and if
// the sum is infinity.
func SumPublicKeys(keys ...*CertifiedKey) (*PublicKey, error) {
	return combineKeys(keys, func(_ []uint16, points []curve.G2) curve.G2 {
		sum := curve.G2{}
		for i := range points {
			sum = curve.Add2(&sum, &points[i])
		}
		return sum
	})
}

// InterpolatePublicKey returns the public key of the secret that is interpolated at 0 from the
// dealt secrets, each that of its dealer's index: the group key of a resharing, or, if what was
// dealt were no shares of it, another key.
func InterpolatePublicKey(keys ...*CertifiedKey) (*PublicKey, error) {
	return combineKeys(keys, func(dealers []uint16, points []curve.G2) curve.G2 {
		var interpolation curve.Interpolation
		interpolation.Prepare(dealers)
		return interpolation.At0G2(points)
	})
}

func combineKeys(keys []*CertifiedKey, combine func(dealers []uint16, points []curve.G2) curve.G2) (*PublicKey, error) {
	if len(keys) == 0 {
		return nil, errors.New("threshold: no public keys to combine")
	}
	points, dealers := make([]curve.G2, len(keys)), make([]uint16, len(keys))
	for i, k := range keys {
		if k == nil || k.key == nil {
			return nil, errMissing
		}
		for _, other := range keys[:i] {
			if other.dealer == k.dealer || other.commitment == k.commitment {
				return nil, fmt.Errorf("threshold: two keys of dealer %d, or of one dealing", k.dealer)
			}
		}
		points[i], dealers[i] = k.key.point, uint16(k.dealer)
	}
	return newPublicKey(combine(dealers, points))
}
