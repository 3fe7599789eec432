package recoverytest

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/threshold"
	"github.com/reseal-bft/reseal/threshold/thresholdtest"
)

// sealed is what a replica seals for an epoch, in the form in which package handoff has it: the
// intruder writes and reads it.
type sealed struct {
	share, seed     []byte
	vault, groupKey [32]byte
}

const sealedVersion = 3

var errFormat = errors.New("what replicas seal is not in the form that the kit knows: let secret.go follow package handoff")

func (s *sealed) encode() []byte {
	b := []byte{sealedVersion}
	for _, part := range [][]byte{s.share, s.seed} {
		b = append(append(b, byte(len(part))), part...)
	}
	for _, field := range [][32]byte{s.vault, s.groupKey} {
		b = append(b, field[:]...)
	}
	return b
}

func parseSealed(b []byte) (*sealed, error) {
	s, out := cryptobyte.String(b), &sealed{}
	var version uint8
	var share, seed cryptobyte.String
	if !s.ReadUint8(&version) || version != sealedVersion || !s.ReadUint8LengthPrefixed(&share) || !s.ReadUint8LengthPrefixed(&seed) ||
		len(seed) != ed25519.SeedSize || !s.CopyBytes(out.vault[:]) || !s.CopyBytes(out.groupKey[:]) || !s.Empty() {
		return nil, errFormat
	}
	out.share, out.seed = share, seed
	return out, nil
}

// worthless is a secret for an epoch under a key that the log names, with a share of a group that
// the intruder made, which passes for the cluster's.
func worthless(key ed25519.PrivateKey, id int, p threshold.Params, groupKey []byte) (*sealed, []byte, error) {
	sharing, shares, err := thresholdtest.Sharing(p)
	if err != nil {
		return nil, nil, err
	}
	raw, err := sharing.MarshalBinary()
	if err != nil {
		return nil, nil, err
	}
	s := &sealed{share: shares[id-1].SecretBytes(), seed: key.Seed(), groupKey: sha256.Sum256(groupKey)}
	_, err = rand.Read(s.vault[:])
	return s, raw, err
}
