package recovery

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/threshold"
)

// epochSecret is what a replica keeps sealed in its keystore for an epoch. Losing it is no disaster: the replica attests, and the group gives
// it a share of the next epoch.
type epochSecret struct {
	// share is the replica's share of the group key; nil in epoch 0.
	share *threshold.Share
	// epochKey signs blocks and authenticates connections; nil in a replica that came back without its secret.
	epochKey ed25519.PrivateKey
	// nextKey is the fresh key that the replica attests in this epoch, nil before: a restart in the middle of its recovery must find it again.
	nextKey ed25519.PrivateKey
	// vaultKey encrypts the parts of dealings that are kept on disk: they are erased with it.
	vaultKey [32]byte
	// groupKey is the hash of the group public key, so that a replica that boots knows it without asking; zero in epoch 0.
	groupKey [32]byte
}

const secretVersion = 1

// String keeps the secret out of every print.
func (epochSecret) String() string { return "[redacted epoch secret]" }

// GoString keeps the secret out of every print.
func (s epochSecret) GoString() string { return s.String() }

// LogValue keeps the secret out of every log.
func (s epochSecret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// newSecret makes the secret of an epoch with a fresh vault key.
func newSecret(random io.Reader, share *threshold.Share, epochKey ed25519.PrivateKey, groupKey []byte) (*epochSecret, error) {
	s := &epochSecret{share: share, epochKey: epochKey}
	if groupKey != nil {
		s.groupKey = sha256.Sum256(groupKey)
	}
	if _, err := io.ReadFull(random, s.vaultKey[:]); err != nil {
		return nil, fmt.Errorf("randomness: %w", err)
	}
	return s, nil
}

// seal seals the secret for an epoch.
func (s *epochSecret) seal(ks keystore.Keystore, epoch bft.Epoch) error {
	var share []byte
	if s.share != nil {
		share = s.share.SecretBytes()
	}
	b := make([]byte, 0, keystore.MaxSecret)
	defer func() { clear(b) }()
	b = append(b, secretVersion)
	for _, part := range [][]byte{share, seed(s.epochKey), seed(s.nextKey)} {
		b = append(append(b, byte(len(part))), part...)
		clear(part)
	}
	b = append(b, s.vaultKey[:]...)
	b = append(b, s.groupKey[:]...)
	return ks.Seal(uint64(epoch), b)
}

// seed returns a copy of a key's seed, nil for none.
func seed(key ed25519.PrivateKey) []byte {
	if key == nil {
		return nil
	}
	return key.Seed()
}

// unseal reads the secret of an epoch back.
func unseal(ks keystore.Keystore, epoch bft.Epoch) (*epochSecret, error) {
	b, err := ks.Unseal(uint64(epoch))
	if err != nil {
		return nil, err
	}
	defer clear(b)
	s := cryptobyte.String(b)
	var version uint8
	var share, epochSeed, nextSeed cryptobyte.String
	out := &epochSecret{}
	if !s.ReadUint8(&version) || version != secretVersion || !s.ReadUint8LengthPrefixed(&share) ||
		!s.ReadUint8LengthPrefixed(&epochSeed) || !s.ReadUint8LengthPrefixed(&nextSeed) ||
		!s.CopyBytes(out.vaultKey[:]) || !s.CopyBytes(out.groupKey[:]) || !s.Empty() {
		return nil, errNotASecret
	}
	if len(share) > 0 {
		if out.share, err = threshold.ParseShare(share); err != nil {
			return nil, fmt.Errorf("the unsealed share: %w", err)
		}
	}
	if out.epochKey, err = keyOfSeed(epochSeed); err != nil {
		return nil, err
	}
	out.nextKey, err = keyOfSeed(nextSeed)
	return out, err
}

var errNotASecret = errors.New("what the keystore unsealed is not an epoch's secret: it was written by another program")

func keyOfSeed(seed []byte) (ed25519.PrivateKey, error) {
	switch len(seed) {
	case 0:
		return nil, nil
	case ed25519.SeedSize:
		return ed25519.NewKeyFromSeed(seed), nil
	}
	return nil, errNotASecret
}

// wipe erases the secret from memory, as far as Go allows.
func (s *epochSecret) wipe() {
	if s == nil {
		return
	}
	s.retire()
	clear(s.epochKey)
	clear(s.nextKey)
}

// retire erases what dies with an epoch. The epoch key may live on in the next one.
func (s *epochSecret) retire() {
	if s.share != nil {
		s.share.Wipe()
	}
	clear(s.vaultKey[:])
}

// SealGenesisKey makes the secret of epoch 0, seals it, and returns the public epoch key, which goes into the genesis.
func SealGenesisKey(ks keystore.Keystore) (ed25519.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	s, err := newSecret(rand.Reader, nil, private, nil)
	if err != nil {
		return nil, err
	}
	defer s.wipe()
	if err := s.seal(ks, 0); err != nil {
		return nil, fmt.Errorf("seal the key of epoch 0: %w", err)
	}
	return public, nil
}

// encryptPart encrypts a part of a dealing for the disk, bound to its place.
func encryptPart(vaultKey *[32]byte, part *threshold.Part, place string) ([]byte, error) {
	aead, err := vault(vaultKey)
	if err != nil {
		return nil, err
	}
	plain := part.SecretBytes()
	defer clear(plain)
	return aead.Seal(nil, nil, plain, []byte(place)), nil
}

// decryptPart reads it back.
func decryptPart(vaultKey *[32]byte, sealed []byte, place string) (*threshold.Part, error) {
	aead, err := vault(vaultKey)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed, []byte(place))
	if err != nil {
		return nil, errors.New("a stored part of a dealing does not decrypt: it is of another epoch, or damaged")
	}
	defer clear(plain)
	part, err := threshold.ParsePart(plain)
	if err != nil {
		part, err = threshold.ParseCompletedPart(plain)
	}
	return part, err
}

func vault(key *[32]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
