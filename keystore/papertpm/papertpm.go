package papertpm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/reseal-bft/reseal/keystore"
)

// TPM is a TPM that says what its fields hold. Not safe for concurrent use.
type TPM struct {
	PCRs       map[int][sha256.Size]byte // before Claim
	Unclaimed  bool                      // quotes show the PCRs as they are, and not after Claim
	ResetCount uint32
	Restarts   uint32
	SinceReset uint64 // milliseconds
	Firmware   uint64
	Approvals  uint64 // value of the approval counter
	Slot       uint8

	key *ecdsa.PrivateKey
}

// New returns a TPM with an attestation key of its own.
func New() (*TPM, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return &TPM{key: key, PCRs: make(map[int][sha256.Size]byte)}, err
}

// Public returns the attestation key as a TPM makes it: TPMT_PUBLIC of a restricted
// ECDSA P-256 key that answers to a policy.
func (t *TPM) Public() []byte {
	point, err := t.key.PublicKey.Bytes()
	if err != nil {
		panic(err) // a key of P-256 has a point
	}
	// fixedTPM, fixedParent, sensitiveDataOrigin, noDA, restricted, sign
	const attributes = 1<<1 | 1<<4 | 1<<5 | 1<<10 | 1<<16 | 1<<18
	b := be.AppendUint16(nil, 0x0023)
	b = be.AppendUint16(b, 0x000b)
	b = be.AppendUint32(b, attributes)
	b = sized(b, make([]byte, sha256.Size))
	for _, v := range []uint16{0x0010, 0x0018, 0x000b, 0x0003, 0x0010} {
		b = be.AppendUint16(b, v)
	}
	return sized(sized(b, point[1:33]), point[33:])
}

var be = binary.BigEndian

// sized appends a byte string behind its 16-bit length.
func sized(b, s []byte) []byte { return append(be.AppendUint16(b, uint16(len(s))), s...) }

// name is the Name of an object: its hash algorithm and hash.
func name(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append([]byte{0x00, 0x0b}, sum[:]...)
}

// Quote answers a nonce.
func (t *TPM) Quote(nonce []byte) (*keystore.Quote, error) {
	var values []keystore.PCRValue
	var bitmap [3]byte
	for _, i := range slices.Sorted(maps.Keys(t.PCRs)) {
		values = append(values, keystore.PCRValue{Index: i, Digest: t.PCRs[i]})
		bitmap[i/8] |= 1 << (i % 8)
	}
	if !t.Unclaimed {
		values = keystore.Capped(values)
	}
	quoted := append([]byte{0, 0, 0, 1, 0x00, 0x0b, 3}, bitmap[:]...)
	digest := keystore.PCRDigest(values)
	q := &keystore.Quote{PCRs: values}
	first, err := t.say(0x8018, nonce, sized(quoted, digest[:]))
	if err != nil {
		return nil, err
	}
	q.Attest, q.Signature = first.Attest, first.Signature
	if q.Time, err = t.say(0x8019, nonce, be.AppendUint64(t.clock(be.AppendUint64(nil, t.SinceReset)), t.Firmware)); err != nil {
		return nil, err
	}
	counter := be.AppendUint16(sized(nil, keystore.CounterName(keystore.ApprovalCounter(t.Slot))), 0)
	q.Counter, err = t.say(0x8014, nonce, sized(counter, be.AppendUint64(nil, t.Approvals)))
	return q, err
}

// clock appends TPMS_CLOCK_INFO. Safe is false, as after any power cut.
func (t *TPM) clock(b []byte) []byte {
	b = be.AppendUint64(b, 1000)
	b = be.AppendUint32(b, t.ResetCount)
	return append(be.AppendUint32(b, t.Restarts), 0)
}

// say signs a TPMS_ATTEST of a kind (TPM 2.0 Library, Part 2, section 10.12.12).
func (t *TPM) say(kind uint16, nonce, what []byte) (keystore.Statement, error) {
	b := be.AppendUint32(nil, 0xff544347)
	b = be.AppendUint16(b, kind)
	b = sized(b, name(append([]byte{0x40, 0x00, 0x00, 0x0b}, name(t.Public())...)))
	b = t.clock(sized(b, nonce))
	b = append(be.AppendUint64(b, t.Firmware), what...)
	sum := sha256.Sum256(b)
	r, s, err := ecdsa.Sign(rand.Reader, t.key, sum[:])
	if err != nil {
		return keystore.Statement{}, err
	}
	signature, err := keystore.EncodeSignature(r, s)
	return keystore.Statement{Attest: b, Signature: signature}, err
}
