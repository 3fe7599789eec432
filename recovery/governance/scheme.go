package governance

import (
	"bytes"
	"crypto/ed25519"
	"errors"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/scheme"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/threshold"
)

// epochScheme verifies the certificates of the ledger's epoch: lists of signatures by epoch keys in
// epoch 0, then threshold signatures under the group key. Both come to the same verdict on every
// replica.
func (l *ledger) epochScheme() (attest.Verifier, error) {
	if l.epoch > 0 {
		key, err := threshold.ParsePublicKey(l.groupKey)
		if err != nil {
			return nil, err
		}
		return scheme.Verifier(key), nil
	}
	keys := make(map[bft.ReplicaID]ed25519.PublicKey, len(l.members))
	for i := range l.members {
		keys[l.members[i].id] = l.members[i].epochKey
	}
	return scheme.List(keys, l.size.Quorum(), nil), nil
}

// nextGroupKey is the public key of the sharing that the chosen dealings combine into. In epoch 0
// it is the sum of the dealt public keys. Later it must be the key as it is: that the dealt secrets
// are shares of it was checked by the receivers who certified the dealings, and is checked here
// once more, since a wrong combination would lose the group key for good.
func (s *State) nextGroupKey() ([]byte, error) {
	var keys []*threshold.CertifiedKey
	for i := range s.round.dealings {
		d := &s.round.dealings[i]
		key, err := threshold.ParsePublicKey(d.PublicKey[:])
		if err != nil {
			return nil, err
		}
		certified, err := key.Certify(d.Commitment, d.certification(s.cluster, s.epoch, s.round.number, s.verifier))
		if err != nil {
			return nil, err
		}
		keys = append(keys, certified)
	}
	if s.epoch == 0 {
		sum, err := threshold.SumPublicKeys(keys...)
		if err != nil {
			return nil, err
		}
		return sum.Bytes(), nil
	}
	key, err := threshold.InterpolatePublicKey(keys...)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(key.Bytes(), s.groupKey) {
		return nil, errors.New("the dealt secrets are not shares of the group key")
	}
	return key.Bytes(), nil
}
