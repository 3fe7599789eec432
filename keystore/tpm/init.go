package tpm

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strconv"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// Scheme is how URIs of this backend begin.
const Scheme = "tpm"

// identityTemplate is an unrestricted signing key that stays in its TPM.
var identityTemplate = signingTemplate(false)

// attestationTemplate is a key that signs only what the TPM says about itself.
var attestationTemplate = signingTemplate(true)

func signingTemplate(restricted bool) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, NoDA: true, Restricted: restricted, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		}),
	}
}

// parseURI splits "tpm:ADDRESS?slot=N".
func parseURI(uri string) (address string, slot uint8, err error) {
	rest, ok := strings.CutPrefix(uri, Scheme+":")
	if !ok {
		return "", 0, fmt.Errorf("%q is not the URI of a TPM, such as tpm:/dev/tpmrm0", uri)
	}
	address, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", 0, fmt.Errorf("%q: query: %w", uri, err)
	}
	for name, v := range values {
		if name != "slot" {
			return "", 0, fmt.Errorf("%q: unknown attribute %q: a TPM has slot=0 to 255", uri, name)
		}
		n, err := strconv.ParseUint(v[0], 10, 8)
		if err != nil {
			return "", 0, fmt.Errorf("%q: slot=%s: a slot is a number from 0 to 255", uri, v[0])
		}
		slot = uint8(n)
	}
	return address, slot, nil
}

// Init makes a keystore on the TPM at uri, with an identity key that never was
// anywhere else, and opens it. It needs the directory and the operator's key.
func Init(ctx context.Context, uri string, o keystore.Options) (*Store, error) {
	address, slot, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	dev, err := newDevice(address, o.Timeout)
	if err != nil {
		return nil, err
	}
	dir, err := statedir.New(o.Dir)
	if err != nil {
		return nil, err
	}
	return initialize(ctx, dev, dir, slot, o)
}

// initialize is Init on a device and a directory.
func initialize(ctx context.Context, dev *device, dir *statedir.Dir, slot uint8, o keystore.Options) (*Store, error) {
	cfg, err := newConfig(dir, slot, o)
	if err != nil {
		return nil, err
	}
	if err := dev.run(ctx, func(c *conn) error { return provision(c, cfg, o.Adopt) }); err != nil {
		return nil, err
	}
	s, err := newStore(dev, dir, cfg, o)
	if err != nil {
		return nil, err
	}
	for _, k := range []*counter{s.epochCounter, s.approvalCounter} {
		if err := dev.run(ctx, k.define); err != nil {
			return nil, err
		}
	}
	value, err := s.counterValue()
	if err != nil {
		return nil, err
	}
	if err := dir.WriteJSON(epochFile, epochs{Current: mark{Counter: value}}); err != nil {
		return nil, err
	}
	if err := dir.WriteJSON(configFile, cfg); err != nil {
		return nil, err
	}
	return s, nil
}

// newConfig checks what Init was given and makes the directory.
func newConfig(dir *statedir.Dir, slot uint8, o keystore.Options) (*config, error) {
	if o.OperatorKey == nil {
		return nil, errors.New("a keystore in a TPM needs the public key by which operators approve boot states (--operator-key)")
	}
	if _, err := keystore.OperatorPublic(o.OperatorKey); err != nil {
		return nil, err
	}
	operator, err := x509.MarshalPKIXPublicKey(o.OperatorKey)
	if err != nil {
		return nil, fmt.Errorf("operator key: %w", err)
	}
	if err := o.PCRs.Validate(); err != nil {
		return nil, err
	}
	if _, err := dir.Read(configFile); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir.Path(), keystore.ErrExists), err)
	}
	if err := dir.Make(); err != nil {
		return nil, err
	}
	auth, err := newAuth(o.Rand)
	if err != nil {
		return nil, err
	}
	return &config{
		Version: configVersion, Kind: kindName, Slot: slot, PCRs: o.PCRs, Operator: operator, Auth: auth,
	}, nil
}

// provision makes the keys that are not there yet and notes their public areas.
func provision(c *conn, cfg *config, adopt bool) error {
	r, err := ensureRoot(c)
	if err != nil {
		return err
	}
	cfg.Root = tpm2.Marshal(r.public)
	public, _, err := readPublic(c, cfg.identityHandle())
	switch {
	case err == nil && !adopt:
		return fmt.Errorf("slot %d of the TPM: %w: open it, or keep its identity with a new directory (--adopt)", cfg.Slot, keystore.ErrExists)
	case err == nil:
		cfg.Identity = tpm2.Marshal(public)
	case errors.Is(err, tpm2.TPMRCHandle):
		if cfg.Identity, err = makeIdentity(c, r, cfg.identityHandle()); err != nil {
			return err
		}
	default:
		return err
	}
	cfg.Attestation, err = ensureAttestation(c, r, cfg.attestationHandle())
	return err
}

// ensureRoot returns the storage root key, and makes it when it is not there. A
// key that other software left at its handle does if it is a storage key that
// stays in the TPM and needs no authorization.
func ensureRoot(c *conn) (*root, error) {
	public, name, err := readPublic(c, rootHandle)
	if errors.Is(err, tpm2.TPMRCHandle) {
		made, err := createPrimary(c, tpm2.TPMRHOwner, tpm2.ECCSRKTemplate, nil)
		if err != nil {
			return nil, fmt.Errorf("make the storage root key: %w", err)
		}
		return made, persist(c, made, made, rootHandle)
	}
	if err != nil {
		return nil, err
	}
	a := public.ObjectAttributes
	if !a.FixedTPM || !a.FixedParent || !a.Restricted || !a.Decrypt || !a.UserWithAuth || !a.NoDA {
		return nil, fmt.Errorf("the key at %#x is not a storage root key: evict it (tpm2_evictcontrol) or use another TPM", uint32(rootHandle))
	}
	return &root{handle: rootHandle, name: name, public: *public}, nil
}

// createPrimary makes a primary key. Without a root yet, there is nothing to
// salt the session with; a template is no secret.
func createPrimary(c *conn, hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic, r *root) (*root, error) {
	auth := tpm2.AuthHandle{Handle: hierarchy, Name: tpm2.HandleName(hierarchy), Auth: tpm2.PasswordAuth(nil)}
	if r != nil {
		auth = r.hierarchy(hierarchy, in)
	}
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: auth, InPublic: tpm2.New2B(template)}.Execute(c)
	if err != nil {
		return nil, err
	}
	public, err := rsp.OutPublic.Contents()
	if err != nil {
		return nil, errors.Join(err, c.flush(rsp.ObjectHandle))
	}
	return &root{handle: rsp.ObjectHandle, name: rsp.Name, public: *public}, nil
}

// persist moves a transient key to a persistent handle and points key there.
func persist(c *conn, r, key *root, at tpm2.TPMHandle) error {
	transient := key.handle
	_, err := tpm2.EvictControl{
		Auth:             r.hierarchy(tpm2.TPMRHOwner, plain),
		ObjectHandle:     tpm2.NamedHandle{Handle: transient, Name: key.name},
		PersistentHandle: at,
	}.Execute(c)
	if err != nil {
		err = fmt.Errorf("make a key persistent at %#x: %w", uint32(at), err)
	}
	key.handle = at
	return errors.Join(err, c.flush(transient))
}

// makeIdentity makes the identity key at random, under the storage root key,
// and makes it persistent.
func makeIdentity(c *conn, r *root, at tpm2.TPMHandle) ([]byte, error) {
	made, err := tpm2.Create{
		ParentHandle: r.authorize(r.handle, r.name, both, ""),
		InPublic:     tpm2.New2B(identityTemplate),
	}.Execute(c)
	if err != nil {
		return nil, fmt.Errorf("make the identity key: %w", err)
	}
	loaded, err := tpm2.Load{
		ParentHandle: r.authorize(r.handle, r.name, in, ""),
		InPrivate:    made.OutPrivate,
		InPublic:     made.OutPublic,
	}.Execute(c)
	if err != nil {
		return nil, fmt.Errorf("load the identity key: %w", err)
	}
	key := &root{handle: loaded.ObjectHandle, name: loaded.Name}
	if err := persist(c, r, key, at); err != nil {
		return nil, err
	}
	return made.OutPublic.Bytes(), nil
}

// ensureAttestation returns the public area of the attestation key and makes it
// when it is not there.
func ensureAttestation(c *conn, r *root, at tpm2.TPMHandle) ([]byte, error) {
	public, _, err := readPublic(c, at)
	if err == nil {
		return tpm2.Marshal(public), nil
	}
	if !errors.Is(err, tpm2.TPMRCHandle) {
		return nil, err
	}
	key, err := createPrimary(c, tpm2.TPMRHEndorsement, attestationTemplate, r)
	if err != nil {
		return nil, fmt.Errorf("make the attestation key: %w", err)
	}
	return tpm2.Marshal(key.public), persist(c, r, key, at)
}
