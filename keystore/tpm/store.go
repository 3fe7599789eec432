package tpm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/mutant"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// Store is a keystore in a TPM. It implements keystore.Keystore and
// keystore.Attester.
type Store struct {
	dev  *device
	dir  *statedir.Dir
	rand io.Reader
	log  *slog.Logger

	// What the caller said, and not the directory.
	slot           uint8
	pcrs           keystore.Selection
	operator       *ecdsa.PublicKey
	operatorPublic []byte // TPMT_PUBLIC

	cfg                           *config
	device                        [32]byte // keystore.DeviceID
	identityKey                   *ecdsa.PublicKey
	epochCounter, approvalCounter *counter

	root *root // as it was found last; used while the device is

	mu     sync.Mutex // the directory, and the order of Seal, Advance and Claim
	closed bool
	holder *holder // nil before Claim
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
// on. It needs the operator's key and the PCRs, which are not taken from the
// directory. Counters that somebody removed are made again.
func Open(ctx context.Context, uri string, o keystore.Options) (*Store, error) {
	dev, slot, err := deviceAt(uri, o)
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
	s, err := newStore(dev, dir, slot, o)
	if err != nil {
		return nil, err
	}
	if err := s.connect(ctx, cfg, o); err != nil {
		return nil, fmt.Errorf("tpm:%s: %s: %w", dev.address, dir.Path(), err)
	}
	return s, nil
}

// newStore takes what the caller says.
func newStore(dev *device, dir *statedir.Dir, slot uint8, o keystore.Options) (*Store, error) {
	s := &Store{dev: dev, dir: dir, rand: o.Rand, log: o.Log, slot: slot, pcrs: o.PCRs, operator: o.OperatorKey, proven: make(map[uint64]uint64)}
	if o.OperatorKey == nil {
		return nil, errors.New("a keystore in a TPM needs the public key by which operators approve boot states (--operator-key)")
	}
	var err error
	if s.operatorPublic, err = keystore.OperatorPublic(o.OperatorKey); err != nil {
		return nil, err
	}
	if err := o.PCRs.Validate(); err != nil {
		return nil, err
	}
	if o.PCRs&keystore.Resettable != 0 && slot != checkSlot {
		return nil, fmt.Errorf("PCRs %v can be set back without a reset of the machine: choose others than %v", o.PCRs&keystore.Resettable, keystore.Resettable)
	}
	return s, nil
}

// approver is the key, as TPMT_PUBLIC, by which the boot states are approved in which a secret
// opens: that which the caller said, whatever the directory says.
func (s *Store) approver() []byte {
	if mutant.Is(mutant.OperatorFromDir) {
		if der, err := s.dir.Read("operator.der"); err == nil {
			if key, err := x509.ParsePKIXPublicKey(der); err == nil {
				if public, err := keystore.OperatorPublic(key.(*ecdsa.PublicKey)); err == nil {
					return public
				}
			}
		}
	}
	return s.operatorPublic
}

// connect finds the keys in the TPM and makes counters again that are lost.
func (s *Store) connect(ctx context.Context, cfg *config, o keystore.Options) error {
	if cfg.Slot != s.slot {
		return fmt.Errorf("it belongs to slot %d of its TPM: add ?slot=%d to the URI", cfg.Slot, cfg.Slot)
	}
	if len(o.Root) > 0 && string(o.Root) != string(cfg.Root) {
		return fmt.Errorf("%w: it belongs to another TPM than the one that was registered", keystore.ErrForeignDevice)
	}
	if err := s.adopt(cfg); err != nil {
		return fmt.Errorf("%w: %w (%s)", keystore.ErrCorrupt, err, restoreHelp)
	}
	return s.dev.run(ctx, func(c *conn) error {
		if err := s.refind(c); err != nil {
			return err
		}
		_, unload, err := s.root.load(c, cfg.Identity)
		if err != nil {
			return s.foreign(fmt.Errorf("load the identity key: %w", err))
		}
		if err := unload(); err != nil {
			return err
		}
		_, err = s.attestationKey(c)
		switch {
		case errors.Is(err, keystore.ErrOwned):
			s.log.Warn("the TPM does not hold the attestation key, and there will be no quotes until it does", "err", err)
		case err != nil:
			return err
		}
		for name, k := range map[string]*counter{"of the epochs": s.epochCounter, "of the approvals": s.approvalCounter} {
			again, err := k.ensure(c)
			for n := 0; err == nil && again && k == s.epochCounter && n < maxAhead; n++ {
				err = k.increment(c) // past what was sealed for later epochs, too
			}
			if err != nil {
				return err
			}
			if again {
				s.log.Warn("the TPM's counter "+name+" was lost, and was made again: what was bound to it is over", "counter", fmt.Sprintf("%#x", uint32(k.index)))
			}
		}
		return nil
	})
}

// adopt takes what the directory says: which keys to load. None of it is believed: the
// TPM loads what it made itself, and a key that is not the registered one is refused
// by those who registered it.
func (s *Store) adopt(cfg *config) (err error) {
	if s.identityKey, err = keystore.PublicKey(cfg.Identity.Public); err != nil {
		return fmt.Errorf("identity key: %w", err)
	}
	for what, public := range map[string][]byte{"storage root key": cfg.Root, "gate key": cfg.Gate.Public, "attestation key": cfg.Attestation} {
		if _, err := named(0, public); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	s.cfg, s.device = cfg, keystore.DeviceID(cfg.Root)
	root := func() *root { return s.root }
	s.epochCounter = newCounter(keystore.EpochCounter(s.slot), cfg.CounterAuth, root)
	s.approvalCounter = newCounter(keystore.ApprovalCounter(s.slot), cfg.CounterAuth, root)
	return nil
}

// refind finds the storage root key.
func (s *Store) refind(c *conn) error {
	want, err := named(0, s.cfg.Root)
	if err != nil {
		return err
	}
	s.root, err = findRoot(c, s.cfg, want.name)
	return err
}

// foreign explains that a key of the directory does not load.
func (s *Store) foreign(err error) error {
	if damaged(err) {
		return fmt.Errorf("%w: %w: or %s", errNotLoaded, err, restoreHelp)
	}
	return err
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
// When somebody evicted the storage root key it is made again first.
func (s *Store) operate(f func(c *conn) error) error {
	return s.dev.run(context.Background(), func(c *conn) error {
		if s.root == nil || s.root.passing {
			if err := s.refind(c); err != nil {
				return err
			}
		}
		err := f(c)
		if !errors.Is(err, tpm2.TPMRCHandle) {
			return err
		}
		if _, _, rootErr := readPublic(c, s.root.handle); !errors.Is(rootErr, tpm2.TPMRCHandle) {
			return err
		}
		if err := s.refind(c); err != nil {
			return err
		}
		return f(c)
	})
}

// Close makes further operations fail, and forgets the key of this boot. The TPM
// is connected only during operations, so there is nothing else to release.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.holder = true, nil
	if s.dev.mu.TryLock() { // nobody waits here for an operation that is under way
		s.dev.owner, s.dev.endorsement = "", "" // which Init may have made
		s.dev.mu.Unlock()
	}
	return nil
}

// claimed returns what holds the boot.
func (s *Store) claimed() (*holder, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, keystore.ErrClosed
	case s.holder == nil || s.holder.ticket == nil:
		return nil, keystore.ErrUnclaimed
	}
	return s.holder, nil
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
	h, err := k.s.claimed()
	if err != nil {
		return nil, fmt.Errorf("identity: sign: %w", err)
	}
	var der []byte
	err = k.s.operate(func(c *conn) error {
		rsp, err := k.s.sign(c, h, digest)
		if err != nil {
			return err
		}
		r, sig, err := rs(&rsp.Signature)
		if err != nil {
			return err
		}
		der, err = asn1.Marshal(struct{ R, S *big.Int }{r, sig})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("identity: sign: %w", err)
	}
	return der, nil
}

// sign loads the identity key for one signature.
func (s *Store) sign(c *conn, h *holder, digest []byte) (*tpm2.SignResponse, error) {
	session, end, err := s.root.policySession(c, plain)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := h.prove(c, session); err != nil {
		return nil, err
	}
	key, unload, err := s.root.load(c, s.cfg.Identity)
	if err != nil {
		return nil, s.foreign(err)
	}
	rsp, err := tpm2.Sign{
		KeyHandle:  tpm2.AuthHandle{Handle: key.handle, Name: key.name, Auth: session},
		Digest:     tpm2.TPM2BDigest{Buffer: digest},
		InScheme:   ecdsaScheme(),
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(c)
	return rsp, errors.Join(err, unload())
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
