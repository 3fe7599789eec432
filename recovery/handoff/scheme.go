package handoff

import (
	"crypto/ed25519"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/scheme"
	"github.com/reseal-bft/reseal/threshold"
)

// Scheme returns what makes and checks the certificates of an epoch: in epoch 0 lists of
// signatures, from then on threshold signatures. The signer is nil without a share.
func (k *Keeper) Scheme(m *replica.Membership) (bft.Scheme, bft.Signer, error) {
	keys := k.Keys(m)
	switch {
	case keys == nil:
		s, err := k.Verifier(m)
		return s, nil, err
	case m.Epoch == 0:
		s := scheme.List(memberKeys(m), m.Size.Quorum(), keys.EpochKey)
		return s, s, nil
	}
	s := scheme.Threshold(keys.Sharing, keys.Share)
	return s, s, nil
}

// Verifier verifies the certificates of an epoch: in epoch 0 lists of signatures, from then on
// under the group key, which never changes.
func (k *Keeper) Verifier(m *replica.Membership) (bft.Scheme, error) {
	if m.Epoch == 0 {
		return scheme.List(memberKeys(m), m.Size.Quorum(), nil), nil
	}
	key, err := threshold.ParsePublicKey(m.GroupKey)
	if err != nil {
		return nil, err
	}
	return scheme.Verifier(key), nil
}

func memberKeys(m *replica.Membership) map[bft.ReplicaID]ed25519.PublicKey {
	keys := make(map[bft.ReplicaID]ed25519.PublicKey, len(m.Members))
	for _, member := range m.Members {
		keys[member.ID] = member.EpochKey
	}
	return keys
}
