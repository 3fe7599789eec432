package keystore

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// Sizes of a quote, in bytes.
const (
	MinNonce      = 16
	MaxNonce      = 64 // the largest qualifying data that every TPM takes
	MaxAttest     = 256
	MaxQuote      = 1 + 3*(2+MaxAttest+signatureSize) + 1 + NumPCRs*33
	quoteVersion  = 2
	pcrValueBytes = 33
)

// Quote is a TPM's signed statement about its PCRs and boots, the time since the
// last of them, and its approval counter: three statements with the same nonce. The
// first alone is what other tools call a quote.
type Quote struct {
	Attest    []byte     // TPMS_ATTEST of TPM2_Quote, as the TPM signed it
	Signature []byte     // r and s of ECDSA P-256 over SHA-256, see EncodeSignature
	PCRs      []PCRValue // the quoted PCRs, ascending; Attest holds only their digest

	Time    Statement // of TPM2_GetTime
	Counter Statement // of TPM2_NV_Certify, about the approval counter
}

// Statement is something else that the TPM says and signs with the attestation key.
type Statement struct {
	Attest    []byte // TPMS_ATTEST
	Signature []byte // see EncodeSignature
}

// Claims is what a verified quote says.
type Claims struct {
	PCRs         []PCRValue
	ResetCount   uint32 // boots since the TPM was last cleared; a decrease means it was cleared
	RestartCount uint32 // resumes since the last boot
	Firmware     uint64 // the TPM's firmware version
	Clock        uint64 // milliseconds that the TPM was powered since it was last cleared
	Safe         bool   // false when the clock may have gone back after a power cut

	// SinceReset is how many milliseconds before the quote the machine was reset, by the TPM's own
	// clock; while RestartCount is not 0, it is how many before the quote the machine was resumed,
	// and tells nothing of the reset. A TPM may be off by 15% (TPM 2.0 Part 1, section 36.3): who
	// compares it with another clock allows for that.
	SinceReset uint64
	// ApprovalVersion is the value of the approval counter: the TPM refuses
	// approvals of lower versions.
	ApprovalVersion uint64
	// Slot of the TPM that the approval counter belongs to. A replica's
	// keystore is in slot 0; the others are for checks and tests.
	Slot uint8
}

// MarshalBinary returns the one encoding of a quote, at most MaxQuote bytes:
// version, three times attest (16-bit length) and signature (of the quote, the time,
// the counter), number of PCRs, index and digest of each.
func (q *Quote) MarshalBinary() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddUint8(quoteVersion)
	for _, s := range q.statements() {
		if len(*s.attest) > MaxAttest || len(*s.signature) != signatureSize {
			return nil, fmt.Errorf("quote: %w", errMalformed)
		}
		b.AddUint16LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes(*s.attest) })
		b.AddBytes(*s.signature)
	}
	if _, err := SelectionOf(q.PCRs); err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	addPCRs(&b, q.PCRs)
	return b.Bytes()
}

// statements lists the three statements in the order of their encoding.
func (q *Quote) statements() [3]struct{ attest, signature *[]byte } {
	return [3]struct{ attest, signature *[]byte }{
		{&q.Attest, &q.Signature}, {&q.Time.Attest, &q.Time.Signature}, {&q.Counter.Attest, &q.Counter.Signature},
	}
}

// ParseQuote reads what MarshalBinary writes and accepts nothing else. It does
// not verify.
func ParseQuote(data []byte) (*Quote, error) {
	var version uint8
	var q Quote
	s := cryptobyte.String(data)
	ok := len(data) <= MaxQuote && s.ReadUint8(&version) && version == quoteVersion
	for _, part := range q.statements() {
		ok = ok && readBytes(&s, part.attest, MaxAttest) && s.ReadBytes(part.signature, signatureSize)
	}
	if !ok || !readPCRs(&s, &q.PCRs) || !s.Empty() {
		return nil, fmt.Errorf("quote: %w", errMalformed)
	}
	return &q, nil
}

// VerifyQuote checks a quote against the public area of an attestation key and
// the nonce that was asked for. It is a pure function: every replica comes to
// the same verdict. The key must be a restricted P-256 signing key of the
// endorsement hierarchy (under the owner hierarchy a TPM obfuscates its counts)
// that answers to its policy alone. That the PCRs are those of an
// approved state after Claim (Capped) is for the caller to compare. Any failure is
// an ErrInvalid with a sentence, which is ErrOtherKey or ErrOtherNonce where it is that.
func VerifyQuote(akPublic, nonce []byte, q *Quote) (*Claims, error) {
	if len(nonce) < MinNonce || len(nonce) > MaxNonce {
		return nil, fmt.Errorf("%w: a nonce has %d to %d bytes, not %d", ErrInvalid, MinNonce, MaxNonce, len(nonce))
	}
	ak, err := parseAttestationKey(akPublic)
	if err != nil {
		return nil, err
	}
	var said [3]*attest
	for i, kind := range []uint16{tpmQuote, tpmTime, tpmNV} {
		s := q.statements()[i]
		if said[i], err = ak.said(kind, nonce, *s.attest, *s.signature); err != nil {
			return nil, err
		}
		if !said[i].sameBoot(said[0]) {
			return nil, fmt.Errorf("%w: its parts are from different boots", ErrInvalid)
		}
	}
	if err := said[0].checkPCRs(q.PCRs); err != nil {
		return nil, err
	}
	claims := said[0].claims()
	claims.PCRs = q.PCRs
	if claims.SinceReset, err = said[1].time(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	name, value, err := said[2].counter()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	claims.ApprovalVersion = value
	if claims.Slot, err = slotOf(name); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return claims, nil
}

// said checks that the key signed a statement of a kind about a nonce.
func (p *eccPublic) said(kind uint16, nonce, attest, signature []byte) (*attest, error) {
	if len(attest) > MaxAttest || !verifySignature(p.key, attest, signature) {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, ErrOtherKey)
	}
	a, err := parseAttest(attest, kind)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return a, a.checkOrigin(p, nonce)
}

// sameBoot reports whether two statements were made in one boot of one firmware.
func (a *attest) sameBoot(b *attest) bool {
	return a.resetCount == b.resetCount && a.restartCount == b.restartCount && a.firmware == b.firmware
}

// claims is what every statement says.
func (a *attest) claims() *Claims {
	return &Claims{
		ResetCount: a.resetCount, RestartCount: a.restartCount,
		Firmware: a.firmware, Clock: a.clock, Safe: a.safe,
	}
}

// slotOf finds the slot whose approval counter has a name.
func slotOf(name []byte) (uint8, error) {
	for slot := range 1 << 8 {
		if bytes.Equal(name, CounterName(ApprovalCounter(uint8(slot)))) {
			return uint8(slot), nil
		}
	}
	return 0, errors.New("what is certified is no approval counter")
}

// checkOrigin checks that a is the answer to this nonce, by a primary key of
// the endorsement hierarchy.
func (a *attest) checkOrigin(ak *eccPublic, nonce []byte) error {
	if subtle.ConstantTimeCompare(a.extra, nonce) != 1 {
		return fmt.Errorf("%w: %w", ErrInvalid, ErrOtherNonce)
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
	if !ak.guarded(attrRestricted) {
		return nil, fmt.Errorf("%w: the attestation key is not a restricted signing key that stays in its TPM and answers to its policy alone", ErrInvalid)
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
