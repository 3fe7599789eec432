package threshold

import (
	"encoding/hex"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// SignatureLen and PublicKeyLen are encoded sizes in bytes.
const (
	SignatureLen = curve.G1Len
	PublicKeyLen = curve.G2Len
)

// Ciphersuite is the domain separation tag under which messages are hashed, that of the IETF draft
// draft-irtf-cfrg-bls-signature (basic scheme, signatures in G1).
const Ciphersuite = "BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"

var ciphersuite = []byte(Ciphersuite)

// Signature is a BLS signature: a compressed point of G1. A signature made by a group is the same
// bytes as one made by the whole secret key; any standard BLS library verifies it.
type Signature [SignatureLen]byte

// String is the signature in hexadecimal.
func (s Signature) String() string { return hex.EncodeToString(s[:]) }

// PartialSignature is a signature under one share. It is no proof that the holder of that share
// made it: see the package documentation.
type PartialSignature struct {
	Index     int // of the share, 1 to N
	Signature Signature
}

// decode decodes a signature and checks that it is a point of the subgroup other than infinity.
func (s *Signature) decode(p *curve.G1) error {
	if curve.DecodeG1(p, s[:]) != nil || curve.IsZero1(p) || !p.InG1() {
		return ErrInvalidSignature
	}
	return nil
}
