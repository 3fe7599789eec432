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
	// epochKey signs blocks and authenticates connections.
	epochKey ed25519.PrivateKey
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
	b := make([]byte, 0, 256)
	b = append(b, secretVersion, byte(len(share)))
	b = append(b, share...)
	b = append(b, s.epochKey.Seed()...)
	b = append(b, s.vaultKey[:]...)
	b = append(b, s.groupKey[:]...)
	clear(share)
	defer clear(b)
	return ks.Seal(uint64(epoch), b)
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
	var share cryptobyte.String
	var seed [ed25519.SeedSize]byte
	defer clear(seed[:])
	out := &epochSecret{}
	if !s.ReadUint8(&version) || version != secretVersion || !s.ReadUint8LengthPrefixed(&share) ||
		!s.CopyBytes(seed[:]) || !s.CopyBytes(out.vaultKey[:]) || !s.CopyBytes(out.groupKey[:]) || !s.Empty() {
		return nil, errors.New("what the keystore unsealed is not an epoch's secret: it was written by another program")
	}
	if len(share) > 0 {
		if out.share, err = threshold.ParseShare(share); err != nil {
			return nil, fmt.Errorf("the unsealed share: %w", err)
		}
	}
	out.epochKey = ed25519.NewKeyFromSeed(seed[:])
	return out, nil
}

// wipe erases the secret from memory, as far as Go allows.
func (s *epochSecret) wipe() {
	if s == nil {
		return
	}
	if s.share != nil {
		s.share.Wipe()
	}
	clear(s.epochKey)
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
	return threshold.ParsePart(plain)
}

func vault(key *[32]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
