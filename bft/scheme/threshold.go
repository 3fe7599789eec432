//go:build !checksums

package scheme

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/threshold"
)

// Group verifies certificates under the group public key; it cannot make any. Safe for concurrent use.
type Group struct{ key *threshold.PublicKey }

// Verifier returns what verifies certificates under the group key: all that a client, or a replica
// without a share, needs.
func Verifier(key *threshold.PublicKey) Group { return Group{key} }

// Name identifies the scheme.
func (Group) Name() string { return "bls12381-threshold" }

// Combine fails: certificates are made by those who hold shares.
func (Group) Combine([]byte, map[bft.ReplicaID][]byte) ([]byte, []bft.ReplicaID, error) {
	return nil, nil, errors.New("certificates are combined by replicas that hold a share")
}

// Verify checks certificates, several in one multi-pairing.
func (g Group) Verify(messages, signatures [][]byte) []bool {
	good := make([]bool, len(messages))
	items := make([]threshold.BatchItem, 0, len(messages))
	places := make([]int, 0, len(messages))
	for i, s := range signatures {
		if len(s) == threshold.SignatureLen {
			items = append(items, threshold.BatchItem{Key: g.key, Message: messages[i], Signature: threshold.Signature(s)})
			places = append(places, i)
		}
	}
	if len(items) == 0 {
		return good
	}
	bad := make(map[int]bool)
	if err := threshold.VerifyBatch(rand.Reader, items); err != nil {
		var named *threshold.BadItemsError
		if !errors.As(err, &named) {
			return good
		}
		for _, i := range named.Items {
			bad[i] = true
		}
	}
	for i, place := range places {
		good[place] = !bad[i]
	}
	return good
}

// ThresholdScheme makes certificates of threshold signatures, with this replica's share. Safe for
// concurrent use.
type ThresholdScheme struct {
	Group
	sharing *threshold.Sharing
	share   *threshold.Share
}

// Threshold returns the scheme of an epoch for a holder of a share.
func Threshold(sharing *threshold.Sharing, share *threshold.Share) *ThresholdScheme {
	return &ThresholdScheme{Group{sharing.GroupKey()}, sharing, share}
}

// Sign makes the replica's partial signature, 48 bytes.
func (t *ThresholdScheme) Sign(message []byte) ([]byte, error) {
	p := t.share.Sign(message)
	return p.Signature[:], nil
}

// Combine combines partial signatures, verifies the result once, and names bad ones.
func (t *ThresholdScheme) Combine(message []byte, partials map[bft.ReplicaID][]byte) (signature []byte, bad []bft.ReplicaID, err error) {
	signatures := make([]threshold.PartialSignature, 0, len(partials))
	for id, partial := range partials {
		if len(partial) != threshold.SignatureLen {
			bad = append(bad, id)
			continue
		}
		signatures = append(signatures, threshold.PartialSignature{Index: int(id), Signature: threshold.Signature(partial)})
	}
	s, wrong, err := t.sharing.Combine(message, signatures)
	for _, index := range wrong {
		bad = append(bad, bft.ReplicaID(index))
	}
	if err != nil {
		return nil, bad, fmt.Errorf("combine: %w", err)
	}
	return s[:], bad, nil
}
