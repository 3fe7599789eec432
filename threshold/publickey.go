package threshold

import (
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// PublicKey verifies signatures: a point of G2 other than infinity. Immutable and safe for
// concurrent use.
type PublicKey struct {
	point   curve.G2
	encoded [PublicKeyLen]byte
	lines   func() *curve.Lines // of the point, computed at the first verification
}

// made reports whether the key was made by newPublicKey.
func (k *PublicKey) made() bool { return k != nil && k.lines != nil }

// newPublicKey wraps a point of the subgroup.
func newPublicKey(p curve.G2) (*PublicKey, error) {
	if curve.IsZero2(&p) {
		return nil, errors.New("threshold: the point at infinity is no public key")
	}
	k := &PublicKey{point: p, encoded: [PublicKeyLen]byte(p.Compress())}
	k.lines = sync.OnceValue(func() *curve.Lines { return curve.PrepareLines(&k.point) })
	return k, nil
}

// ParsePublicKey decodes the 96 bytes of a compressed point of G2.
func ParsePublicKey(b []byte) (*PublicKey, error) {
	var p curve.G2
	if err := curve.DecodeG2(&p, b); err != nil {
		return nil, fmt.Errorf("threshold: public key (%d bytes): %w", len(b), err)
	}
	return newPublicKey(p)
}

// Bytes returns the 96 bytes of the compressed key; of a nil key, none.
func (k *PublicKey) Bytes() []byte {
	if k == nil {
		return nil
	}
	return append([]byte(nil), k.encoded[:]...)
}

// String is the key in hexadecimal.
func (k *PublicKey) String() string { return hex.EncodeToString(k.Bytes()) }

// Equal reports whether two keys are the same; a nil key equals none.
func (k *PublicKey) Equal(other *PublicKey) bool {
	return k != nil && other != nil && k.encoded == other.encoded
}

// Verify checks one signature on msg and returns nil or ErrInvalidSignature. Nothing verifies under
// a nil or zero key.
func (k *PublicKey) Verify(msg []byte, sig Signature) error {
	if !k.made() {
		return errMissing
	}
	var s curve.G1
	if err := sig.decode(&s); err != nil {
		return err
	}
	h := curve.HashToG1(msg, ciphersuite)
	if !curve.CheckPairing(&s, &h, k.lines()) {
		return ErrInvalidSignature
	}
	return nil
}
