package governance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// fakeTPM writes quotes by hand (TPM 2.0 Library, Part 2, TPMS_ATTEST), so that tests can make a TPM say anything.
type fakeTPM struct {
	t          *testing.T
	key        *ecdsa.PrivateKey
	pcrs       map[int]attest.Measurement
	resetCount uint32
	firmware   uint64
	// since is the time since the reset, version the value of the approval counter.
	since   time.Duration
	version uint64
}

func newFakeTPM(t *testing.T) *fakeTPM {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return &fakeTPM{t: t, key: key, pcrs: map[int]attest.Measurement{7: good7, 14: good14}, resetCount: 5, firmware: 0x20_0000}
}

var (
	good7, good14 = attest.Measurement(sha256.Sum256([]byte("boot loader"))), attest.Measurement(sha256.Sum256([]byte("binary")))
	bad14         = attest.Measurement(sha256.Sum256([]byte("tampered binary")))
)

// boot is a power cycle into the given binary.
func (f *fakeTPM) boot(binary attest.Measurement) {
	f.resetCount++
	f.since = 0
	f.pcrs[14] = binary
}

// public is the TPMT_PUBLIC of a restricted ECDSA P-256 signing key.
func (f *fakeTPM) public() []byte {
	point, err := f.key.PublicKey.Bytes()
	require.NoError(f.t, err)
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

func name(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append([]byte{0x00, 0x0b}, sum[:]...)
}

// quote answers a nonce.
func (f *fakeTPM) quote(nonce []byte) ([]byte, error) {
	var values []keystore.PCRValue
	var bitmap [3]byte
	for i := range keystore.NumPCRs {
		if v, ok := f.pcrs[i]; ok {
			values = append(values, keystore.PCRValue{Index: i, Digest: v})
			bitmap[i/8] |= 1 << (i % 8)
		}
	}
	b := binary.BigEndian.AppendUint32(nil, 0xff544347)
	b = binary.BigEndian.AppendUint16(b, 0x8018)
	signer := name(append([]byte{0x40, 0x00, 0x00, 0x0b}, name(f.public())...))
	for _, field := range [][]byte{signer, nonce} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(field)))
		b = append(b, field...)
	}
	b = binary.BigEndian.AppendUint64(b, 1000)
	b = binary.BigEndian.AppendUint32(b, f.resetCount)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = append(b, 0) // safe is false: the policy must not mind
	b = binary.BigEndian.AppendUint64(b, f.firmware)
	b = append(b, 0, 0, 0, 1, 0x00, 0x0b, 3)
	b = append(b, bitmap[:]...)
	digest := keystore.PCRDigest(values)
	b = append(b, 0, 32)
	b = append(b, digest[:]...)

	sum := sha256.Sum256(b)
	r, s, err := ecdsa.Sign(rand.Reader, f.key, sum[:])
	require.NoError(f.t, err)
	signature, err := keystore.EncodeSignature(r, s)
	require.NoError(f.t, err)
	return (&keystore.Quote{Attest: b, Signature: signature, PCRs: values}).MarshalBinary()
}
