package handoff

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
)

// held is a dealing, verified, with this replica's part of it.
type held struct {
	to         bft.Epoch // the epoch that it leads to
	round      governance.Round
	commitment *threshold.Commitment
	part       *threshold.Part
}

// verify checks the part, which came from its dealer, or was completed from points and has no
// column then.
func (d *held) verify() error {
	if d.part.HasColumn() {
		return d.commitment.VerifyPart(d.part)
	}
	return d.commitment.VerifyCompleted(d.part)
}

// shelf keeps public sharings in the clear, and parts encrypted under the vault key of the epoch
// that they lead to. Without that key they are nothing, so it does not matter that a disk forgets
// slowly.
type shelf struct{ *store.Store }

func sharingName(epoch bft.Epoch) string { return fmt.Sprintf("sharing/%d/", epoch) }

// vaultName is what the names of the parts under a vault key begin with. The key's hash tells
// nothing about it.
func vaultName(to bft.Epoch, vaultKey *[32]byte) string {
	tag := sha256.Sum256(append([]byte("reseal/v1/vault\x00"), vaultKey[:]...))
	return fmt.Sprintf("part/%d/%x/", to, tag[:8])
}

// write commits a batch of small durable records.
func (s shelf) write(fill func(*store.Batch) error) error {
	batch := s.NewBatch()
	err := fill(batch)
	if err == nil {
		err = batch.Commit(true)
	}
	if err != nil {
		return fmt.Errorf("write to disk: %w", err)
	}
	return nil
}

func (s shelf) storeSharing(epoch bft.Epoch, sharing *threshold.Sharing) error {
	raw, err := sharing.MarshalBinary()
	if err != nil {
		return err
	}
	return s.write(func(b *store.Batch) error { return b.PutMeta(sharingName(epoch), raw) })
}

// loadSharing returns what the disk has as the public sharing of an epoch, nil if it has none that
// can be read.
func (s shelf) loadSharing(epoch bft.Epoch) *threshold.Sharing {
	raw, err := s.Meta(sharingName(epoch))
	if err != nil || raw == nil {
		return nil
	}
	sharing, err := threshold.ParseSharing(raw)
	if err != nil {
		return nil
	}
	return sharing
}

func (s shelf) storePart(vaultKey *[32]byte, d *held) error {
	commitment, err := d.commitment.MarshalBinary()
	if err != nil {
		return err
	}
	digest := d.commitment.Digest()
	name := vaultName(d.to, vaultKey) + fmt.Sprintf("%x", digest[:])
	sealed, err := encryptPart(vaultKey, d.part, place(name, d.round))
	if err != nil {
		return err
	}
	var b cryptobyte.Builder
	b.AddUint64(uint64(d.round))
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(commitment) })
	b.AddBytes(sealed)
	value, err := b.Bytes()
	if err != nil {
		return err
	}
	return s.write(func(b *store.Batch) error { return b.PutMeta(name, value) })
}

// maxParts bounds the parts that are read at a start: every dealer's, of an attempt and of some
// that came before it.
const maxParts = 4 * bft.MaxReplicas

var errEnough = errors.New("there are more parts than handoffs leave")

// loadParts returns the parts of a receiver that were stored under a vault key. What does not
// decrypt, or is no part of its commitment, is left out, and so is what is too much: it is asked
// for again.
func (s shelf) loadParts(to bft.Epoch, self bft.ReplicaID, vaultKey *[32]byte) (map[bft.Digest]*held, error) {
	out := make(map[bft.Digest]*held)
	prefix, read := vaultName(to, vaultKey), 0
	err := s.EachMeta(prefix, func(name string, value []byte) error {
		if read++; read > maxParts {
			return errEnough
		}
		d, err := readPart(vaultKey, to, name, value)
		if err != nil {
			return nil
		}
		digest := d.commitment.Digest()
		if strings.TrimPrefix(name, prefix) != fmt.Sprintf("%x", digest[:]) || d.part.Index() != int(self) || d.verify() != nil {
			d.part.Wipe()
			return nil
		}
		out[digest] = d
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return out, err
}

func readPart(vaultKey *[32]byte, to bft.Epoch, name string, value []byte) (*held, error) {
	s := cryptobyte.String(value)
	var round uint64
	var raw cryptobyte.String
	if !s.ReadUint64(&round) || !s.ReadUint24LengthPrefixed(&raw) {
		return nil, errors.New("malformed part on disk")
	}
	commitment, err := threshold.ParseCommitment(raw)
	if err != nil {
		return nil, err
	}
	part, err := decryptPart(vaultKey, s, place(name, governance.Round(round)))
	return &held{to: to, round: governance.Round(round), commitment: commitment, part: part}, err
}

// forgetEpoch deletes what the disk keeps of the handoff that led to an epoch.
func (s shelf) forgetEpoch(to bft.Epoch) error {
	return s.write(func(b *store.Batch) error { return b.DeleteMeta(fmt.Sprintf("part/%d/", to)) })
}

// place is where a part is kept, and for which round: it does not decrypt as one of another.
func place(name string, round governance.Round) []byte {
	return binary.BigEndian.AppendUint64([]byte(name), uint64(round))
}

// encryptPart encrypts a part of a dealing for the disk, bound to its place.
func encryptPart(vaultKey *[32]byte, part *threshold.Part, place []byte) ([]byte, error) {
	aead, err := vault(vaultKey)
	if err != nil {
		return nil, err
	}
	plain := part.SecretBytes()
	defer clear(plain)
	return aead.Seal(nil, nil, plain, place), nil
}

// decryptPart reads it back.
func decryptPart(vaultKey *[32]byte, sealed, place []byte) (*threshold.Part, error) {
	aead, err := vault(vaultKey)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed, place)
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
