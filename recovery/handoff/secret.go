package handoff

import (
	"bytes"
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

// secret is what a replica keeps sealed in its keystore for one epoch. Losing it is no disaster: the replica attests, and the group gives it
// a share of the next epoch.
type secret struct {
	// share is the replica's share of the group key; nil in epoch 0, and while the handoff that leads to the epoch goes on.
	share *threshold.Share
	// epochKey signs blocks and authenticates connections in the epoch.
	epochKey ed25519.PrivateKey
	// vaultKey encrypts the parts, kept on disk, of the dealings that lead to the epoch: they are erased with it.
	vaultKey [32]byte
	// groupKey and sharing are hashes of the group public key and of the epoch's public sharing, so that what the disk says of them is not
	// believed; zero without a share.
	groupKey, sharing [32]byte
	// here: the vault key was made in this boot. It is not sealed.
	here bool
}

const secretVersion = 2

// String keeps the secret out of every print.
func (secret) String() string { return "[redacted epoch secret]" }

// GoString keeps the secret out of every print.
func (s secret) GoString() string { return s.String() }

// LogValue keeps the secret out of every log.
func (s secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// newSecret makes the secret of an epoch with a fresh vault key.
func newSecret(random io.Reader, epochKey ed25519.PrivateKey) (*secret, error) {
	s := &secret{epochKey: bytes.Clone(epochKey), here: true}
	if _, err := io.ReadFull(random, s.vaultKey[:]); err != nil {
		return nil, fmt.Errorf("randomness: %w", err)
	}
	return s, nil
}

// seal seals the secret for an epoch.
func (s *secret) seal(device keystore.Keystore, epoch bft.Epoch) error {
	var share []byte
	if s.share != nil {
		share = s.share.SecretBytes()
	}
	b := make([]byte, 0, keystore.MaxSecret)
	defer func() { clear(b) }()
	b = append(b, secretVersion)
	for _, part := range [][]byte{share, s.epochKey.Seed()} {
		b = append(append(b, byte(len(part))), part...)
		clear(part)
	}
	for _, field := range [][32]byte{s.vaultKey, s.groupKey, s.sharing} {
		b = append(b, field[:]...)
	}
	return device.Seal(uint64(epoch), b)
}

// unseal reads the secret of an epoch back.
func unseal(device keystore.Keystore, epoch bft.Epoch) (*secret, error) {
	b, err := device.Unseal(uint64(epoch))
	if err != nil {
		return nil, err
	}
	defer clear(b)
	s := cryptobyte.String(b)
	var version uint8
	var share, seed cryptobyte.String
	out := &secret{}
	if !s.ReadUint8(&version) || version != secretVersion || !s.ReadUint8LengthPrefixed(&share) || !s.ReadUint8LengthPrefixed(&seed) ||
		len(seed) != ed25519.SeedSize || !s.CopyBytes(out.vaultKey[:]) || !s.CopyBytes(out.groupKey[:]) || !s.CopyBytes(out.sharing[:]) || !s.Empty() {
		return nil, errNotASecret
	}
	if len(share) > 0 {
		if out.share, err = threshold.ParseShare(share); err != nil {
			return nil, fmt.Errorf("%w: the share: %w", errNotASecret, err)
		}
	}
	out.epochKey = ed25519.NewKeyFromSeed(seed)
	return out, nil
}

// errNotASecret: a secret that cannot be read is as good as lost, and no reason to stop.
var errNotASecret = errors.New("what the keystore unsealed is not an epoch's secret: it was written by another program, or version")

// public is the public epoch key.
func (s *secret) public() ed25519.PublicKey { return s.epochKey.Public().(ed25519.PublicKey) }

// complete gives the secret its share.
func (s *secret) complete(share *threshold.Share, sharing *threshold.Sharing) error {
	raw, err := sharing.MarshalBinary()
	if err != nil {
		return err
	}
	s.share, s.groupKey, s.sharing = share, sha256.Sum256(sharing.GroupKey().Bytes()), sha256.Sum256(raw)
	return nil
}

// keepShare leaves nothing of a secret but its share; nil when there is none.
func (s *secret) keepShare() *secret {
	if s == nil || s.share == nil {
		s.wipe()
		return nil
	}
	kept := &secret{share: s.share}
	s.share = nil
	s.wipe()
	return kept
}

// wipe erases the secret from memory, as far as Go allows. A nil secret may be wiped.
func (s *secret) wipe() {
	if s == nil {
		return
	}
	if s.share != nil {
		s.share.Wipe()
	}
	clear(s.vaultKey[:])
	clear(s.epochKey)
	s.share, s.epochKey = nil, nil
}

// SealGenesisKey makes the secret of epoch 0, seals it, and returns the public epoch key, which goes into the genesis.
func SealGenesisKey(device keystore.Keystore) (ed25519.PublicKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	defer clear(private)
	s, err := newSecret(rand.Reader, private)
	if err != nil {
		return nil, err
	}
	defer s.wipe()
	if err := s.seal(device, 0); err != nil {
		return nil, fmt.Errorf("seal the key of epoch 0: %w", err)
	}
	return bytes.Clone(s.public()), nil
}
