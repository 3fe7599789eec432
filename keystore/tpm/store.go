package tpm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// Store is a keystore in a TPM. It implements keystore.Keystore and
// keystore.Attester.
type Store struct {
	dev            *device
	dir            *statedir.Dir
	cfg            *config
	rand           io.Reader
	operator       *ecdsa.PublicKey
	operatorPublic []byte // TPMT_PUBLIC

	root, identity, attestation   *root
	identityKey                   *ecdsa.PublicKey
	epochCounter, approvalCounter *counter

	mu     sync.Mutex // the directory, and the order of Seal and Advance
	closed bool
	// proven are the epochs whose secrets this process sealed or opened, and the
	// values of the counter that the TPM bound them to; settled is the last
	// Advance of this process. What the directory says of them is a hint.
	proven  map[uint64]uint64
	settled mark
}

var (
	_ keystore.Keystore = (*Store)(nil)
	_ keystore.Attester = (*Store)(nil)
)

// Open opens the keystore that Init made. The TPM must be the one it was made
// on.
func Open(ctx context.Context, uri string, o keystore.Options) (*Store, error) {
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
	return open(ctx, dev, dir, slot, o)
}

// open is Open on a device and a directory.
func open(ctx context.Context, dev *device, dir *statedir.Dir, slot uint8, o keystore.Options) (*Store, error) {
	cfg, err := readConfig(dir)
	if err != nil {
		return nil, err
	}
	if cfg.Slot != slot {
		return nil, fmt.Errorf("%s belongs to slot %d of its TPM: add ?slot=%d to the URI", dir.Path(), cfg.Slot, cfg.Slot)
	}
	s, err := newStore(dev, dir, cfg, o)
	if err != nil {
		return nil, err
	}
	if err := dev.run(ctx, s.checkDevice); err != nil {
		return nil, err
	}
	return s, nil
}

// newStore derives what follows from the configuration.
func newStore(dev *device, dir *statedir.Dir, cfg *config, o keystore.Options) (*Store, error) {
	s := &Store{dev: dev, dir: dir, cfg: cfg, rand: o.Rand, proven: make(map[uint64]uint64)}
	var err error
	if s.operator, err = cfg.operatorKey(); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", dir.Path(), keystore.ErrCorrupt, err)
	}
	if s.operatorPublic, err = keystore.OperatorPublic(s.operator); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", dir.Path(), keystore.ErrCorrupt, err)
	}
	if s.identityKey, err = keystore.PublicKey(cfg.Identity); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", dir.Path(), keystore.ErrCorrupt, err)
	}
	for _, k := range []struct {
		out    **root
		handle tpm2.TPMHandle
		public []byte
	}{
		{&s.root, rootHandle, cfg.Root},
		{&s.identity, cfg.identityHandle(), cfg.Identity},
		{&s.attestation, cfg.attestationHandle(), cfg.Attestation},
	} {
		if *k.out, err = named(k.handle, k.public); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", dir.Path(), keystore.ErrCorrupt, err)
		}
	}
	s.epochCounter = newCounter(keystore.EpochCounter(cfg.Slot), cfg.Auth, s.root)
	s.approvalCounter = newCounter(keystore.ApprovalCounter(cfg.Slot), cfg.Auth, s.root)
	return s, nil
}

// checkDevice checks that the TPM holds this keystore's keys.
func (s *Store) checkDevice(c *conn) error {
	for _, key := range []*root{s.root, s.identity, s.attestation} {
		_, name, err := readPublic(c, key.handle)
		if err != nil && !errors.Is(err, tpm2.TPMRCHandle) {
			return err
		}
		if err != nil || !bytes.Equal(name.Buffer, key.name.Buffer) {
			return fmt.Errorf("tpm:%s: %w: the keys of %s are not in it (another TPM, or it was cleared)",
				s.dev.address, keystore.ErrForeignDevice, s.dir.Path())
		}
	}
	return nil
}

// run calls f on the TPM unless the keystore is closed.
func (s *Store) run(f func(c *conn) error) error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return keystore.ErrClosed
	}
	return s.operate(f)
}

// operate calls f on the TPM. The operations of a keystore take no context: they
// are bounded by the timeout of the options, and are not cut short in between.
func (s *Store) operate(f func(c *conn) error) error { return s.dev.run(context.Background(), f) }

// Close makes further operations fail. The TPM is connected only during
// operations, so there is nothing else to release.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// Identity returns the identity key.
func (s *Store) Identity() crypto.Signer { return signer{s} }

// signer signs with the identity key in the TPM.
type signer struct{ s *Store }

// Public returns the *ecdsa.PublicKey.
func (k signer) Public() crypto.PublicKey { return k.s.identityKey }

// Sign signs a SHA-256 digest. The TPM has its own randomness.
func (k signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, fmt.Errorf("identity: %w: it signs SHA-256 digests only", keystore.ErrUnsupported)
	}
	var der []byte
	err := k.s.run(func(c *conn) error {
		rsp, err := tpm2.Sign{
			KeyHandle:  k.s.root.authorize(k.s.identity.handle, k.s.identity.name, in, ""),
			Digest:     tpm2.TPM2BDigest{Buffer: digest},
			InScheme:   ecdsaScheme(),
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
		}.Execute(c)
		if err != nil {
			return fmt.Errorf("identity: sign: %w", err)
		}
		r, sig, err := rs(&rsp.Signature)
		if err != nil {
			return fmt.Errorf("identity: sign: %w", err)
		}
		der, err = asn1.Marshal(struct{ R, S *big.Int }{r, sig})
		return err
	})
	return der, err
}

// ecdsaScheme is ECDSA with SHA-256.
func ecdsaScheme() tpm2.TPMTSigScheme {
	return tpm2.TPMTSigScheme{
		Scheme:  tpm2.TPMAlgECDSA,
		Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256}),
	}
}

// rs returns the numbers of an ECDSA signature.
func rs(sig *tpm2.TPMTSignature) (r, s *big.Int, err error) {
	e, err := sig.Signature.ECDSA()
	if err != nil {
		return nil, nil, err
	}
	return new(big.Int).SetBytes(e.SignatureR.Buffer), new(big.Int).SetBytes(e.SignatureS.Buffer), nil
}
