package tpm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/mutant"
)

// signingTemplate is a P-256 key that stays in its TPM and answers to its policy
// alone. A restricted one signs only what the TPM says about itself. What needs the
// role of an administrator may be done with its empty authorization: that is
// ActivateCredential, and being certified, both of which only prove where it is.
func signingTemplate(restricted bool, policy [32]byte) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			NoDA: true, Restricted: restricted, SignEncrypt: true,
			UserWithAuth: mutant.Is(mutant.OpenIdentity),
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: policy[:]},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		}),
	}
}

// isStorageRoot reports whether a key that is in the TPM protects what is under it:
// it was made there, cannot leave it, and does nothing but that.
func isStorageRoot(p *tpm2.TPMTPublic) bool {
	a := p.ObjectAttributes
	return p.Type == tpm2.TPMAlgECC && a.FixedTPM && a.FixedParent && a.SensitiveDataOrigin &&
		a.Restricted && a.Decrypt && !a.SignEncrypt && a.UserWithAuth
}

// findRoot finds the storage root key with the given name, and makes it again when
// it was evicted: a primary key is the same whenever it is made. Its public area is
// read from the TPM, whatever the directory says of it.
func findRoot(c *conn, cfg *config, want tpm2.TPM2BName) (*root, error) {
	other := false // another seed's root key is here
	for _, h := range cfg.rootHandles() {
		public, name, err := readPublic(c, h)
		switch {
		case err == nil && !bytes.Equal(name.Buffer, want.Buffer) && isRootOfSomeTPM(*public):
			other = true
		case errors.Is(err, tpm2.TPMRCHandle):
		case err != nil:
			return nil, err
		case bytes.Equal(name.Buffer, want.Buffer) && isStorageRoot(public):
			return &root{handle: h, name: name, public: *public}, nil
		}
	}
	r, err := createPrimary(c, tpm2.TPMRHOwner, tpm2.ECCSRKTemplate)
	if err = ownedBy(err); errors.Is(err, keystore.ErrOwned) && other {
		return nil, foreignRoot(c, cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("make the storage root key: %w", err)
	}
	if !bytes.Equal(r.name.Buffer, want.Buffer) {
		return nil, errors.Join(c.flush(r.handle), foreignRoot(c, cfg))
	}
	return r, r.keep(c, cfg.rootHandles()...)
}

// isRootOfSomeTPM reports whether a key was made by the template of storage root keys: what
// tells two such keys apart is the seed of their TPMs.
func isRootOfSomeTPM(p tpm2.TPMTPublic) bool {
	p.Unique = tpm2.ECCSRKTemplate.Unique
	return bytes.Equal(tpm2.Marshal(p), tpm2.Marshal(tpm2.ECCSRKTemplate))
}

// takeOut is what is left to do for a replica whose TPM is lost.
const takeOut = `take the replica out of the rounds (reseal order quarantine --dir CLUSTER --replica N --reason "its TPM is lost"): its seat cannot be given to a new TPM yet`

var (
	errClearedRoot = fmt.Errorf("%w: the replica's keys are gone, and no backup brings them back: %s", keystore.ErrCleared, takeOut)
	errOtherRoot   = fmt.Errorf("%w: it is another TPM than the one that it was made on: give the machine that TPM back, or name its URI; if that TPM is gone, %s",
		keystore.ErrForeignDevice, takeOut)
	errForeignRoot = fmt.Errorf("%w: it is another TPM than the one that it was made on, or it was cleared: if it is the right one, %s", keystore.ErrForeignDevice, takeOut)
)

// foreignRoot tells why a TPM makes another storage root key than the keystore's. The
// attestation key comes from the endorsement seed, which TPM2_Clear leaves as it is (Part
// 3, section 24.6): a TPM that still makes it was cleared, and another TPM does not. Where
// somebody has taken the endorsement hierarchy since, it cannot be told.
func foreignRoot(c *conn, cfg *config) error {
	want, err := named(0, cfg.Attestation)
	if err != nil {
		return errForeignRoot
	}
	made, err := makeAttestation(c, cfg)
	if err != nil {
		return errForeignRoot
	}
	reason := errOtherRoot
	if bytes.Equal(made.name.Buffer, want.name.Buffer) {
		reason = errClearedRoot
	}
	return errors.Join(c.flush(made.handle), reason)
}

// createPrimary makes a primary key. A template is no secret.
func createPrimary(c *conn, hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic) (*root, error) {
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: c.hierarchy(hierarchy), InPublic: tpm2.New2B(template)}.Execute(c)
	if err != nil {
		return nil, err
	}
	public, err := rsp.OutPublic.Contents()
	if err != nil {
		return nil, errors.Join(err, c.flush(rsp.ObjectHandle))
	}
	return &root{handle: rsp.ObjectHandle, name: rsp.Name, public: *public}, nil
}

// keep makes a primary key persistent at the first of the handles that is free. When
// none is, or the owner does not allow it, the key stays loaded until the connection
// ends: it costs time, and nothing else.
func (r *root) keep(c *conn, handles ...tpm2.TPMHandle) error {
	for _, h := range handles {
		_, err := tpm2.EvictControl{
			Auth:             c.hierarchy(tpm2.TPMRHOwner),
			ObjectHandle:     tpm2.NamedHandle{Handle: r.handle, Name: r.name},
			PersistentHandle: h,
		}.Execute(c)
		if err == nil {
			transient := r.handle
			r.handle = h
			return c.flush(transient)
		}
		if errors.Is(err, keystore.ErrUnavailable) {
			return err
		}
	}
	r.passing = true
	c.passing = append(c.passing, r.handle)
	return nil
}

// makeKey makes a signing key at random under the root key.
func makeKey(c *conn, r *root, policy [32]byte) (blob, error) {
	made, err := tpm2.Create{
		ParentHandle: r.authorize(r.handle, r.name, both, ""),
		InPublic:     tpm2.New2B(signingTemplate(false, policy)),
	}.Execute(c)
	if err != nil {
		return blob{}, err
	}
	return blob{Public: made.OutPublic.Bytes(), Private: made.OutPrivate.Buffer}, nil
}

// load loads a key under the root key; unload flushes it.
func (r *root) load(c *conn, b blob) (key *root, unload func() error, err error) {
	loaded, err := tpm2.Load{
		ParentHandle: emptyAuth(r.handle, r.name),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: b.Private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](b.Public),
	}.Execute(c)
	if err != nil {
		return nil, nil, err
	}
	return &root{handle: loaded.ObjectHandle, name: loaded.Name}, func() error { return c.flush(loaded.ObjectHandle) }, nil
}

// attestationKey finds the attestation key, and makes it again when it was evicted.
func (s *Store) attestationKey(c *conn) (*root, error) {
	want, err := named(s.cfg.attestationHandle(), s.cfg.Attestation)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", keystore.ErrCorrupt, err)
	}
	_, name, err := readPublic(c, want.handle)
	if err == nil && bytes.Equal(name.Buffer, want.name.Buffer) {
		return want, nil
	}
	if err != nil && !errors.Is(err, tpm2.TPMRCHandle) {
		return nil, err
	}
	made, err := makeAttestation(c, s.cfg)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(made.name.Buffer, want.name.Buffer) {
		return nil, fmt.Errorf("attestation key: %w", errors.Join(errForeignRoot, c.flush(made.handle)))
	}
	return made, made.keep(c, want.handle)
}

// makeAttestation makes the attestation key, a primary key of the endorsement
// hierarchy: under the owner hierarchy a TPM obfuscates its counts.
func makeAttestation(c *conn, cfg *config) (*root, error) {
	policy := keystore.AttestationPolicy(cfg.Gate.Public, cfg.ResetCount, cfg.Enroller)
	made, err := createPrimary(c, tpm2.TPMRHEndorsement, signingTemplate(true, policy))
	if err != nil {
		return nil, fmt.Errorf("make the attestation key: %w", ownedBy(err))
	}
	return made, nil
}
