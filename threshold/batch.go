package threshold

import (
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// BatchItem is one signature of a batch.
type BatchItem struct {
	Key       *PublicKey
	Message   []byte
	Signature Signature
}

// BadItemsError names the items of a batch that do not verify, by their positions, ascending.
type BadItemsError struct{ Items []int }

func (e *BadItemsError) Error() string {
	return fmt.Sprintf("threshold: %d signatures of the batch do not verify: items %v", len(e.Items), e.Items)
}

// Unwrap makes errors.Is(err, ErrInvalidSignature) true.
func (e *BadItemsError) Unwrap() error { return ErrInvalidSignature }

// coefficientLen is the size in bytes of the random coefficients of batched checks: a false
// statement passes with probability 2^-128.
const coefficientLen = 16

// VerifyBatch verifies many signatures, under any keys and on any messages, with one multi-pairing:
// random multiples of all signatures are summed, and those of the message hashes per key. The
// multiples, 128 bits each, come from 32 bytes of rand and a hash of all items together: who
// chooses the items does not know them, and where rand is weak, constant or known he has to find
// items whose hash suits him, which is 2^128 work. If that fails each item is verified by itself
// and a *BadItemsError names the bad ones. An error of rand is returned as it is.
func VerifyBatch(rand io.Reader, items []BatchItem) error {
	switch len(items) {
	case 0:
		return nil
	case 1:
		return verifyEach(items)
	}
	if rand == nil {
		return errMissing
	}
	seed := make([]byte, sha256.Size)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return fmt.Errorf("threshold: reading randomness for a batch: %w", err)
	}
	if batchHolds(items, challenge("batch", len(items), seed, transcript(items))) {
		return nil
	}
	return verifyEach(items)
}

// transcript is a hash of all items of a batch.
func transcript(items []BatchItem) []byte {
	h := sha256.New()
	for i := range items {
		if key := items[i].Key; key != nil {
			h.Write(key.encoded[:])
		}
		message := sha256.Sum256(items[i].Message)
		h.Write(message[:])
		h.Write(items[i].Signature[:])
	}
	return h.Sum(nil)
}

// batchHolds checks e(sum c_i sig_i, g2) = product over keys e(sum c_i H(m_i), key).
func batchHolds(items []BatchItem, coefficients []byte) bool {
	sigs := make([]curve.G1, len(items))
	byKey := make(map[[PublicKeyLen]byte][]int, 1)
	for i := range items {
		if !items[i].Key.made() || items[i].Signature.decode(&sigs[i]) != nil {
			return false
		}
		key := items[i].Key.encoded
		byKey[key] = append(byKey[key], i)
	}
	sum := curve.MSM1(sigs, coefficients, 8*coefficientLen)
	if len(byKey) == 1 {
		hashes := sumHashes(items, byKey[items[0].Key.encoded], coefficients)
		return curve.CheckPairing(&sum, &hashes, items[0].Key.lines())
	}
	zero := curve.G1{}
	ps, qs := []curve.G1{curve.Sub1(&zero, &sum)}, []curve.G2{curve.Generator2()}
	for _, members := range byKey {
		ps = append(ps, sumHashes(items, members, coefficients))
		qs = append(qs, items[members[0]].Key.point)
	}
	return curve.ProductIsOne(ps, qs)
}

// sumHashes is the sum of c_i H(m_i) over the members.
func sumHashes(items []BatchItem, members []int, coefficients []byte) curve.G1 {
	hashes := make([]curve.G1, len(members))
	scalars := make([]byte, 0, len(members)*coefficientLen)
	for k, i := range members {
		hashes[k] = curve.HashToG1(items[i].Message, ciphersuite)
		scalars = append(scalars, coefficients[i*coefficientLen:(i+1)*coefficientLen]...)
	}
	return curve.MSM1(hashes, scalars, 8*coefficientLen)
}

func verifyEach(items []BatchItem) error {
	var bad []int
	for i, it := range items {
		if it.Key.Verify(it.Message, it.Signature) != nil {
			bad = append(bad, i)
		}
	}
	if bad != nil {
		return &BadItemsError{Items: bad}
	}
	return nil
}
