package keystore

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/reseal-bft/reseal/keystore/mutant"
	"golang.org/x/crypto/cryptobyte"
)

// Structures of the TPM 2.0 Library Specification, Part 2, as far as a verifier
// meets them. They are parsed by hand and in one form only, since the verifier
// runs in a replicated state machine: same bytes, same verdict, no reflection.
const (
	tpmGenerated    = 0xff544347 // TPM_GENERATED_VALUE
	tpmNV           = 0x8014     // TPM_ST_ATTEST_NV
	tpmCertify      = 0x8017     // TPM_ST_ATTEST_CERTIFY
	tpmQuote        = 0x8018     // TPM_ST_ATTEST_QUOTE
	tpmTime         = 0x8019     // TPM_ST_ATTEST_TIME
	tpmECC          = 0x0023
	tpmSHA256       = 0x000b
	tpmECDSA        = 0x0018
	tpmNull         = 0x0010
	tpmP256         = 0x0003
	tpmEndorsement  = 0x4000000b // TPM_RH_ENDORSEMENT
	maxTPMStructure = 1024       // larger than any of the structures here
	signatureSize   = 64         // r and s, 32 bytes each
)

// Attributes of an object (TPMA_OBJECT).
const (
	attrFixedTPM            = 1 << 1
	attrFixedParent         = 1 << 4
	attrSensitiveDataOrigin = 1 << 5
	attrUserWithAuth        = 1 << 6
	attrNoDA                = 1 << 10
	attrRestricted          = 1 << 16
	attrDecrypt             = 1 << 17
	attrSign                = 1 << 18
)

// inDevice are the attributes of a key that was made in a TPM and stays there, and
// that nobody's wrong tries lock.
const inDevice = attrFixedTPM | attrFixedParent | attrSensitiveDataOrigin | attrNoDA

var errMalformed = errors.New("malformed TPM structure")

// eccPublic is a TPMT_PUBLIC of an ECDSA P-256 key.
type eccPublic struct {
	attributes uint32
	policy     []byte // authPolicy, may be empty
	key        *ecdsa.PublicKey
	name       []byte
}

// guarded reports whether a signing key of the given attributes answers to its
// policy alone: an authorization value, which would be empty, does not do.
func (p *eccPublic) guarded(attributes uint32) bool {
	want := uint32(inDevice | attrSign | attributes)
	if mutant.Is(mutant.OpenIdentity) {
		return p.attributes&want == want
	}
	return p.attributes&(want|attrRestricted|attrDecrypt|attrUserWithAuth) == want && len(p.policy) == sha256.Size
}

// parsePublic reads the TPMT_PUBLIC of a P-256 signing key.
func parsePublic(b []byte) (*eccPublic, error) {
	var p eccPublic
	var alg, nameAlg, symmetric, curve, kdf uint16
	var policy, x, y cryptobyte.String
	s := cryptobyte.String(b)
	ok := len(b) <= maxTPMStructure &&
		s.ReadUint16(&alg) && alg == tpmECC &&
		s.ReadUint16(&nameAlg) && nameAlg == tpmSHA256 &&
		s.ReadUint32(&p.attributes) &&
		s.ReadUint16LengthPrefixed(&policy) &&
		s.ReadUint16(&symmetric) && symmetric == tpmNull &&
		readScheme(&s) &&
		s.ReadUint16(&curve) && curve == tpmP256 &&
		s.ReadUint16(&kdf) && kdf == tpmNull &&
		s.ReadUint16LengthPrefixed(&x) && len(x) <= 32 &&
		s.ReadUint16LengthPrefixed(&y) && len(y) <= 32 && s.Empty()
	if !ok {
		return nil, fmt.Errorf("%w: the public area is not that of a P-256 signing key", errMalformed)
	}
	var point [65]byte
	point[0] = 4
	new(big.Int).SetBytes(x).FillBytes(point[1:33])
	new(big.Int).SetBytes(y).FillBytes(point[33:])
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point[:])
	if err != nil {
		return nil, fmt.Errorf("%w: the public key is no point of P-256", errMalformed)
	}
	p.key, p.name, p.policy = key, objectName(b), policy
	return &p, nil
}

// PublicKey returns the key of a TPMT_PUBLIC of a P-256 signing key.
func PublicKey(public []byte) (*ecdsa.PublicKey, error) {
	p, err := parsePublic(public)
	if err != nil {
		return nil, err
	}
	return p.key, nil
}

// readScheme reads a TPMT_ECC_SCHEME that is either ECDSA with SHA-256 or null.
func readScheme(s *cryptobyte.String) bool {
	var scheme, hash uint16
	if !s.ReadUint16(&scheme) {
		return false
	}
	return scheme == tpmNull || scheme == tpmECDSA && s.ReadUint16(&hash) && hash == tpmSHA256
}

// objectName returns the Name of an object with this public area.
func objectName(public []byte) []byte {
	sum := sha256.Sum256(public)
	return append(binary.BigEndian.AppendUint16(nil, tpmSHA256), sum[:]...)
}

// endorsementName returns the qualified name of a primary key of the
// endorsement hierarchy.
func endorsementName(name []byte) []byte {
	return objectName(append(binary.BigEndian.AppendUint32(nil, tpmEndorsement), name...))
}

// attest is a TPMS_ATTEST up to its type-specific part.
type attest struct {
	kind                     uint16
	signer, extra            cryptobyte.String
	clock                    uint64
	resetCount, restartCount uint32
	safe                     bool
	firmware                 uint64
	rest                     cryptobyte.String
}

// parseAttest reads the common part of a TPMS_ATTEST of the given kind.
func parseAttest(b []byte, kind uint16) (*attest, error) {
	var a attest
	var magic uint32
	var safe uint8
	s := cryptobyte.String(b)
	ok := len(b) <= maxTPMStructure &&
		s.ReadUint32(&magic) && magic == tpmGenerated &&
		s.ReadUint16(&a.kind) && a.kind == kind &&
		s.ReadUint16LengthPrefixed(&a.signer) &&
		s.ReadUint16LengthPrefixed(&a.extra) &&
		s.ReadUint64(&a.clock) && s.ReadUint32(&a.resetCount) && s.ReadUint32(&a.restartCount) &&
		s.ReadUint8(&safe) && safe <= 1 &&
		s.ReadUint64(&a.firmware)
	if !ok {
		return nil, fmt.Errorf("%w: not an attestation of the expected kind", errMalformed)
	}
	a.safe, a.rest = safe == 1, s
	return &a, nil
}

// quoted reads the PCR selection and digest of a quote.
func (a *attest) quoted() (Selection, []byte, error) {
	var count uint32
	var hash uint16
	var bitmap, digest cryptobyte.String
	s := a.rest
	ok := s.ReadUint32(&count) && count == 1 &&
		s.ReadUint16(&hash) && hash == tpmSHA256 &&
		s.ReadUint8LengthPrefixed(&bitmap) && len(bitmap) == 3 &&
		s.ReadUint16LengthPrefixed(&digest) && len(digest) == sha256.Size && s.Empty()
	if !ok {
		return 0, nil, fmt.Errorf("%w: not a quote over the SHA-256 bank alone", errMalformed)
	}
	return Selection(bitmap[0]) | Selection(bitmap[1])<<8 | Selection(bitmap[2])<<16, digest, nil
}

// certified reads the name of the object that was certified.
func (a *attest) certified() ([]byte, error) {
	var name, qualified cryptobyte.String
	s := a.rest
	if !s.ReadUint16LengthPrefixed(&name) || !s.ReadUint16LengthPrefixed(&qualified) || !s.Empty() {
		return nil, fmt.Errorf("%w: not a certification", errMalformed)
	}
	return name, nil
}

// time reads the time since the reset, in milliseconds. The structure repeats the
// clock of the common part (TPMS_TIME_ATTEST_INFO).
func (a *attest) time() (uint64, error) {
	var since, clock, firmware uint64
	var resets, restarts uint32
	var safe uint8
	s := a.rest
	ok := s.ReadUint64(&since) && s.ReadUint64(&clock) && s.ReadUint32(&resets) && s.ReadUint32(&restarts) &&
		s.ReadUint8(&safe) && safe <= 1 && s.ReadUint64(&firmware) && s.Empty()
	if !ok || resets != a.resetCount || restarts != a.restartCount || firmware != a.firmware {
		return 0, fmt.Errorf("%w: not a time", errMalformed)
	}
	return since, nil
}

// counter reads the name and the whole content of an NV index of 8 bytes.
func (a *attest) counter() (name []byte, value uint64, err error) {
	var index, content cryptobyte.String
	var offset uint16
	s := a.rest
	ok := s.ReadUint16LengthPrefixed(&index) && s.ReadUint16(&offset) && offset == 0 &&
		s.ReadUint16LengthPrefixed(&content) && content.ReadUint64(&value) && content.Empty() && s.Empty()
	if !ok {
		return nil, 0, fmt.Errorf("%w: not a counter", errMalformed)
	}
	return index, value, nil
}

// p256HalfOrder bounds s of a canonical signature.
var p256HalfOrder = new(big.Int).Rsh(elliptic.P256().Params().N, 1)

// EncodeSignature writes an ECDSA P-256 signature as r and s of 32 bytes each,
// with the smaller of s and -s, so that a signature has one form only.
func EncodeSignature(r, s *big.Int) ([]byte, error) {
	n := elliptic.P256().Params().N
	if r.Sign() <= 0 || s.Sign() <= 0 || r.Cmp(n) >= 0 || s.Cmp(n) >= 0 {
		return nil, fmt.Errorf("%w: signature out of range", errMalformed)
	}
	if s.Cmp(p256HalfOrder) > 0 {
		s = new(big.Int).Sub(n, s)
	}
	out := make([]byte, signatureSize)
	r.FillBytes(out[:32])
	s.FillBytes(out[32:])
	return out, nil
}

// verifySignature checks a signature in the form of EncodeSignature.
func verifySignature(key *ecdsa.PublicKey, message, sig []byte) bool {
	if len(sig) != signatureSize {
		return false
	}
	r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
	digest := sha256.Sum256(message)
	return s.Cmp(p256HalfOrder) <= 0 && ecdsa.Verify(key, digest[:], r, s)
}
