package keystore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
)

const (
	approvalVersion = 2
	// MaxApproval is the size of the largest approval, in bytes.
	MaxApproval = 1 + 1 + 32 + 8 + 1 + NumPCRs*pcrValueBytes + signatureSize
)

// BootState is what an operator approves: PCR values on one TPM, while its
// approval counter has not passed Version.
type BootState struct {
	// Device is the DeviceID of the TPM.
	Device [sha256.Size]byte
	// PCRs are the values before Claim, ascending, of exactly the keystore's
	// selection.
	PCRs []PCRValue
	// Version is the Status.ApprovalVersion of the keystore at the time, or a
	// later one. RevokeApprovals raises the counter past it.
	Version uint64
	// Slot of the TPM that holds the keystore; 0 except in tests.
	Slot uint8
}

// Policy returns the policy digest of the state: PolicyPCR, then PolicyNV of
// the slot's approval counter at or below Version.
func (s BootState) Policy() ([sha256.Size]byte, error) {
	selection, err := SelectionOf(s.PCRs)
	if err != nil {
		return policy{}, err
	}
	return policy{}.pcr(s.PCRs, selection).
		nv(ApprovalCounter(s.Slot), opUnsignedAtMost, s.Version), nil
}

// Approval is a boot state under an operator's signature.
type Approval struct {
	State     BootState
	Signature []byte // r and s, see EncodeSignature
}

// Approve signs a boot state with an operator's ECDSA P-256 key. It needs no
// TPM: operators work offline.
func Approve(rand io.Reader, operator crypto.Signer, state BootState) (*Approval, error) {
	key, ok := operator.Public().(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("approve: an operator key is an ECDSA P-256 key, not %T", operator.Public())
	}
	if _, err := OperatorPublic(key); err != nil {
		return nil, fmt.Errorf("approve: %w", err)
	}
	statement, err := state.statement()
	if err != nil {
		return nil, fmt.Errorf("approve: %w", err)
	}
	digest := sha256.Sum256(statement)
	der, err := operator.Sign(rand, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("approve: %w", err)
	}
	sig, err := signatureFromDER(der)
	if err != nil {
		return nil, fmt.Errorf("approve: %w", err)
	}
	return &Approval{State: state, Signature: sig}, nil
}

// statement returns what an operator signs: the policy and the ApprovalRef.
func (s BootState) statement() ([]byte, error) {
	p, err := s.Policy()
	if err != nil {
		return nil, err
	}
	ref := ApprovalRef(s.Device, s.Slot)
	return append(p[:], ref[:]...), nil
}

// Verify checks the operator's signature.
func (a *Approval) Verify(operator *ecdsa.PublicKey) error {
	statement, err := a.State.statement()
	if err != nil {
		return fmt.Errorf("approval: %w", err)
	}
	if operator == nil || !verifySignature(operator, statement, a.Signature) {
		return fmt.Errorf("approval: %w: it is not signed by the operator key", ErrInvalid)
	}
	return nil
}

// MarshalBinary returns the one encoding of an approval, at most MaxApproval
// bytes.
func (a *Approval) MarshalBinary() ([]byte, error) {
	if _, err := SelectionOf(a.State.PCRs); err != nil || len(a.Signature) != signatureSize {
		return nil, fmt.Errorf("approval: %w", errMalformed)
	}
	var b cryptobyte.Builder
	b.AddUint8(approvalVersion)
	b.AddUint8(a.State.Slot)
	b.AddBytes(a.State.Device[:])
	b.AddUint64(a.State.Version)
	addPCRs(&b, a.State.PCRs)
	b.AddBytes(a.Signature)
	return b.Bytes()
}

// ParseApproval reads what MarshalBinary writes and accepts nothing else. It
// does not verify.
func ParseApproval(data []byte) (*Approval, error) {
	var version uint8
	var a Approval
	s := cryptobyte.String(data)
	ok := len(data) <= MaxApproval &&
		s.ReadUint8(&version) && version == approvalVersion &&
		s.ReadUint8(&a.State.Slot) && s.CopyBytes(a.State.Device[:]) && s.ReadUint64(&a.State.Version) &&
		readPCRs(&s, &a.State.PCRs) &&
		s.ReadBytes(&a.Signature, signatureSize) && s.Empty()
	if !ok {
		return nil, fmt.Errorf("approval: %w", errMalformed)
	}
	return &a, nil
}

// signatureFromDER converts what crypto.Signer returns.
func signatureFromDER(der []byte) ([]byte, error) {
	var v struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &v); err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("%w: the signature is not ASN.1 DER", errMalformed)
	}
	return EncodeSignature(v.R, v.S)
}
