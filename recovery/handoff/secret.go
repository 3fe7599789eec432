package handoff

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/threshold"
)

// secret is what a replica keeps sealed in its keystore for one epoch. Losing it is no disaster:
// the replica attests, and the group gives it a share of the next epoch.
type secret struct {
	// share is the replica's share of the group key, made by this process of certified dealings and
	// held against what they commit to; nil in epoch 0, and before.
	share *threshold.Share
	// found is the share that was sealed when this process began. It may be of somebody who had the
	// device before: nothing is done with it, but that it is kept, as the share of an epoch is,
	// until the next one has signed.
	found *threshold.Share
	// epochKey signs blocks and authenticates connections in the epoch.
	epochKey ed25519.PrivateKey
	// vaultKey encrypts the parts, kept on disk, of the dealings that lead to the epoch: they are
	// erased with it.
	vaultKey [32]byte
	// groupKey is a hash of the group public key, by which a state on disk can be told that is
	// another group's; zero without a share.
	groupKey [32]byte
	// here: the vault key was made in this boot. It is not sealed.
	here bool
}

const secretVersion = 3

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
	if kept := cmp.Or(s.share, s.found); kept != nil {
		share = kept.SecretBytes()
	}
	b := make([]byte, 0, keystore.MaxSecret)
	defer func() { clear(b) }()
	b = append(b, secretVersion)
	for _, part := range [][]byte{share, s.epochKey.Seed()} {
		b = append(append(b, byte(len(part))), part...)
		clear(part)
	}
	for _, field := range [][32]byte{s.vaultKey, s.groupKey} {
		b = append(b, field[:]...)
	}
	return device.Seal(uint64(epoch), b)
}

// unseal reads the secret of an epoch back: its share is one that was found.
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
		len(seed) != ed25519.SeedSize || !s.CopyBytes(out.vaultKey[:]) || !s.CopyBytes(out.groupKey[:]) || !s.Empty() {
		return nil, errNotASecret
	}
	if len(share) > 0 {
		if out.found, err = threshold.ParseShare(share); err != nil {
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

// keepShare leaves nothing of a secret but its share; nil when there is none.
func (s *secret) keepShare() *secret {
	if s == nil || s.share == nil && s.found == nil {
		s.wipe()
		return nil
	}
	kept := &secret{share: s.share, found: s.found}
	s.share, s.found = nil, nil
	s.wipe()
	return kept
}

// keepKeys leaves of a secret that was found what may serve the epoch to come: the epoch key, if
// the log names it, and the key to the parts that were stored.
func (s *secret) keepKeys() {
	if s != nil {
		s.found.Wipe()
		s.found, s.groupKey = nil, [32]byte{}
	}
}

// wipe erases the secret from memory, as far as Go allows. A nil secret may be wiped.
func (s *secret) wipe() {
	if s == nil {
		return
	}
	s.share.Wipe()
	s.found.Wipe()
	clear(s.vaultKey[:])
	clear(s.epochKey)
	s.share, s.found, s.epochKey = nil, nil, nil
}

// SealGenesisKey makes the secret of epoch 0, seals it, and returns the public epoch key, which
// goes into the genesis.
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
