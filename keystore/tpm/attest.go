package tpm

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
)

// Where the TCG's EK Credential Profile puts endorsement keys and certificates.
var endorsementKeys = []struct {
	handle, certificate tpm2.TPMHandle
	template            tpm2.TPMTPublic
}{
	{0x81010001, 0x01c00002, tpm2.RSAEKTemplate},
	{0x81010002, 0x01c0000a, tpm2.ECCEKTemplate},
}

const (
	quoteTries = 3   // when a PCR changes between the quote and its reading
	nvChunk    = 512 // bytes read at once, which every TPM allows
	maxCert    = 8 << 10
)

// AttestationKey implements keystore.Attester.
func (s *Store) AttestationKey() []byte { return append([]byte(nil), s.cfg.Attestation...) }

// Quote implements keystore.Attester.
func (s *Store) Quote(nonce []byte) (q *keystore.Quote, err error) {
	if len(nonce) < keystore.MinNonce || len(nonce) > keystore.MaxNonce {
		return nil, fmt.Errorf("quote: a nonce has %d to %d bytes, not %d", keystore.MinNonce, keystore.MaxNonce, len(nonce))
	}
	err = s.run(func(c *conn) error {
		for range quoteTries {
			if q, err = s.quote(c, nonce); err != nil {
				return err
			}
			if _, err = keystore.VerifyQuote(s.cfg.Attestation, nonce, q); err == nil {
				return nil
			}
		}
		return fmt.Errorf("quote: the TPM's own quote does not verify: %w", err)
	})
	if err != nil {
		return nil, err
	}
	return q, nil
}

// quote asks for one quote and then for the PCRs.
func (s *Store) quote(c *conn, nonce []byte) (*keystore.Quote, error) {
	rsp, err := tpm2.Quote{
		SignHandle:     s.root.authorize(s.attestation.handle, s.attestation.name, both, ""),
		QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme:       ecdsaScheme(),
		PCRSelect:      pcrSelection(s.cfg.PCRs),
	}.Execute(c)
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	sig, err := signature(&rsp.Signature)
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	values, err := readPCRs(c, s.cfg.PCRs)
	if err != nil {
		return nil, err
	}
	return &keystore.Quote{Attest: rsp.Quoted.Bytes(), Signature: sig, PCRs: values}, nil
}

// signature brings a signature into its one form.
func signature(sig *tpm2.TPMTSignature) ([]byte, error) {
	r, s, err := rs(sig)
	if err != nil {
		return nil, err
	}
	return keystore.EncodeSignature(r, s)
}

// Enrollment implements keystore.Attester.
func (s *Store) Enrollment() (*keystore.Enrollment, error) {
	e := &keystore.Enrollment{Identity: s.cfg.Identity, Attestation: s.cfg.Attestation}
	err := s.run(func(c *conn) error {
		rsp, err := tpm2.Certify{
			ObjectHandle:   s.root.authorize(s.identity.handle, s.identity.name, plain, ""),
			SignHandle:     s.root.authorize(s.attestation.handle, s.attestation.name, plain, ""),
			QualifyingData: tpm2.TPM2BData{Buffer: []byte(keystore.IdentityRef)},
			InScheme:       ecdsaScheme(),
		}.Execute(c)
		if err != nil {
			return fmt.Errorf("certify the identity key: %w", err)
		}
		e.Certification = rsp.CertifyInfo.Bytes()
		if e.Signature, err = signature(&rsp.Signature); err != nil {
			return fmt.Errorf("certify the identity key: %w", err)
		}
		return s.withEndorsementKey(c, func(ek *root, certificate []byte) error {
			key, err := tpm2.Pub(ek.public)
			if err != nil {
				return fmt.Errorf("endorsement key: %w", err)
			}
			if certificate != nil {
				e.Chain = [][]byte{certificate}
			}
			e.Endorsement, err = x509.MarshalPKIXPublicKey(key)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// withEndorsementKey calls f with the endorsement key that has a certificate,
// or with the RSA one. A key that is not persistent is made for the moment.
func (s *Store) withEndorsementKey(c *conn, f func(ek *root, certificate []byte) error) error {
	choice := endorsementKeys[0]
	var certificate []byte
	for _, k := range endorsementKeys {
		cert, err := s.readCertificate(c, k.certificate)
		if err != nil {
			return err
		}
		if cert != nil {
			choice, certificate = k, cert
			break
		}
	}
	public, name, err := readPublic(c, choice.handle)
	if err == nil {
		return f(&root{handle: choice.handle, name: name, public: *public}, certificate)
	}
	if !errors.Is(err, tpm2.TPMRCHandle) {
		return err
	}
	ek, err := createPrimary(c, tpm2.TPMRHEndorsement, choice.template, s.root)
	if err != nil {
		return fmt.Errorf("make the endorsement key: %w", err)
	}
	return errors.Join(f(ek, certificate), c.flush(ek.handle))
}

// readCertificate reads a certificate from an NV index; nil when there is none.
func (s *Store) readCertificate(c *conn, index tpm2.TPMHandle) ([]byte, error) {
	pub, err := tpm2.NVReadPublic{NVIndex: index}.Execute(c)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("endorsement certificate: %w", err)
	}
	area, err := pub.NVPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("endorsement certificate: %w", err)
	}
	size := min(int(area.DataSize), maxCert)
	var data []byte
	for len(data) < size {
		rsp, err := tpm2.NVRead{
			AuthHandle: s.root.authorize(index, pub.NVName, out, ""),
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: pub.NVName},
			Size:       uint16(min(size-len(data), nvChunk)),
			Offset:     uint16(len(data)),
		}.Execute(c)
		if err != nil {
			return nil, fmt.Errorf("endorsement certificate: %w", err)
		}
		if len(rsp.Data.Buffer) == 0 {
			return nil, errors.New("endorsement certificate: the TPM returns nothing")
		}
		data = append(data, rsp.Data.Buffer...)
	}
	return trimDER(data), nil
}

// trimDER cuts what follows the outer SEQUENCE: an index may be larger than the
// certificate in it.
func trimDER(data []byte) []byte {
	if len(data) < 4 || data[0] != 0x30 || data[1] != 0x82 {
		return data
	}
	size := 4 + int(data[2])<<8 + int(data[3])
	return data[:min(size, len(data))]
}

// ActivateCredential implements keystore.Attester.
func (s *Store) ActivateCredential(cred *keystore.Credential) (secret []byte, err error) {
	err = s.run(func(c *conn) error {
		return s.withEndorsementKey(c, func(ek *root, _ []byte) error {
			session, end, err := s.root.policySession(c, both)
			if err != nil {
				return err
			}
			defer end()
			_, err = tpm2.PolicySecret{
				AuthHandle:    s.root.hierarchy(tpm2.TPMRHEndorsement, plain),
				PolicySession: session.Handle(),
				NonceTPM:      session.NonceTPM(),
			}.Execute(c)
			if err != nil {
				return fmt.Errorf("authorize the endorsement key: %w", err)
			}
			rsp, err := tpm2.ActivateCredential{
				ActivateHandle: s.root.authorize(s.attestation.handle, s.attestation.name, plain, ""),
				KeyHandle:      tpm2.AuthHandle{Handle: ek.handle, Name: ek.name, Auth: session},
				CredentialBlob: tpm2.TPM2BIDObject{Buffer: cred.Blob},
				Secret:         tpm2.TPM2BEncryptedSecret{Buffer: cred.Secret},
			}.Execute(c)
			if notForThisTPM(err) {
				return fmt.Errorf("activate the credential: %w: %w", keystore.ErrForeignDevice, err)
			}
			if err != nil {
				return err
			}
			secret = rsp.CertInfo.Buffer
			return nil
		})
	})
	return secret, err
}

// notForThisTPM reports the errors by which TPMs refuse a credential that was
// made for another one. libtpms calls what does not decrypt a failure, and goes
// on working.
func notForThisTPM(err error) bool {
	return errors.Is(err, tpm2.TPMRCIntegrity) || errors.Is(err, tpm2.TPMRCValue) || errors.Is(err, tpm2.TPMRCFailure)
}
