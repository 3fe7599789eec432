package tpm

import (
	"bytes"
	"crypto/sha256"
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
func (s *Store) AttestationKey() []byte { return bytes.Clone(s.cfg.Attestation) }

// DeviceID implements keystore.Attester.
func (s *Store) DeviceID() [sha256.Size]byte { return s.device }

// Quote implements keystore.Attester.
func (s *Store) Quote(nonce []byte) (q *keystore.Quote, err error) {
	if len(nonce) < keystore.MinNonce || len(nonce) > keystore.MaxNonce {
		return nil, fmt.Errorf("quote: a nonce has %d to %d bytes, not %d", keystore.MinNonce, keystore.MaxNonce, len(nonce))
	}
	h, err := s.claimed()
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	err = s.operate(func(c *conn) error {
		return s.withAttestation(c, h, func(ak *attester) error {
			for range quoteTries {
				if q, err = s.quote(ak, nonce); err != nil {
					return err
				}
				if _, err = keystore.VerifyQuote(s.cfg.Attestation, nonce, q); err == nil {
					return nil
				}
			}
			return fmt.Errorf("the TPM's own quote does not verify: %w", err)
		})
	})
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	return q, nil
}

// attester is the attestation key in the hands of who holds the boot.
type attester struct {
	conn     *conn
	key      *root
	holder   *holder
	session  tpm2.Session
	branches tpm2.TPMLDigest
}

// withAttestation calls f with the attestation key.
func (s *Store) withAttestation(c *conn, h *holder, f func(ak *attester) error) error {
	key, err := s.attestationKey(c)
	if err != nil {
		return err
	}
	session, end, err := s.root.policySession(c, plain)
	if err != nil {
		return err
	}
	defer end()
	ak := &attester{conn: c, key: key, holder: h, session: session}
	for _, b := range keystore.AttestationBranches(s.cfg.Gate.Public, s.cfg.ResetCount, s.cfg.Enroller) {
		ak.branches.Digests = append(ak.branches.Digests, tpm2.TPM2BDigest{Buffer: b[:]})
	}
	return f(ak)
}

// authorize authorizes one statement.
func (ak *attester) authorize() (tpm2.AuthHandle, error) {
	if err := ak.holder.prove(ak.conn, ak.session); err != nil {
		return tpm2.AuthHandle{}, err
	}
	if _, err := (tpm2.PolicyOr{PolicySession: ak.session.Handle(), PHashList: ak.branches}).Execute(ak.conn); err != nil {
		return tpm2.AuthHandle{}, fmt.Errorf("PolicyOR: %w", err)
	}
	return tpm2.AuthHandle{Handle: ak.key.handle, Name: ak.key.name, Auth: ak.session}, nil
}

// statement lets the attestation key sign what a command says.
func (ak *attester) statement(command func(by tpm2.AuthHandle) (tpm2.TPM2BAttest, tpm2.TPMTSignature, error)) (keystore.Statement, error) {
	by, err := ak.authorize()
	if err != nil {
		return keystore.Statement{}, err
	}
	said, signed, err := command(by)
	if err != nil {
		return keystore.Statement{}, err
	}
	sig, err := signature(&signed)
	return keystore.Statement{Attest: said.Bytes(), Signature: sig}, err
}

// quote asks for one quote and then for the PCRs, the time, and the approval counter.
func (s *Store) quote(ak *attester, nonce []byte) (*keystore.Quote, error) {
	data := tpm2.TPM2BData{Buffer: nonce}
	quoted, err := ak.statement(func(by tpm2.AuthHandle) (tpm2.TPM2BAttest, tpm2.TPMTSignature, error) {
		rsp, err := tpm2.Quote{SignHandle: by, QualifyingData: data, InScheme: ecdsaScheme(), PCRSelect: pcrSelection(s.pcrs)}.Execute(ak.conn)
		if err != nil {
			return tpm2.TPM2BAttest{}, tpm2.TPMTSignature{}, err
		}
		return rsp.Quoted, rsp.Signature, nil
	})
	if err != nil {
		return nil, err
	}
	q := &keystore.Quote{Attest: quoted.Attest, Signature: quoted.Signature}
	if q.PCRs, err = readPCRs(ak.conn, s.pcrs); err != nil {
		return nil, err
	}
	err = s.withTime(ak.conn, func(t *timeAsker) error {
		q.Time, err = ak.statement(func(by tpm2.AuthHandle) (tpm2.TPM2BAttest, tpm2.TPMTSignature, error) {
			rsp, err := tpm2.GetTime{
				PrivacyAdminHandle: tpm2.TPMRHEndorsement, SignHandle: by, QualifyingData: data, InScheme: ecdsaScheme(),
			}.Execute(t)
			if err != nil {
				return tpm2.TPM2BAttest{}, tpm2.TPMTSignature{}, fmt.Errorf("time: %w", err)
			}
			return rsp.TimeInfo, rsp.Signature, nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	q.Counter, err = ak.statement(func(by tpm2.AuthHandle) (tpm2.TPM2BAttest, tpm2.TPMTSignature, error) {
		rsp, err := tpm2.NVCertify{
			SignHandle: by, AuthHandle: s.approvalCounter.handle(plain), NVIndex: s.approvalCounter.named(),
			QualifyingData: data, InScheme: ecdsaScheme(), Size: 8,
		}.Execute(ak.conn)
		if err != nil {
			return tpm2.TPM2BAttest{}, tpm2.TPMTSignature{}, fmt.Errorf("approval counter: %w", err)
		}
		return rsp.CertifyInfo, rsp.Signature, nil
	})
	return q, err
}

// signature brings a signature into its one form.
func signature(sig *tpm2.TPMTSignature) ([]byte, error) {
	r, s, err := rs(sig)
	if err != nil {
		return nil, err
	}
	return keystore.EncodeSignature(r, s)
}

// Enrollment implements keystore.Attester. The process that made the keystore can
// enrol at once, others after Claim.
func (s *Store) Enrollment() (*keystore.Enrollment, error) {
	s.mu.Lock()
	h, closed := s.holder, s.closed
	s.mu.Unlock()
	switch {
	case closed:
		return nil, keystore.ErrClosed
	case h == nil:
		return nil, fmt.Errorf("enrol: %w", keystore.ErrUnclaimed)
	}
	e := &keystore.Enrollment{
		Identity: s.cfg.Identity.Public, Attestation: s.cfg.Attestation, Gate: s.cfg.Gate.Public, Root: s.cfg.Root,
		Enroller: s.cfg.Enroller, ResetCount: s.cfg.ResetCount,
	}
	err := s.operate(func(c *conn) (err error) {
		if e.Approvals, err = s.approvalCounter.read(c); err != nil {
			return err
		}
		err = s.withAttestation(c, h, func(ak *attester) (err error) {
			if e.Certification, err = s.certify(ak, s.cfg.Identity, keystore.IdentityRef); err != nil {
				return fmt.Errorf("certify the identity key: %w", err)
			}
			if e.GateCertification, err = s.certify(ak, s.cfg.Gate, keystore.GateRef); err != nil {
				return fmt.Errorf("certify the gate key: %w", err)
			}
			return nil
		})
		if err != nil {
			return err
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
		return nil, fmt.Errorf("enrol: %w", err)
	}
	return e, nil
}

// certify loads a key and lets the attestation key say that it is there.
func (s *Store) certify(ak *attester, b blob, ref string) (keystore.Statement, error) {
	return ak.statement(func(by tpm2.AuthHandle) (tpm2.TPM2BAttest, tpm2.TPMTSignature, error) {
		var none tpm2.TPM2BAttest
		key, unload, err := s.root.load(ak.conn, b)
		if err != nil {
			return none, tpm2.TPMTSignature{}, err
		}
		rsp, err := tpm2.Certify{
			ObjectHandle: emptyAuth(key.handle, key.name), SignHandle: by,
			QualifyingData: tpm2.TPM2BData{Buffer: []byte(ref)}, InScheme: ecdsaScheme(),
		}.Execute(ak.conn)
		if err = errors.Join(err, unload()); err != nil {
			return none, tpm2.TPMTSignature{}, err
		}
		return rsp.CertifyInfo, rsp.Signature, nil
	})
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
	ek, err := createPrimary(c, tpm2.TPMRHEndorsement, choice.template)
	if err != nil {
		return fmt.Errorf("make the endorsement key: %w", ownedBy(err))
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
				AuthHandle:    c.hierarchy(tpm2.TPMRHEndorsement),
				PolicySession: session.Handle(),
				NonceTPM:      session.NonceTPM(),
			}.Execute(c)
			if err != nil {
				return fmt.Errorf("authorize the endorsement key: %w", ownedBy(err))
			}
			ak, err := s.attestationKey(c)
			if err != nil {
				return err
			}
			rsp, err := tpm2.ActivateCredential{
				ActivateHandle: emptyAuth(ak.handle, ak.name),
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
