package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/internal/wire"
)

// MaxApproved bounds the boot states that are approved at a time.
const MaxApproved = 64

// Attestation is the policy by which evidence is judged.
type Attestation struct {
	// Required says that evidence needs a TPM quote. Without it a recovery proves possession of the
	// identity key only.
	Required bool `json:"required"`
	// PCRs are the registers of the SHA-256 bank that count, ascending.
	PCRs []int `json:"pcrs,omitempty"`
	// Approved are the boot states that are admitted; later ones are approved in the log.
	Approved []ApprovedState `json:"approved,omitempty"`
}

// ApprovedState is a boot state that operators approved.
type ApprovedState struct {
	// Name is 1 to 64 printable ASCII characters, unique.
	Name string `json:"name"`
	// PCRs gives the value of each register that the policy looks at.
	PCRs map[int]Measurement `json:"pcrs"`
	// MinimumFirmware is the least version of the TPM's firmware.
	MinimumFirmware uint64 `json:"minimum_firmware,omitempty"`
	// Approvals are the state's approvals towards the members' TPMs, by replica ascending: without
	// one of its own a TPM opens nothing in the state.
	Approvals []DeviceApproval `json:"approvals,omitempty"`
}

// DeviceApproval is the approval of a boot state towards the TPM of one member, see
// [keystore.Approval]; the registers are the state's.
type DeviceApproval struct {
	Replica bft.ReplicaID `json:"replica"`
	// Version is compared with the TPM's approval counter: a counter above it refuses the approval.
	Version uint64 `json:"version"`
	// Signature is that of the boot-approval key, 64 bytes.
	Signature []byte `json:"signature"`
}

// Validate checks every field. The error names the field and says what to do.
func (a *Attestation) Validate() error {
	for i, p := range a.PCRs {
		if p < 0 || p >= keystore.NumPCRs || i > 0 && p <= a.PCRs[i-1] {
			return fmt.Errorf("pcrs: list registers 0 to %d in ascending order, each once", keystore.NumPCRs-1)
		}
		if keystore.Resettable.Has(p) {
			return fmt.Errorf("pcrs: %d can be set back without a reset of the machine: choose others than %v", p, keystore.Resettable)
		}
	}
	if a.Required && len(a.PCRs) == 0 {
		return errors.New("pcrs: name the registers that count, like [0, 2, 4, 7, 14]")
	}
	if a.Required && len(a.Approved) == 0 {
		return errors.New("approved: name at least one boot state, or no replica can ever recover")
	}
	if len(a.Approved) > MaxApproved {
		return fmt.Errorf("approved: at most %d boot states", MaxApproved)
	}
	for i := range a.Approved {
		state := &a.Approved[i]
		if err := state.Validate(a.PCRs); err != nil {
			return fmt.Errorf("approved[%d]: %w", i, err)
		}
		if slices.ContainsFunc(a.Approved[:i], func(s ApprovedState) bool { return s.Name == state.Name }) {
			return fmt.Errorf("approved[%d]: the name %q is taken", i, state.Name)
		}
	}
	return nil
}

// Validate checks that the state gives a value for each of the policy's registers and no other.
func (s *ApprovedState) Validate(pcrs []int) error {
	if err := wire.CheckName("name", s.Name); err != nil {
		return err
	}
	for _, p := range pcrs {
		if _, ok := s.PCRs[p]; !ok {
			return fmt.Errorf("state %q has no value for PCR %d: give one for each register of the policy", s.Name, p)
		}
	}
	if len(s.PCRs) != len(pcrs) {
		return fmt.Errorf("state %q has values for registers that the policy does not look at: give exactly PCRs %v", s.Name, pcrs)
	}
	return nil
}

// SameAs says whether another state admits the same boots.
func (s *ApprovedState) SameAs(other *ApprovedState) bool {
	return maps.Equal(s.PCRs, other.PCRs) && s.MinimumFirmware == other.MinimumFirmware
}

// Values are the state's values of the given registers.
func (s *ApprovedState) Values(pcrs []int) []keystore.PCRValue {
	values := make([]keystore.PCRValue, 0, len(pcrs))
	for _, p := range pcrs {
		values = append(values, keystore.PCRValue{Index: p, Digest: s.PCRs[p]})
	}
	return values
}

// Measurement is the content of a PCR of the SHA-256 bank. Its text is 64 hexadecimal digits.
type Measurement [sha256.Size]byte

// String returns the hexadecimal digits.
func (m Measurement) String() string { return hex.EncodeToString(m[:]) }

// MarshalText writes the hexadecimal digits.
func (m Measurement) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads hexadecimal digits.
func (m *Measurement) UnmarshalText(text []byte) error {
	if len(text) != 2*len(m) {
		return fmt.Errorf("PCR value %q: write %d hexadecimal digits", wire.Abbreviate(text), 2*len(m))
	}
	if _, err := hex.Decode(m[:], text); err != nil {
		return fmt.Errorf("PCR value %q: %w", wire.Abbreviate(text), err)
	}
	return nil
}

// ParseIdentity reads an identity key: ECDSA P-256 as PKIX DER, in its one encoding.
func ParseIdentity(der []byte) (*ecdsa.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	public, ok := key.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, errors.New("not an ECDSA P-256 key")
	}
	if again, err := x509.MarshalPKIXPublicKey(public); err != nil || !bytes.Equal(again, der) {
		return nil, errors.New("not in canonical DER")
	}
	return public, nil
}
