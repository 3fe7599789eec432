package keystore

import (
	"crypto/subtle"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// Sizes of a quote, in bytes.
const (
	MinNonce      = 16
	MaxNonce      = 64 // the largest qualifying data that every TPM takes
	MaxAttest     = 256
	MaxQuote      = 1 + 2 + MaxAttest + signatureSize + 1 + NumPCRs*33
	quoteVersion  = 1
	pcrValueBytes = 33
)

// Quote is a TPM's signed statement about its PCRs and boots.
type Quote struct {
	Attest    []byte     // TPMS_ATTEST, as the TPM signed it
	Signature []byte     // r and s of ECDSA P-256 over SHA-256, see EncodeSignature
	PCRs      []PCRValue // the quoted PCRs, ascending; Attest holds only their digest
}

// Claims is what a verified quote says.
type Claims struct {
	PCRs         []PCRValue
	ResetCount   uint32 // boots since the TPM was last cleared; a decrease means it was cleared
	RestartCount uint32 // resumes since the last boot
	Firmware     uint64 // the TPM's firmware version
	Clock        uint64 // milliseconds that the TPM was powered since it was last cleared
	Safe         bool   // false when the clock may have gone back after a power cut

	// SinceReset is how many milliseconds before the quote the machine was
	// reset, by the TPM's own clock. A TPM may be off by 15% (TPM 2.0 Part 1,
	// section 36.3): who compares it with another clock allows for that.
	SinceReset uint64
	// ApprovalVersion is the value of the approval counter: the TPM refuses
	// approvals of lower versions.
	ApprovalVersion uint64
	// Slot of the TPM that the approval counter belongs to. A replica's
	// keystore is in slot 0; the others are for checks and tests.
	Slot uint8
}

// MarshalBinary returns the one encoding of a quote, at most MaxQuote bytes:
// version, attest (16-bit length), signature, number of PCRs, index and digest
// of each.
func (q *Quote) MarshalBinary() ([]byte, error) {
	if len(q.Attest) > MaxAttest || len(q.Signature) != signatureSize {
		return nil, fmt.Errorf("quote: %w", errMalformed)
	}
	if _, err := SelectionOf(q.PCRs); err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	var b cryptobyte.Builder
	b.AddUint8(quoteVersion)
	b.AddUint16LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes(q.Attest) })
	b.AddBytes(q.Signature)
	addPCRs(&b, q.PCRs)
	return b.Bytes()
}

// ParseQuote reads what MarshalBinary writes and accepts nothing else. It does
// not verify.
func ParseQuote(data []byte) (*Quote, error) {
	var version uint8
	var attest cryptobyte.String
	var q Quote
	s := cryptobyte.String(data)
	ok := len(data) <= MaxQuote &&
		s.ReadUint8(&version) && version == quoteVersion &&
		s.ReadUint16LengthPrefixed(&attest) && len(attest) <= MaxAttest &&
		s.ReadBytes(&q.Signature, signatureSize) &&
		readPCRs(&s, &q.PCRs) && s.Empty()
	if !ok {
		return nil, fmt.Errorf("quote: %w", errMalformed)
	}
	q.Attest = append([]byte(nil), attest...)
	return &q, nil
}

// VerifyQuote checks a quote against the public area of an attestation key and
// the nonce that was asked for. It is a pure function: every replica comes to
// the same verdict. The key must be a restricted P-256 signing key of the
// endorsement hierarchy (under the owner hierarchy a TPM obfuscates its
// counts). Any failure is an ErrInvalid with a sentence.
func VerifyQuote(akPublic, nonce []byte, q *Quote) (*Claims, error) {
	if len(nonce) < MinNonce || len(nonce) > MaxNonce {
		return nil, fmt.Errorf("%w: a nonce has %d to %d bytes, not %d", ErrInvalid, MinNonce, MaxNonce, len(nonce))
	}
	ak, err := parseAttestationKey(akPublic)
	if err != nil {
		return nil, err
	}
	if len(q.Attest) > MaxAttest || !verifySignature(ak.key, q.Attest, q.Signature) {
		return nil, fmt.Errorf("%w: the quote's signature is not that of the attestation key", ErrInvalid)
	}
	a, err := parseAttest(q.Attest, tpmQuote)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := a.checkOrigin(ak, nonce); err != nil {
		return nil, err
	}
	if err := a.checkPCRs(q.PCRs); err != nil {
		return nil, err
	}
	return &Claims{
		PCRs: q.PCRs, ResetCount: a.resetCount, RestartCount: a.restartCount,
		Firmware: a.firmware, Clock: a.clock, Safe: a.safe,
	}, nil
}

// checkOrigin checks that a is the answer to this nonce, by a primary key of
// the endorsement hierarchy.
func (a *attest) checkOrigin(ak *eccPublic, nonce []byte) error {
	if subtle.ConstantTimeCompare(a.extra, nonce) != 1 {
		return fmt.Errorf("%w: it answers another nonce", ErrInvalid)
	}
	if subtle.ConstantTimeCompare(a.signer, endorsementName(ak.name)) != 1 {
		return fmt.Errorf("%w: the attestation key is not a primary key of the endorsement hierarchy", ErrInvalid)
	}
	return nil
}

// checkPCRs checks that the values are those that the quote is about.
func (a *attest) checkPCRs(values []PCRValue) error {
	quoted, digest, err := a.quoted()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	given, err := SelectionOf(values)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if given != quoted {
		return fmt.Errorf("%w: PCRs %v are quoted but %v are given", ErrInvalid, quoted, given)
	}
	if sum := PCRDigest(values); subtle.ConstantTimeCompare(sum[:], digest) != 1 {
		return fmt.Errorf("%w: the given PCR values are not the quoted ones", ErrInvalid)
	}
	return nil
}

// parseAttestationKey reads a key that signs only what a TPM says about itself.
func parseAttestationKey(public []byte) (*eccPublic, error) {
	ak, err := parsePublic(public)
	if err != nil {
		return nil, fmt.Errorf("%w: attestation key: %w", ErrInvalid, err)
	}
	const want = inDevice | attrRestricted | attrSign
	if ak.attributes&(want|attrDecrypt) != want {
		return nil, fmt.Errorf("%w: the attestation key is not a restricted signing key that stays in its TPM", ErrInvalid)
	}
	return ak, nil
}

// addPCRs writes a count and the values.
func addPCRs(b *cryptobyte.Builder, values []PCRValue) {
	b.AddUint8(uint8(len(values)))
	for _, v := range values {
		b.AddUint8(uint8(v.Index))
		b.AddBytes(v.Digest[:])
	}
}

// readPCRs reads what addPCRs writes, ascending and not empty.
func readPCRs(s *cryptobyte.String, out *[]PCRValue) bool {
	var n uint8
	if !s.ReadUint8(&n) || n > NumPCRs || len(*s) < int(n)*pcrValueBytes {
		return false
	}
	values := make([]PCRValue, n)
	for i := range values {
		var index uint8
		if !s.ReadUint8(&index) || !s.CopyBytes(values[i].Digest[:]) {
			return false
		}
		values[i].Index = int(index)
	}
	_, err := SelectionOf(values)
	*out = values
	return err == nil
}
