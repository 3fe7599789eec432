package wholesim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// tpm writes quotes by hand (TPM 2.0 Library, Part 2, TPMS_ATTEST).
type tpm struct {
	key        *ecdsa.PrivateKey
	resetCount atomic.Uint32
}

func newTPM() (*tpm, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	t := &tpm{key: key}
	t.resetCount.Store(1)
	return t, err
}

// The boot state of the simulated machines.
const (
	bootPCR  = 7
	firmware = 1 << 16
)

var bootValue = attest.Measurement(sha256.Sum256([]byte("simulated machine")))

func (t *tpm) resets() uint32 { return t.resetCount.Load() }

// boot is a power cycle.
func (t *tpm) boot() { t.resetCount.Add(1) }

// public is the TPMT_PUBLIC of a restricted ECDSA P-256 signing key.
func (t *tpm) public() []byte {
	point, err := t.key.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	const attributes = 1<<1 | 1<<4 | 1<<5 | 1<<6 | 1<<16 | 1<<18
	b := binary.BigEndian.AppendUint16(nil, 0x0023)
	b = binary.BigEndian.AppendUint16(b, 0x000b)
	b = binary.BigEndian.AppendUint32(b, attributes)
	for _, v := range []uint16{0, 0x0010, 0x0018, 0x000b, 0x0003, 0x0010, 32} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	b = append(b, point[1:33]...)
	b = binary.BigEndian.AppendUint16(b, 32)
	return append(b, point[33:]...)
}

// nameOf is a TPM's name of an object: the hash algorithm and the hash.
func nameOf(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append([]byte{0x00, 0x0b}, sum[:]...)
}

// quote answers a nonce.
func (t *tpm) quote(nonce []byte) (*keystore.Quote, error) {
	values := []keystore.PCRValue{{Index: bootPCR, Digest: bootValue}}
	b := binary.BigEndian.AppendUint32(nil, 0xff544347)
	b = binary.BigEndian.AppendUint16(b, 0x8018)
	signer := nameOf(append([]byte{0x40, 0x00, 0x00, 0x0b}, nameOf(t.public())...))
	for _, field := range [][]byte{signer, nonce} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(field)))
		b = append(b, field...)
	}
	b = binary.BigEndian.AppendUint64(b, 1000)
	b = binary.BigEndian.AppendUint32(b, t.resets())
	b = binary.BigEndian.AppendUint32(b, 0)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint64(b, firmware)
	b = append(b, 0, 0, 0, 1, 0x00, 0x0b, 3, 1<<bootPCR, 0, 0)
	digest := keystore.PCRDigest(values)
	b = append(b, 0, 32)
	b = append(b, digest[:]...)
	sum := sha256.Sum256(b)
	r, s, err := ecdsa.Sign(rand.Reader, t.key, sum[:])
	if err != nil {
		return nil, err
	}
	signature, err := keystore.EncodeSignature(r, s)
	return &keystore.Quote{Attest: b, Signature: signature, PCRs: values}, err
}
