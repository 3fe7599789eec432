package governance

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/internal/wire"
)

// Limits of a genesis and of what orders add to it.
const (
	maxAddress        = 255
	maxIdentity       = 256  // bytes of PKIX DER
	maxAttestationKey = 1024 // bytes of TPMT_PUBLIC
	maxEKCertificate  = 8 << 10
	maxEKCertificates = 8
	maxOperators      = 64
	maxWindow         = 64
	maxDuration       = 10 * 365 * 24 * time.Hour
)

// Validate checks every field. The error names the field and says what to do.
func (g *Genesis) Validate() error {
	return first(
		func() error { return wire.CheckName("name", g.Name) },
		g.validateCreated,
		func() error { return wrap("f, c", g.Size().Validate()) },
		g.validateMembers,
		g.validateOperators,
		g.validateBootApproval,
		func() error { return wrap("attestation", g.Attestation.Validate()) },
		g.validateApprovals,
		g.ValidateTimes,
	)
}

// first returns the first error.
func first(checks ...func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func wrap(field string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}

func (g *Genesis) validateCreated() error {
	if t := g.Created; t.Year() < 2020 || t.Year() > 9999 || t.Nanosecond() != 0 {
		return errors.New("created: give the time of creation in whole seconds, like 2026-11-22T08:00:00Z")
	}
	return nil
}

func (g *Genesis) validateMembers() error {
	if n := g.Size().N(); len(g.Members) != n {
		return fmt.Errorf("members: %d are listed, but f=%d and c=%d need n = 3f+2c+1 = %d", len(g.Members), g.F, g.C, n)
	}
	seen := map[string]string{}
	for i := range g.Members {
		m := &g.Members[i]
		name := fmt.Sprintf("members[%d]", i)
		if err := m.validate(i, g.Attestation.Required); err != nil {
			return fmt.Errorf("%s.%w", name, err)
		}
		for _, own := range []struct{ field, value string }{
			{"address", m.Address}, {"identity", string(m.Identity)}, {"epoch_key", string(m.EpochKey)}, {"attestation_key", string(m.AttestationKey)}, {"storage_root", string(m.StorageRoot)},
		} {
			key := own.field + own.value
			if other, taken := seen[key]; taken && own.value != "" {
				return fmt.Errorf("%s.%s: the same as that of %s; each member has its own", name, own.field, other)
			}
			seen[key] = name
		}
	}
	return nil
}

func (m *GenesisMember) validate(i int, attested bool) error {
	if m.ID != bft.ReplicaID(i+1) {
		return fmt.Errorf("id: %d, but members are listed in order from 1: expected %d", m.ID, i+1)
	}
	if err := validAddress(m.Address); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	if _, err := attest.ParseIdentity(m.Identity); err != nil {
		return fmt.Errorf("identity: %w: give the member's identity key, ECDSA P-256, as PKIX DER", err)
	}
	if len(m.EpochKey) != ed25519.PublicKeySize {
		return fmt.Errorf("epoch_key: %d bytes, not %d: give the member's Ed25519 public key", len(m.EpochKey), ed25519.PublicKeySize)
	}
	if attested && len(m.AttestationKey) == 0 {
		return errors.New("attestation_key: missing, but attestation is required: enrol the member's TPM, or set attestation.required to false")
	}
	if len(m.AttestationKey) > maxAttestationKey {
		return fmt.Errorf("attestation_key: %d bytes; a TPM's public area has at most %d", len(m.AttestationKey), maxAttestationKey)
	}
	if attested && len(m.StorageRoot) == 0 {
		return errors.New("storage_root: missing, but attestation is required: enrol the member's TPM, or set attestation.required to false")
	}
	if len(m.StorageRoot) > maxAttestationKey {
		return fmt.Errorf("storage_root: %d bytes; a TPM's public area has at most %d", len(m.StorageRoot), maxAttestationKey)
	}
	if len(m.EKCertificates) > maxEKCertificates || slices.ContainsFunc(m.EKCertificates, func(c []byte) bool { return len(c) > maxEKCertificate }) {
		return fmt.Errorf("ek_certificates: at most %d of at most %d bytes each", maxEKCertificates, maxEKCertificate)
	}
	return nil
}

func validAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || n == 0 || host == "" || len(address) > maxAddress || !wire.Printable(address) {
		return errors.New("write it as host:port, like replica1.example.org:7000")
	}
	return nil
}

func (g *Genesis) validateOperators() error {
	if len(g.Operators) == 0 || len(g.Operators) > maxOperators {
		return fmt.Errorf("operators: name 1 to %d Ed25519 public keys", maxOperators)
	}
	for i, key := range g.Operators {
		if len(key) != ed25519.PublicKeySize {
			return fmt.Errorf("operators[%d]: %d bytes, not %d: give an Ed25519 public key", i, len(key), ed25519.PublicKeySize)
		}
		if slices.ContainsFunc(g.Operators[:i], func(k ed25519.PublicKey) bool { return k.Equal(key) }) {
			return fmt.Errorf("operators[%d]: listed twice: one key has one voice", i)
		}
	}
	if g.OperatorQuorum < 1 || g.OperatorQuorum > len(g.Operators) {
		return fmt.Errorf("operator_quorum: %d: choose 1 to %d, the number of operators", g.OperatorQuorum, len(g.Operators))
	}
	return nil
}

func (g *Genesis) validateBootApproval() error {
	if len(g.BootApproval) == 0 {
		return nil
	}
	if _, err := attest.ParseIdentity(g.BootApproval); err != nil {
		return fmt.Errorf("boot_approval: %w: give an ECDSA P-256 public key as PKIX DER, or leave it out without TPMs", err)
	}
	return nil
}

// validateApprovals checks that the founding boot states are approved towards all TPMs.
func (g *Genesis) validateApprovals() error {
	if n, most := len(g.Attestation.Approved), g.mostApproved(); n > most {
		return fmt.Errorf("attestation.approved: %d boot states; a cluster of %d can have %d, since one order renews the approvals of all", n, len(g.Members), most)
	}
	for i := range g.Attestation.Approved {
		err := g.checkApprovals(&g.Attestation.Approved[i], func(id bft.ReplicaID) (least, most uint64) {
			v := g.Members[id-1].ApprovalVersion
			return v, v
		})
		if err != nil {
			return fmt.Errorf("attestation.approved[%d]: %w", i, err)
		}
	}
	return nil
}

// ValidateTimes checks the time bounds and what wears TPMs out: what can be checked before there are
// members.
func (g *Genesis) ValidateTimes() error {
	for _, d := range []struct {
		field string
		value Duration
		least Duration
	}{
		{"round_interval", g.RoundInterval, 0},
		{"round_deadline", g.RoundDeadline, Duration(time.Millisecond)},
	} {
		if d.value < d.least || d.value > Duration(maxDuration) {
			return fmt.Errorf("%s: %v: choose at least %v and at most ten years", d.field, d.value, d.least)
		}
	}
	if err := g.Timeouts.Bounds().Validate(); err != nil {
		return fmt.Errorf("timeouts.%w", err)
	}
	if i := time.Duration(g.RoundInterval); g.Attestation.Required && i > 0 && i < keystore.LeastEpoch && !g.AllowWear {
		return fmt.Errorf("round_interval: %v: each epoch writes a counter in every TPM once, and in five years that is more than the %d times a TPM is good for: "+
			"choose at least %v, or set allow_wear to true (reseal init --allow-wear)", i, keystore.CounterEndurance, keystore.LeastEpoch.Round(time.Second))
	}
	if g.Window < 1 || g.Window > maxWindow {
		return fmt.Errorf("window: %d: choose 1 to %d views", g.Window, maxWindow)
	}
	return nil
}
