package hsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"sync"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

const (
	configFile    = "keystore.json"
	configVersion = 2
	kindName      = "pkcs11"
	pinHelp       = "give its PIN by pin-source=file:/path or pin-source=env:NAME in the URI"
)

// Store is a keystore in a PKCS#11 token. It implements keystore.Keystore.
type Store struct {
	token    *token
	dir      *statedir.Dir
	name     string
	profile  profile
	rules    ruleset
	rand     io.Reader
	log      *slog.Logger
	notes    notes
	identity *ecdsa.PublicKey

	open   sync.RWMutex // held for reading by operations, for writing by Close
	closed bool

	mu      sync.RWMutex // held for writing by what changes the directory or the token
	epoch   uint64       // as it was found, until this process was told of one
	settled uint64       // the last that this process advanced to
}

var _ keystore.Keystore = (*Store)(nil)

// config is what Init writes once. Nothing in it is trusted: the name is that of
// the URI, and the identity has to sign.
type config struct {
	Version  int    `json:"version"`
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	Identity []byte `json:"identity"` // PKIX DER
}

// connect finds the directory, the token and its PIN.
func connect(uri string, o keystore.Options) (*statedir.Dir, *token, error) {
	dir, err := statedir.New(o.Dir)
	if err != nil {
		return nil, nil, err
	}
	t, err := connectFor(dir, uri, o)
	return dir, t, err
}

// connectFor is connect for a directory.
func connectFor(dir *statedir.Dir, uri string, o keystore.Options) (*token, error) {
	l, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	pin, err := findPIN(l, o)
	if err != nil {
		return nil, err
	}
	if o.PIN.IsZero() {
		defer pin.Wipe() // the token keeps a copy of its own
	}
	return newToken(l, pin, dir, o.Log)
}

func newStore(dir *statedir.Dir, t *token, o keystore.Options) *Store {
	return &Store{token: t, dir: dir, name: t.where.name, rules: newRules(), rand: o.Rand, log: o.Log}
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
	s := newStore(dir, t, o)
	if err := s.initialize(o.Adopt); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return s, nil
}

// initialize makes the identity key and writes the configuration. What fails leaves no key behind
// that the next try would find.
func (s *Store) initialize(adopt bool) (err error) {
	if _, err := s.dir.Read(configFile); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s: %w", s.dir.Path(), keystore.ErrExists), err)
	}
	id, err := newIdentityID(s.rand)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && s.token.do(func(x *session) error { return x.destroyAll(pkcs11.NewAttribute(pkcs11.CKA_ID, id)) }) == nil && !adopt {
			_ = s.dir.Remove(configFile)
		}
	}()
	if err := s.token.do(func(x *session) error { return s.claim(x, adopt, id) }); err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(s.identity)
	if err != nil {
		return fmt.Errorf("identity key: %w", err)
	}
	if err := s.dir.Make(); err != nil {
		return err
	}
	if err := s.dir.PutEpoch(0, s.signStatement); err != nil {
		return err
	}
	return s.dir.WriteJSON(configFile, config{Version: configVersion, Kind: kindName, Name: s.name, Identity: der})
}

// claim makes the identity with this id, or adopts one. What a lost directory sealed, and
// what somebody may have put in place of it, is nobody's any more. It may be called again:
// a session that was lost in the middle has left what it made.
func (s *Store) claim(x *session, adopt bool, id []byte) (err error) {
	if s.profile, err = x.suitable(s.rand); err != nil {
		return fmt.Errorf("token %s: %w", s.token.where, err)
	}
	if err := x.destroyAll(pkcs11.NewAttribute(pkcs11.CKA_ID, id)); err != nil {
		return err
	}
	found, err := x.find(pkcs11.NewAttribute(pkcs11.CKA_LABEL, identityLabel(s.name)))
	switch {
	case err != nil:
		return fmt.Errorf("look for an identity: %w", err)
	case len(found) > 0 && !adopt:
		return fmt.Errorf("token %s: %w under the name %q: open it, or keep its identity with a new directory (--adopt), or choose another by object=NAME", s.token.where, keystore.ErrExists, s.name)
	case len(found) > 0:
		s.identity, err = s.adoptIdentity(x)
	default:
		s.identity, err = s.makeIdentity(x, id)
		if err != nil && !lost(err) {
			err = fmt.Errorf("token %s: %w: %w", s.token.where, keystore.ErrUnsupported, err)
		}
	}
	if err != nil {
		return err
	}
	if err := s.settleIdentity(x); err != nil {
		return err
	}
	return s.sweep(x, math.MaxUint64, nil, func(uint64) bool { return true })
}

// Open opens the keystore that Init made, in the same token.
func Open(_ context.Context, uri string, o keystore.Options) (*Store, error) {
	dir, t, err := connect(uri, o)
	if err != nil {
		return nil, err
	}
	return open(dir, t, o)
}

func open(dir *statedir.Dir, t *token, o keystore.Options) (*Store, error) {
	s := newStore(dir, t, o)
	if err := s.load(); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return s, nil
}

// load reads the configuration, compares it with the token, and finishes what
// was interrupted, before anything else is done.
func (s *Store) load() error {
	var c config
	err := s.dir.ReadJSON(configFile, &c)
	const advice = "put the file back from a copy, or make a new directory for the identity (reseal keystore init --adopt)"
	if errors.Is(err, fs.ErrNotExist) {
		return s.dir.Missing(statedir.KindPKCS11, configFile, advice)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, advice)
	}
	if c.Version != configVersion || c.Kind != kindName || c.Name != s.name {
		return fmt.Errorf("%s holds a keystore of kind %q, version %d, name %q: open it by its own URI", s.dir.Path(), c.Kind, c.Version, c.Name)
	}
	parsed, err := x509.ParsePKIXPublicKey(c.Identity)
	key, ok := parsed.(*ecdsa.PublicKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return fmt.Errorf("%s: %w: it has no identity key: %s", configFile, keystore.ErrCorrupt, advice)
	}
	s.identity = key
	err = s.token.do(func(x *session) (err error) {
		if s.profile, err = x.suitable(s.rand); err != nil {
			return fmt.Errorf("token %s: %w", s.token.where, err)
		}
		return s.settleIdentity(x)
	})
	if err != nil {
		return err
	}
	return s.resume()
}

// resume finds out which epoch is current, and destroys what a crash left of
// earlier ones and of sealings that were replaced. Without a record that holds it
// goes on from the oldest key in the token: what is to end is ended by the next
// Advance.
func (s *Store) resume() (err error) {
	s.epoch, err = s.dir.Epoch(s.holdsStatement)
	if errors.Is(err, keystore.ErrCorrupt) {
		damage := err
		if err = s.do(func(x *session) (err error) { s.epoch, err = s.oldest(x); return err }); err != nil {
			return err
		}
		s.log.Warn("the record of the current epoch is damaged: going on from the oldest key in the token", "epoch", s.epoch, "err", damage)
		err = s.dir.PutEpoch(s.epoch, s.signStatement)
	}
	if err != nil {
		return err
	}
	if err := s.destroyUnnamed(s.epoch, func(uint64) bool { return false }); err != nil {
		return fmt.Errorf("finish what was interrupted: %w", err)
	}
	return s.dir.RemoveBefore(s.epoch)
}

// signStatement signs what is written to the directory, where anybody could have
// written it.
func (s *Store) signStatement(statement []byte) (sig []byte, err error) {
	digest := sha256.Sum256(statement)
	return signer{s}.Sign(nil, digest[:], crypto.SHA256)
}

func (s *Store) holdsStatement(statement, proof []byte) bool {
	digest := sha256.Sum256(statement)
	return ecdsa.VerifyASN1(s.identity, digest[:], proof)
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

func (s *Store) isOpen() error {
	s.open.RLock()
	defer s.open.RUnlock()
	if s.closed {
		return keystore.ErrClosed
	}
	return nil
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

// Sign signs a SHA-256 digest, and verifies the signature: a key in the place of
// the identity's is noticed. The token has its own randomness.
func (k signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) (der []byte, err error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, fmt.Errorf("identity: %w: it signs SHA-256 digests only", keystore.ErrUnsupported)
	}
	err = k.s.do(func(x *session) error {
		h, err := k.s.identityKey(x)
		if err != nil {
			return err
		}
		der, err = x.sign(h, digest, k.s.identity)
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

// removeAll destroys every object of a keystore's names.
func (s *session) removeAll(name string) error {
	for _, label := range []string{epochLabel(name), identityLabel(name)} {
		if err := s.destroyAll(pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)); err != nil {
			return fmt.Errorf("remove %s: %w", label, err)
		}
	}
	return nil
}

// destroyAll destroys every object that has these attributes.
func (s *session) destroyAll(template ...*pkcs11.Attribute) error {
	for {
		found, err := s.find(template...)
		if err != nil {
			return err
		}
		for _, h := range found {
			if err := s.DestroyObject(s.handle, h); err != nil && !gone(err) {
				return fmt.Errorf("destroy an object: %w", err)
			}
		}
		if len(found) < maxFound {
			return nil
		}
	}
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
