package file

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"filippo.io/age"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// Scheme is how URIs of this backend begin.
const Scheme = "file"

const (
	kindName       = "file"
	containerFile  = "container.age" // the age identity, under the passphrase
	identityFile   = "identity.age"  // the identity key (PKCS #8), to the age identity
	maxDecrypted   = 16 << 10
	minWorkFactor  = 8
	maxWorkFactor  = 22 // 4 GiB: nobody asks for more than a laptop can bear
	restoreHelp    = "put the file back from a copy of the directory, and make no new keystore in its place: that would be another replica's identity"
	passphraseHelp = "give it by passphrase-source=file:/path or env:NAME in the URI"
)

// Store is a keystore in files. It implements keystore.Keystore.
type Store struct {
	dir      *statedir.Dir
	rand     io.Reader
	log      *slog.Logger
	box      *age.X25519Identity
	identity *ecdsa.PrivateKey

	mu      sync.Mutex
	epoch   uint64 // as it was found, until this process was told of one
	settled uint64 // the last that this process advanced to
	closed  bool
}

var _ keystore.Keystore = (*Store)(nil)

// Format names the keystore and prints none of its keys.
func (s *Store) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "file keystore in %s", s.dir.Path())
}

// at returns the directory of a URI, and the options with the passphrase that
// the URI names: "file:/path?passphrase-source=file:/path" or "=env:NAME".
func at(uri string, o keystore.Options) (*statedir.Dir, keystore.Options, error) {
	rest, ok := strings.CutPrefix(uri, Scheme+":")
	if !ok {
		return nil, o, fmt.Errorf("%q is not the URI of a file keystore, such as file:/path", uri)
	}
	path, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, o, fmt.Errorf("%q: query: %w", uri, err)
	}
	for name, v := range values {
		if name != "passphrase-source" {
			return nil, o, fmt.Errorf("%q: unknown attribute %q: a file keystore has passphrase-source", uri, name)
		}
		if o.Passphrase, err = keystore.SecretFrom(v[0]); err != nil {
			return nil, o, fmt.Errorf("%q: passphrase-source: %w", uri, err)
		}
	}
	if path != "" {
		o.Dir = path
	}
	dir, err := statedir.New(o.Dir)
	return dir, o, err
}

// Init makes a keystore in the directory at uri and opens it.
func Init(_ context.Context, uri string, o keystore.Options) (*Store, error) {
	dir, o, err := at(uri, o)
	if err != nil {
		return nil, err
	}
	return initialize(dir, o)
}

func initialize(dir *statedir.Dir, o keystore.Options) (*Store, error) {
	if _, err := dir.Read(containerFile); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir.Path(), keystore.ErrExists), err)
	}
	if err := dir.Missing(statedir.KindFile, containerFile, restoreHelp); !errors.Is(err, keystore.ErrNoKeystore) {
		return nil, err // a new one would replace what a copy of the container still opens
	}
	if o.WorkFactor < minWorkFactor || o.WorkFactor > maxWorkFactor {
		return nil, fmt.Errorf("work factor %d: choose %d to %d", o.WorkFactor, minWorkFactor, maxWorkFactor)
	}
	secret, err := passphrase(o)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, rand: o.Rand, log: o.Log}
	if s.box, err = age.GenerateX25519Identity(); err != nil {
		return nil, fmt.Errorf("make the container's key: %w", err)
	}
	if s.identity, err = ecdsa.GenerateKey(elliptic.P256(), o.Rand); err != nil {
		return nil, fmt.Errorf("make the identity key: %w", err)
	}
	if err := s.write(secret, o.WorkFactor); err != nil {
		return nil, err
	}
	return s, nil
}

// write writes a new keystore; the container comes last, as it is what Open
// looks for.
func (s *Store) write(secret keystore.Secret, workFactor int) error {
	lock, err := age.NewScryptRecipient(string(secret.Reveal()))
	if err != nil {
		return fmt.Errorf("passphrase: %w", err)
	}
	lock.SetWorkFactor(workFactor)
	der, err := x509.MarshalPKCS8PrivateKey(s.identity)
	if err != nil {
		return fmt.Errorf("identity key: %w", err)
	}
	defer clear(der)
	if err := s.dir.Make(); err != nil {
		return err
	}
	if err := s.dir.PutEpoch(0, s.prove); err != nil {
		return err
	}
	if err := s.writeEncrypted(identityFile, der, s.box.Recipient()); err != nil {
		return err
	}
	return s.writeEncrypted(containerFile, []byte(s.box.String()), lock)
}

// Open opens the keystore in the directory at uri with its passphrase.
func Open(_ context.Context, uri string, o keystore.Options) (*Store, error) {
	dir, o, err := at(uri, o)
	if err != nil {
		return nil, err
	}
	return open(dir, o)
}

func open(dir *statedir.Dir, o keystore.Options) (*Store, error) {
	container, err := dir.Read(containerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, dir.Missing(statedir.KindFile, containerFile, restoreHelp)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, restoreHelp)
	}
	if err := checkWorkFactor(container, o.WorkFactor); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", dir.Path(), containerFile, err)
	}
	secret, err := passphrase(o)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, rand: o.Rand, log: o.Log}
	if s.box, err = openContainer(container, secret); err != nil {
		return nil, fmt.Errorf("%s: %w", dir.Path(), err)
	}
	if s.identity, err = s.readIdentity(); err != nil {
		return nil, fmt.Errorf("%s: %s: %w: %s", dir.Path(), identityFile, err, restoreHelp)
	}
	if err := s.resume(); err != nil {
		return nil, err
	}
	return s, nil
}

// passphrase returns the passphrase from the options or from a person.
func passphrase(o keystore.Options) (keystore.Secret, error) {
	secret := o.Passphrase
	if secret.IsZero() && o.Prompt != nil {
		var err error
		if secret, err = o.Prompt("Passphrase of the keystore in " + o.Dir); err != nil {
			return secret, fmt.Errorf("passphrase: %w", err)
		}
	}
	if secret.IsZero() {
		return secret, errors.New("the keystore needs its passphrase: " + passphraseHelp)
	}
	return secret, nil
}

// openContainer decrypts the age identity.
func openContainer(container []byte, secret keystore.Secret) (*age.X25519Identity, error) {
	key, err := age.NewScryptIdentity(string(secret.Reveal()))
	if err != nil {
		return nil, fmt.Errorf("passphrase: %w", err)
	}
	key.SetMaxWorkFactor(maxWorkFactor)
	text, err := decrypt(container, key)
	if err != nil {
		return nil, fmt.Errorf("%w, or %s is damaged: give the passphrase that the keystore was made with, or %s", keystore.ErrWrongPIN, containerFile, restoreHelp)
	}
	defer clear(text)
	return age.ParseX25519Identity(strings.TrimSpace(string(text)))
}

// checkWorkFactor reads the work factor of a container before it costs
// anything: whoever can write the file could ask for the memory of a large
// machine. The caller's configuration says what is too much.
func checkWorkFactor(container []byte, most int) error {
	lines := strings.SplitN(string(container), "\n", 3)
	var factor int
	if len(lines) == 3 {
		if stanza := strings.Fields(lines[1]); len(stanza) == 4 && stanza[0] == "->" && stanza[1] == "scrypt" {
			factor, _ = strconv.Atoi(stanza[3])
		}
	}
	switch {
	case factor == 0:
		return fmt.Errorf("%w (%d bytes): %s", keystore.ErrCorrupt, len(container), restoreHelp)
	case factor < minWorkFactor:
		return fmt.Errorf("%w: its work factor is %d, and no keystore is made with less than %d", keystore.ErrCorrupt, factor, minWorkFactor)
	case factor > most:
		return fmt.Errorf("%w: it asks for work factor %d, and at most %d is configured: if you made it so, open it with WithWorkFactor(%d)",
			keystore.ErrCorrupt, factor, most, factor)
	}
	return nil
}

// readIdentity decrypts the identity key.
func (s *Store) readIdentity() (*ecdsa.PrivateKey, error) {
	data, err := s.dir.Read(identityFile)
	if err != nil {
		return nil, err
	}
	der, err := decrypt(data, s.box)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", keystore.ErrCorrupt, err)
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: not an ECDSA P-256 key", keystore.ErrCorrupt)
	}
	return private, nil
}

// writeEncrypted writes a file that only the recipient can read.
func (s *Store) writeEncrypted(name string, data []byte, to age.Recipient) error {
	encrypted, err := encrypt(data, to)
	if err != nil {
		return fmt.Errorf("encrypt %s: %w", name, err)
	}
	return s.dir.Write(name, encrypted)
}

func encrypt(data []byte, to age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func decrypt(data []byte, key age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(data), key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", keystore.ErrCorrupt, err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxDecrypted))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", keystore.ErrCorrupt, err)
	}
	return plain, nil
}

// Identity returns the identity key.
func (s *Store) Identity() crypto.Signer { return signer{s} }

// signer signs with the identity key in memory while the keystore is open.
type signer struct{ s *Store }

func (k signer) Public() crypto.PublicKey { return &k.s.identity.PublicKey }

func (k signer) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, fmt.Errorf("identity: %w: it signs SHA-256 digests only", keystore.ErrUnsupported)
	}
	k.s.mu.Lock()
	closed := k.s.closed
	k.s.mu.Unlock()
	if closed {
		return nil, keystore.ErrClosed
	}
	return k.s.identity.Sign(rand, digest, opts)
}
