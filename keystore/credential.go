package keystore

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
)

// MaxCredentialSecret is the largest secret of a credential, in bytes.
const MaxCredentialSecret = 32

// Credential is a secret that only the TPM with a certain endorsement key, and
// with a certain attestation key in it, can read. Returning the secret proves
// that both are in one TPM; it is the second of the two steps of enrolment.
type Credential struct {
	Blob   []byte // TPMS_ID_OBJECT
	Secret []byte // encrypted seed
}

// MakeCredential encrypts a secret of at most MaxCredentialSecret bytes for the
// device of an enrollment. It needs no TPM. Endorsement keys are RSA-2048 or
// ECC P-256 by the TCG's default templates.
func MakeCredential(rand io.Reader, e *Enrollment, secret []byte) (*Credential, error) {
	if len(secret) == 0 || len(secret) > MaxCredentialSecret {
		return nil, fmt.Errorf("credential: the secret has 1 to %d bytes", MaxCredentialSecret)
	}
	ak, err := parseAttestationKey(e.Attestation)
	if err != nil {
		return nil, fmt.Errorf("credential: %w", err)
	}
	key, err := e.endorsementKey()
	if err != nil {
		return nil, fmt.Errorf("credential: %w", err)
	}
	public, err := endorsementPublic(key)
	if err != nil {
		return nil, fmt.Errorf("credential: %w", err)
	}
	target, err := tpm2.ImportEncapsulationKey(public)
	if err != nil {
		return nil, fmt.Errorf("credential: endorsement key: %w", err)
	}
	blob, seed, err := tpm2.CreateCredential(rand, target, ak.name, secret)
	if err != nil {
		return nil, fmt.Errorf("credential: %w", err)
	}
	return &Credential{Blob: blob, Secret: seed}, nil
}

// endorsementPublic returns the public area of an endorsement key. All but the
// key itself is fixed by the TCG's templates, so nothing is taken from the
// device's word.
func endorsementPublic(key any) (*tpm2.TPMTPublic, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() != 2048 || k.E != 65537 {
			return nil, fmt.Errorf("%w: an RSA endorsement key has 2048 bits and the exponent 65537", ErrInvalid)
		}
		public := tpm2.RSAEKTemplate
		public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: k.N.FillBytes(make([]byte, 256))})
		return &public, nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return nil, fmt.Errorf("%w: an ECC endorsement key is on P-256", ErrInvalid)
		}
		point, err := k.Bytes()
		if err != nil {
			return nil, err
		}
		public := tpm2.ECCEKTemplate
		public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1:33]},
			Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
		})
		return &public, nil
	}
	return nil, fmt.Errorf("%w: an endorsement key is RSA-2048 or ECC P-256, not %T", ErrInvalid, key)
}

// MarshalBinary returns the one encoding of a credential.
func (c *Credential) MarshalBinary() ([]byte, error) {
	var b cryptobyte.Builder
	for _, field := range [][]byte{c.Blob, c.Secret} {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(field) })
	}
	return b.Bytes()
}

// ParseCredential reads what MarshalBinary writes and accepts nothing else.
func ParseCredential(data []byte) (*Credential, error) {
	var c Credential
	s := cryptobyte.String(data)
	if !readBytes(&s, &c.Blob, maxTPMStructure) || !readBytes(&s, &c.Secret, maxTPMStructure) || !s.Empty() {
		return nil, fmt.Errorf("credential: %w", errMalformed)
	}
	return &c, nil
}
