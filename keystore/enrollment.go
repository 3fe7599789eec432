package keystore

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// The qualifying data by which the attestation key certifies the identity key and
// the gate key.
const (
	IdentityRef = "reseal identity v1"
	GateRef     = "reseal gate v1"
)

// Limits of an enrollment.
const (
	enrollmentVersion = 2
	maxCertificate    = 8 << 10
	maxChain          = 8
	// MaxEnrollment is the size of the largest enrollment, in bytes.
	MaxEnrollment = 1<<10 + 10*maxTPMStructure + maxChain*(maxCertificate+3)
)

// Enrollment is what a verifier registers of a device: its identity key, its
// attestation key, the proof that both live in one TPM, and whose TPM it is.
type Enrollment struct {
	Identity    []byte // TPMT_PUBLIC of the identity key
	Attestation []byte // TPMT_PUBLIC of the attestation key
	Gate        []byte // TPMT_PUBLIC of the gate key, which lets a claimed boot use both
	Root        []byte // TPMT_PUBLIC of the storage root key, see DeviceID
	Enroller    []byte // TPMT_PUBLIC of the key of the process that made the keystore,
	ResetCount  uint32 // in this boot: those two may use the attestation key as well
	Approvals   uint64 // the value of the approval counter

	Certification     Statement // TPM2_Certify: the attestation key certifies the identity key
	GateCertification Statement // and the gate key

	Endorsement []byte   // PKIX DER of the endorsement key
	Chain       [][]byte // DER of the endorsement key's certificate and its issuers; may be empty
}

// Device is what a verified enrollment says about a TPM.
type Device struct {
	Manufacturer string // TCG vendor id from the certificate, for example "id:49465800"
	Model        string
	Software     bool // an emulator: its state can be copied and rolled back
}

// VerifyIdentity checks that the identity key, the gate key and the attestation key
// live in one TPM, cannot leave it, and answer to nobody but a boot that the gate key
// let claim them (the attestation key also to the process that enrolled it, in that
// boot). It is a pure function and returns the identity key. It does not say that
// the TPM is a real one, see VerifyEnrollment and MakeCredential, nor whose approvals
// open the gate, see VerifyGate.
func VerifyIdentity(e *Enrollment) (*ecdsa.PublicKey, error) {
	ak, err := parseAttestationKey(e.Attestation)
	if err != nil {
		return nil, err
	}
	if want := AttestationPolicy(e.Gate, e.ResetCount, e.Enroller); subtle.ConstantTimeCompare(ak.policy, want[:]) != 1 {
		return nil, fmt.Errorf("%w: the attestation key answers to others than a claimed boot", ErrInvalid)
	}
	if _, err := ak.certifies(e.Gate, "gate", GateRef, e.GateCertification); err != nil {
		return nil, err
	}
	id, err := ak.certifies(e.Identity, "identity", IdentityRef, e.Certification)
	if err != nil {
		return nil, err
	}
	if want := IdentityPolicy(e.Gate); subtle.ConstantTimeCompare(id.policy, want[:]) != 1 {
		return nil, fmt.Errorf("%w: the identity key answers to others than a claimed boot", ErrInvalid)
	}
	return id.key, nil
}

// certifies checks a key that stays in its TPM and answers to its policy alone, and
// that the attestation key saw it there.
func (p *eccPublic) certifies(public []byte, what, ref string, c Statement) (*eccPublic, error) {
	key, err := parsePublic(public)
	if err != nil {
		return nil, fmt.Errorf("%w: %s key: %w", ErrInvalid, what, err)
	}
	if !key.guarded(0) {
		return nil, fmt.Errorf("%w: the %s key is not a signing key that stays in its TPM and answers to its policy alone", ErrInvalid, what)
	}
	a, err := p.said(tpmCertify, []byte(ref), c.Attest, c.Signature)
	if err != nil {
		return nil, fmt.Errorf("certification of the %s key: %w", what, err)
	}
	name, err := a.certified()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if subtle.ConstantTimeCompare(name, key.name) != 1 {
		return nil, fmt.Errorf("%w: another key than the %s key is certified", ErrInvalid, what)
	}
	return key, nil
}

// VerifyGate checks that the gate key of an enrollment opens by approvals of this
// operator for this TPM and slot alone.
func VerifyGate(e *Enrollment, operator *ecdsa.PublicKey, slot uint8) error {
	public, err := OperatorPublic(operator)
	if err != nil {
		return err
	}
	gate, err := parsePublic(e.Gate)
	if err != nil {
		return fmt.Errorf("%w: gate key: %w", ErrInvalid, err)
	}
	if want := GatePolicy(public, DeviceID(e.Root), slot); subtle.ConstantTimeCompare(gate.policy, want[:]) != 1 {
		return fmt.Errorf("%w: the keystore was made for another operator key or another slot", ErrInvalid)
	}
	return nil
}

// VerifyEnrollment checks an enrollment against the certification authorities of
// TPM makers, at a time. That the attestation key is in the TPM of the
// endorsement certificate is not signed by anybody: prove it with a credential
// (MakeCredential, Attester.ActivateCredential).
func VerifyEnrollment(e *Enrollment, roots *x509.CertPool, now time.Time) (*Device, error) {
	if _, err := VerifyIdentity(e); err != nil {
		return nil, err
	}
	certs, err := e.certificates()
	if err != nil {
		return nil, err
	}
	leaf := certs[0]
	ek, err := e.endorsementKey()
	if err != nil {
		return nil, err
	}
	if !equalKey(leaf.PublicKey, ek) {
		return nil, fmt.Errorf("%w: the endorsement certificate is for another key", ErrInvalid)
	}
	intermediates := x509.NewCertPool()
	for _, c := range certs[1:] {
		intermediates.AddCert(c)
	}
	// The subject of an EK certificate is a directory name among the alternative
	// names, critical, which Go does not interpret.
	leaf.UnhandledCriticalExtensions = nil
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: endorsement certificate: %w", ErrInvalid, err)
	}
	return describe(leaf), nil
}

// equalKey compares public keys of the kinds that endorsement keys have.
func equalKey(a, b any) bool {
	switch k := b.(type) {
	case *rsa.PublicKey:
		return k.Equal(a)
	case *ecdsa.PublicKey:
		return k.Equal(a)
	}
	return false
}

// certificates parses the chain, which must have a leaf.
func (e *Enrollment) certificates() ([]*x509.Certificate, error) {
	if len(e.Chain) == 0 {
		return nil, fmt.Errorf("%w: the TPM has no endorsement certificate: register its endorsement key by hand", ErrInvalid)
	}
	var certs []*x509.Certificate
	for i, der := range e.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: certificate %d of the chain: %w", ErrInvalid, i, err)
		}
		certs = append(certs, c)
	}
	return certs, nil
}

// endorsementKey parses the endorsement key.
func (e *Enrollment) endorsementKey() (any, error) {
	key, err := x509.ParsePKIXPublicKey(e.Endorsement)
	if err != nil {
		return nil, fmt.Errorf("%w: endorsement key: %w", ErrInvalid, err)
	}
	return key, nil
}

// Attributes of the directory name in an EK certificate (TCG EK Credential
// Profile, section 3.2.9), and the vendor id of IBM, which the software TPM has.
var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidManufacturer   = asn1.ObjectIdentifier{2, 23, 133, 2, 1}
	oidModel          = asn1.ObjectIdentifier{2, 23, 133, 2, 2}
)

const (
	vendorIBM    = "id:00001014"
	modelSWTPM   = "swtpm"
	tagDirectory = 4
)

// describe reads the maker and model out of an EK certificate.
func describe(c *x509.Certificate) *Device {
	var d Device
	for _, ext := range c.Extensions {
		if !ext.Id.Equal(oidSubjectAltName) {
			continue
		}
		for _, a := range directoryNames(ext.Value) {
			value, _ := a.Value.(string)
			switch {
			case a.Type.Equal(oidManufacturer):
				d.Manufacturer = value
			case a.Type.Equal(oidModel):
				d.Model = value
			}
		}
	}
	d.Software = d.Manufacturer == vendorIBM || strings.Contains(strings.ToLower(d.Model), modelSWTPM)
	return &d
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value any
}

// directoryNames lists the attributes of the directory names in a
// subjectAltName extension; it skips what it cannot read.
func directoryNames(ext []byte) []attribute {
	var names []asn1.RawValue
	if _, err := asn1.Unmarshal(ext, &names); err != nil {
		return nil
	}
	var out []attribute
	for _, n := range names {
		if n.Class != asn1.ClassContextSpecific || n.Tag != tagDirectory {
			continue
		}
		var sets []attributeSET
		if _, err := asn1.Unmarshal(n.Bytes, &sets); err != nil {
			continue
		}
		for _, set := range sets {
			out = append(out, set...)
		}
	}
	return out
}

// attributeSET is named so that encoding/asn1 reads a SET.
type attributeSET []attribute

// MarshalBinary returns the one encoding of an enrollment, at most
// MaxEnrollment bytes.
func (e *Enrollment) MarshalBinary() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddUint8(enrollmentVersion)
	b.AddUint32(e.ResetCount)
	b.AddUint64(e.Approvals)
	for _, field := range e.fields() {
		if len(*field) > maxTPMStructure {
			return nil, fmt.Errorf("enrollment: %w", errMalformed)
		}
		b.AddUint16LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes(*field) })
	}
	if len(e.Chain) > maxChain {
		return nil, fmt.Errorf("enrollment: a chain has at most %d certificates", maxChain)
	}
	b.AddUint8(uint8(len(e.Chain)))
	for _, der := range e.Chain {
		if len(der) > maxCertificate {
			return nil, fmt.Errorf("enrollment: a certificate has at most %d bytes", maxCertificate)
		}
		b.AddUint16LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes(der) })
	}
	return b.Bytes()
}

// fields lists the byte strings in the order of their encoding.
func (e *Enrollment) fields() []*[]byte {
	return []*[]byte{
		&e.Identity, &e.Attestation, &e.Gate, &e.Root, &e.Enroller,
		&e.Certification.Attest, &e.Certification.Signature,
		&e.GateCertification.Attest, &e.GateCertification.Signature, &e.Endorsement,
	}
}

// ParseEnrollment reads what MarshalBinary writes and accepts nothing else. It
// does not verify.
func ParseEnrollment(data []byte) (*Enrollment, error) {
	var e Enrollment
	var version, n uint8
	s := cryptobyte.String(data)
	ok := len(data) <= MaxEnrollment && s.ReadUint8(&version) && version == enrollmentVersion &&
		s.ReadUint32(&e.ResetCount) && s.ReadUint64(&e.Approvals)
	for _, field := range e.fields() {
		ok = ok && readBytes(&s, field, maxTPMStructure)
	}
	ok = ok && s.ReadUint8(&n) && n <= maxChain
	for range n {
		var der []byte
		ok = ok && readBytes(&s, &der, maxCertificate)
		e.Chain = append(e.Chain, der)
	}
	if !ok || !s.Empty() {
		return nil, fmt.Errorf("enrollment: %w", errMalformed)
	}
	return &e, nil
}

// readBytes reads a copy of at most limit bytes behind a 16-bit length.
func readBytes(s *cryptobyte.String, out *[]byte, limit int) bool {
	var field cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&field) || len(field) > limit {
		return false
	}
	*out = append([]byte(nil), field...)
	return true
}
