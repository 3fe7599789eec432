package statedir

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/reseal-bft/reseal/keystore"
	"golang.org/x/crypto/cryptobyte"
)

// Kind tells which backend wrapped the key of an envelope.
type Kind uint8

// The kinds of envelopes.
const (
	KindTPM Kind = iota + 1
	KindPKCS11
	KindFile
)

// Sizes in bytes.
const (
	KeySize      = 32 // the AES-256 key that a device wraps
	MaxWrapped   = 4 << 10
	magic        = "reseal sealed 1\n"
	sealedPrefix = "sealed-"
)

// Sealed is the envelope of one secret.
type Sealed struct {
	Kind       Kind
	Epoch      uint64
	Binding    uint64 // what else the device binds it to: the TPM's counter
	Wrapped    []byte // the key, as the device wraps it
	Ciphertext []byte
}

// Seal encrypts a secret under a fresh key of KeySize bytes, which wrap gives
// to the device.
func Seal(rand io.Reader, s Sealed, secret []byte, wrap func(key []byte) ([]byte, error)) (sealed *Sealed, err error) {
	erasing(func() { sealed, err = seal(rand, s, secret, wrap) })
	return sealed, err
}

func seal(rand io.Reader, s Sealed, secret []byte, wrap func(key []byte) ([]byte, error)) (*Sealed, error) {
	if len(secret) > keystore.MaxSecret {
		return nil, keystore.ErrTooLarge
	}
	key := make([]byte, KeySize)
	defer clear(key)
	if _, err := io.ReadFull(rand, key); err != nil {
		return nil, fmt.Errorf("randomness: %w", err)
	}
	wrapped, err := wrap(key)
	if err != nil {
		return nil, err
	}
	if len(wrapped) > MaxWrapped {
		return nil, fmt.Errorf("the device wrapped a key into %d bytes: at most %d are kept", len(wrapped), MaxWrapped)
	}
	s.Wrapped = wrapped
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	header, err := s.header()
	if err != nil {
		return nil, err
	}
	s.Ciphertext = aead.Seal(nil, make([]byte, aead.NonceSize()), secret, header)
	return &s, nil
}

// Open decrypts with the unwrapped key.
func (s *Sealed) Open(key []byte) (secret []byte, err error) {
	erasing(func() { secret, err = s.open(key) })
	return secret, err
}

func (s *Sealed) open(key []byte) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	header, err := s.header()
	if err != nil {
		return nil, err
	}
	secret, err := aead.Open(nil, make([]byte, aead.NonceSize()), s.Ciphertext, header)
	if err != nil {
		return nil, fmt.Errorf("epoch %d: %w: what is sealed does not open under its key", s.Epoch, keystore.ErrCorrupt)
	}
	return secret, nil
}

// newAEAD returns AES-256-GCM. The nonce may be zero, as each key encrypts once.
func newAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("%w: the device returned a key of %d bytes, not %d", keystore.ErrCorrupt, len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// header is all but the ciphertext.
func (s *Sealed) header() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddBytes([]byte(magic))
	b.AddUint8(uint8(s.Kind))
	b.AddUint64(s.Epoch)
	b.AddUint64(s.Binding)
	b.AddUint16LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes(s.Wrapped) })
	return b.Bytes()
}

// MarshalBinary returns the one encoding of an envelope.
func (s *Sealed) MarshalBinary() ([]byte, error) {
	header, err := s.header()
	return append(header, s.Ciphertext...), err
}

// ParseSealed reads what MarshalBinary writes and accepts nothing else.
func ParseSealed(data []byte) (*Sealed, error) {
	var s Sealed
	var head, wrapped cryptobyte.String
	var kind uint8
	in := cryptobyte.String(data)
	ok := in.ReadBytes((*[]byte)(&head), len(magic)) && string(head) == magic &&
		in.ReadUint8(&kind) && in.ReadUint64(&s.Epoch) && in.ReadUint64(&s.Binding) &&
		in.ReadUint16LengthPrefixed(&wrapped) && len(wrapped) <= MaxWrapped &&
		len(in) <= keystore.MaxSecret+16
	if !ok {
		return nil, fmt.Errorf("%w: not a sealed secret", keystore.ErrCorrupt)
	}
	s.Kind, s.Wrapped, s.Ciphertext = Kind(kind), slices.Clone([]byte(wrapped)), slices.Clone([]byte(in))
	return &s, nil
}

// PutSealed writes an envelope, in place of another one of its epoch.
func (d *Dir) PutSealed(s *Sealed) error {
	data, err := s.MarshalBinary()
	if err != nil {
		return err
	}
	return d.Write(sealedName(s.Epoch), data)
}

// Sealed reads the envelope of an epoch: ErrNotFound when there is none,
// ErrCorrupt when what is there is not an envelope of that kind and epoch.
func (d *Dir) Sealed(kind Kind, epoch uint64) (*Sealed, error) {
	data, err := d.Read(sealedName(epoch))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("epoch %d: %w", epoch, keystore.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	s, err := ParseSealed(data)
	if err != nil {
		return nil, fmt.Errorf("%s (%d bytes): %w", d.file(sealedName(epoch)), len(data), err)
	}
	if s.Epoch != epoch || s.Kind != kind {
		return nil, fmt.Errorf("%s: %w: it was sealed for epoch %d, by a device of kind %d", d.file(sealedName(epoch)), keystore.ErrCorrupt, s.Epoch, s.Kind)
	}
	return s, nil
}

// maxHeld bounds the epochs that Held looks at: a replica seals for the present one and the next.
const maxHeld = 16

// Held tells which secrets of an epoch and of later ones are there, and whether they open. Open
// tries that without showing the secret. Who fills the directory gets the first maxHeld epochs.
func (d *Dir) Held(from uint64, open func(epoch uint64) error) ([]keystore.Held, error) {
	epochs, err := d.Epochs()
	if err != nil {
		return nil, err
	}
	var held []keystore.Held
	for _, epoch := range epochs {
		if epoch < from || len(held) == maxHeld {
			continue
		}
		h := keystore.Held{Epoch: epoch, Opens: true}
		if err := open(epoch); err != nil {
			h.Opens, h.Problem = false, err.Error()
		}
		held = append(held, h)
	}
	return held, nil
}

// Missing is the error for a directory without the file that a keystore of a kind is opened by:
// there is no keystore, or one of another kind, or, where something is sealed, it has lost that file,
// and help says what to do.
func (d *Dir) Missing(kind Kind, name, help string) error {
	if epochs, err := d.Epochs(); err == nil && len(epochs) > 0 {
		if data, err := d.Read(sealedName(epochs[0])); err == nil {
			if s, err := ParseSealed(data); err == nil && s.Kind != kind {
				return fmt.Errorf("%s holds a keystore of another kind, which has no %s: name it by its own URI, or name another directory", d.path, name)
			}
		}
		return fmt.Errorf("%s: %w: it is gone, and what is sealed beside it opens by nothing else: %s", d.file(name), keystore.ErrCorrupt, help)
	}
	return fmt.Errorf("%s: %w", d.path, keystore.ErrNoKeystore)
}

// Epochs lists the epochs that have an envelope, ascending.
func (d *Dir) Epochs() ([]uint64, error) {
	names, err := d.Names(sealedPrefix)
	if err != nil {
		return nil, err
	}
	var epochs []uint64
	for _, name := range names {
		if epoch, ok := epochOf(name); ok {
			epochs = append(epochs, epoch)
		}
	}
	slices.Sort(epochs)
	return epochs, nil
}

// RemoveAfter deletes the envelopes of the epochs after one, but the given ones.
func (d *Dir) RemoveAfter(epoch uint64, keep ...uint64) error {
	names, err := d.after(epoch, keep)
	if err != nil || len(names) == 0 {
		return err
	}
	return d.Remove(names...)
}

// EraseAfter is RemoveAfter that overwrites them first.
func (d *Dir) EraseAfter(epoch uint64, keep ...uint64) error {
	names, err := d.after(epoch, keep)
	if err != nil {
		return err
	}
	return d.eraseAll(names)
}

func (d *Dir) after(epoch uint64, keep []uint64) ([]string, error) {
	epochs, err := d.Epochs()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range epochs {
		if e > epoch && !slices.Contains(keep, e) {
			names = append(names, sealedName(e))
		}
	}
	return names, nil
}

// RemoveBefore deletes the envelopes of the epochs before one.
func (d *Dir) RemoveBefore(epoch uint64) error {
	names, err := d.before(epoch)
	if err != nil || len(names) == 0 {
		return err
	}
	return d.Remove(names...)
}

// EraseBefore overwrites the envelopes of the epochs before one, and deletes
// them; also what a crash left half written. Whether the disk keeps the old
// blocks is up to the disk.
func (d *Dir) EraseBefore(epoch uint64) error {
	names, err := d.before(epoch)
	if err != nil {
		return err
	}
	unfinished, err := d.temporary(sealedPrefix)
	if err != nil {
		return err
	}
	return d.eraseAll(append(names, unfinished...))
}

func (d *Dir) eraseAll(names []string) error {
	for _, name := range names {
		if err := d.erase(name); err != nil {
			return err
		}
	}
	return nil
}

// before lists the files of the envelopes of the epochs before one.
func (d *Dir) before(epoch uint64) ([]string, error) {
	epochs, err := d.Epochs()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range epochs {
		if e < epoch {
			names = append(names, sealedName(e))
		}
	}
	return names, nil
}

func sealedName(epoch uint64) string { return fmt.Sprintf("%s%020d", sealedPrefix, epoch) }

// epochOf reverses sealedName, and knows no other names.
func epochOf(name string) (uint64, bool) {
	epoch, err := strconv.ParseUint(strings.TrimPrefix(name, sealedPrefix), 10, 64)
	return epoch, err == nil && name == sealedName(epoch)
}
