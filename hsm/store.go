package hsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/big"
	"sync"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

const (
	configFile    = "keystore.json"
	epochFile     = "epoch.json"
	configVersion = 1
	kindName      = "pkcs11"
	pinHelp       = "give its PIN by pin-source=file:/path or pin-source=env:NAME in the URI"
)

// Store is a keystore in a PKCS#11 token. It implements keystore.Keystore.
type Store struct {
	token    *token
	dir      *statedir.Dir
	name     string
	mode     mode
	rand     io.Reader
	identity *ecdsa.PublicKey

	open   sync.RWMutex // held for reading by operations, for writing by Close
	closed bool

	mu    sync.Mutex // the directory, and the order of Seal and Advance
	epoch uint64
}

var _ keystore.Keystore = (*Store)(nil)

// config is what Init writes once.
type config struct {
	Version  int    `json:"version"`
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	Mode     mode   `json:"mode"`
	Identity []byte `json:"identity"` // PKIX DER
}

// epochRecord is what Advance writes.
type epochRecord struct {
	Epoch uint64 `json:"epoch"`
}

// connect finds the directory, the token and its PIN.
func connect(uri string, o keystore.Options) (*statedir.Dir, *token, error) {
	l, err := parseURI(uri)
	if err != nil {
		return nil, nil, err
	}
	dir, err := statedir.New(o.Dir)
	if err != nil {
		return nil, nil, err
	}
	pin, err := findPIN(l, o)
	if err != nil {
		return nil, nil, err
	}
	if o.PIN.IsZero() {
		defer pin.Wipe() // the token keeps a copy of its own
	}
	t, err := newToken(l, pin)
	return dir, t, err
}

// findPIN returns the PIN from where the URI says, from the options, or from a
// person.
func findPIN(l *locator, o keystore.Options) (pin keystore.Secret, err error) {
	switch {
	case l.pinSource != "":
		pin, err = keystore.SecretFrom(l.pinSource)
	case !o.PIN.IsZero():
		return o.PIN, nil
	case o.Prompt != nil:
		pin, err = o.Prompt(fmt.Sprintf("PIN of token %s", l))
	}
	if err != nil {
		return pin, fmt.Errorf("PIN of token %s: %w", l, err)
	}
	if pin.IsZero() {
		return pin, fmt.Errorf("token %s: %s", l, pinHelp)
	}
	return pin, nil
}

// Init makes a keystore in the token at uri, and opens it. What the token
// cannot do is an ErrUnsupported with a sentence. Calls into a PKCS#11 library
// cannot be interrupted, so the context is not used, here and below.
func Init(_ context.Context, uri string, o keystore.Options) (*Store, error) {
	dir, t, err := connect(uri, o)
	if err != nil {
		return nil, err
	}
	s := &Store{token: t, dir: dir, name: t.where.name, rand: o.Rand}
	if err := s.initialize(o.Adopt); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return s, nil
}

// initialize makes the identity key and writes the configuration.
func (s *Store) initialize(adopt bool) error {
	if _, err := s.dir.Read(configFile); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s: %w", s.dir.Path(), keystore.ErrExists), err)
	}
	err := s.token.do(func(x *session) (err error) {
		if s.mode, err = x.suitable(s.rand); err != nil {
			return fmt.Errorf("token %s: %w", s.token.where, err)
		}
		s.identity, err = x.identity(s.name)
		switch {
		case err == nil && !adopt:
			return fmt.Errorf("token %s: %w under the name %q: open it, or keep its identity with a new directory (--adopt), or choose another by object=NAME", s.token.where, keystore.ErrExists, s.name)
		case err == nil:
			// What the lost directory sealed is nobody's any more.
			return x.destroyBefore(s.name, math.MaxUint64)
		case !errors.Is(err, errNoObject):
			return err
		}
		if s.identity, err = x.makeIdentity(s.name); err != nil && !lost(err) {
			return fmt.Errorf("token %s: %w: %w", s.token.where, keystore.ErrUnsupported, err)
		}
		return err
	})
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(s.identity)
	if err != nil {
		return fmt.Errorf("identity key: %w", err)
	}
	if err := s.dir.Make(); err != nil {
		return err
	}
	if err := s.dir.WriteJSON(epochFile, epochRecord{}); err != nil {
		return err
	}
	return s.dir.WriteJSON(configFile, config{
		Version: configVersion, Kind: kindName, Name: s.name, Mode: s.mode, Identity: der,
	})
}

// Open opens the keystore that Init made, in the same token.
func Open(_ context.Context, uri string, o keystore.Options) (*Store, error) {
	dir, t, err := connect(uri, o)
	if err != nil {
		return nil, err
	}
	s := &Store{token: t, dir: dir, name: t.where.name, rand: o.Rand}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return s, nil
}

// load reads the configuration, compares it with the token, and finishes an
// Advance that was interrupted.
func (s *Store) load() error {
	var c config
	err := s.dir.ReadJSON(configFile, &c)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", s.dir.Path(), keystore.ErrNoKeystore)
	}
	if err != nil {
		return err
	}
	if c.Version != configVersion || c.Kind != kindName || c.Name != s.name {
		return fmt.Errorf("%s holds a keystore of kind %q, version %d, name %q: open it by its own URI", s.dir.Path(), c.Kind, c.Version, c.Name)
	}
	if c.Mode != modeGCM && c.Mode != modeWrap {
		return fmt.Errorf("%s: %w: mode %q", s.dir.Path(), keystore.ErrCorrupt, c.Mode)
	}
	s.mode = c.Mode
	key, err := x509.ParsePKIXPublicKey(c.Identity)
	if err != nil {
		return fmt.Errorf("%s: %w: identity key", s.dir.Path(), keystore.ErrCorrupt)
	}
	var record epochRecord
	if err := s.dir.ReadJSON(epochFile, &record); err != nil {
		return err
	}
	s.epoch = record.Epoch
	return s.token.do(func(x *session) (err error) {
		s.identity, err = x.identity(s.name)
		if errors.Is(err, errNoObject) || err == nil && !s.identity.Equal(key) {
			return fmt.Errorf("token %s: %w: it does not hold the identity key of %s", s.token.where, keystore.ErrForeignDevice, s.dir.Path())
		}
		if err != nil {
			return err
		}
		return x.eraseBefore(s.name, s.epoch)
	})
}

// do calls f with a session unless the keystore is closed.
func (s *Store) do(f func(x *session) error) error {
	s.open.RLock()
	defer s.open.RUnlock()
	if s.closed {
		return keystore.ErrClosed
	}
	return s.token.do(f)
}

// Close ends the sessions.
func (s *Store) Close() error {
	s.open.Lock()
	defer s.open.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.token.close()
}

// Identity returns the identity key.
func (s *Store) Identity() crypto.Signer { return signer{s} }

// signer signs with the identity key in the token.
type signer struct{ s *Store }

// Public returns the *ecdsa.PublicKey.
func (k signer) Public() crypto.PublicKey { return k.s.identity }

// Sign signs a SHA-256 digest. The token has its own randomness.
func (k signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) (der []byte, err error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, fmt.Errorf("identity: %w: it signs SHA-256 digests only", keystore.ErrUnsupported)
	}
	err = k.s.do(func(x *session) error {
		h, err := x.identityKey(k.s.name)
		if err != nil {
			return err
		}
		if err := x.SignInit(x.handle, mechanism(pkcs11.CKM_ECDSA), h); err != nil {
			return fmt.Errorf("identity: sign: %w", err)
		}
		sig, err := x.Sign(x.handle, digest)
		if err != nil {
			return fmt.Errorf("identity: sign: %w", err)
		}
		half := len(sig) / 2
		r, v := new(big.Int).SetBytes(sig[:half]), new(big.Int).SetBytes(sig[half:])
		der, err = asn1.Marshal(struct{ R, S *big.Int }{r, v})
		return err
	})
	return der, err
}

// Remove destroys the keystore in the token at uri, identity and all.
func Remove(_ context.Context, uri string, o keystore.Options) error {
	_, t, err := connect(uri, o)
	if err != nil {
		return err
	}
	err = t.do(func(x *session) error { return x.removeAll(t.where.name) })
	return errors.Join(err, t.close())
}

// Inventory counts the objects in the token at uri that its user sees.
func Inventory(_ context.Context, uri string, o keystore.Options) (n int, err error) {
	_, t, err := connect(uri, o)
	if err != nil {
		return 0, err
	}
	err = t.do(func(x *session) error {
		found, err := x.find()
		n = len(found)
		return err
	})
	return n, errors.Join(err, t.close())
}
