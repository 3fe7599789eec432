//go:build checksums

package scheme

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/threshold"
)

// In a build with the tag checksums, which only simulators are, votes are not signed: a partial
// signature is a hash of its message and of the public part of the share that would have made it, a
// certificate a hash of its message and the group key. Whoever looks can forge them, and a thousand
// cost what one signature costs. The shares are real: one that does not fit the sharing makes
// partial signatures that nobody accepts.

// Group verifies certificates under the group public key; it cannot make any. Safe for concurrent use.
type Group struct{ key []byte }

// Verifier returns what verifies certificates under the group key.
func Verifier(key *threshold.PublicKey) Group { return Group{key.Bytes()} }

// Name identifies the scheme.
func (Group) Name() string { return "checksum" }

// Combine fails: certificates are made by those who hold shares.
func (Group) Combine([]byte, map[bft.ReplicaID][]byte) ([]byte, []bft.ReplicaID, error) {
	return nil, nil, errors.New("certificates are combined by replicas that hold a share")
}

// Verify checks certificates.
func (g Group) Verify(messages, signatures [][]byte) []bool {
	good := make([]bool, len(messages))
	for i, s := range signatures {
		good[i] = subtle.ConstantTimeCompare(s, checksum("certificate", g.key, messages[i])) == 1
	}
	return good
}

// checksum has the length of a signature.
func checksum(what string, key, message []byte) []byte {
	h := sha256.New()
	h.Write([]byte(what))
	h.Write(key)
	h.Write(message)
	sum := h.Sum(make([]byte, 0, threshold.SignatureLen))
	return append(sum, sum[:threshold.SignatureLen-len(sum)]...)
}

// ThresholdScheme makes certificates with this replica's share. Safe for concurrent use.
type ThresholdScheme struct {
	Group
	quorum int
	keys   map[bft.ReplicaID][]byte
	own    []byte // the public part of the share
}

// Threshold returns the scheme of an epoch for a holder of a share.
func Threshold(sharing *threshold.Sharing, share *threshold.Share) *ThresholdScheme {
	p := sharing.Params()
	t := &ThresholdScheme{Group: Verifier(sharing.GroupKey()), quorum: p.T, keys: make(map[bft.ReplicaID][]byte)}
	for i := 1; i <= p.N; i++ {
		t.keys[bft.ReplicaID(i)] = sharing.ShareKey(i).Bytes()
	}
	if sharing.CheckShare(share) == nil {
		t.own = t.keys[bft.ReplicaID(share.Index())]
	}
	return t
}

// Sign makes the replica's partial signature, 48 bytes.
func (t *ThresholdScheme) Sign(message []byte) ([]byte, error) {
	return checksum("partial", t.own, message), nil
}

// Combine makes a certificate of a quorum of good partial signatures, and names bad ones.
func (t *ThresholdScheme) Combine(message []byte, partials map[bft.ReplicaID][]byte) (signature []byte, bad []bft.ReplicaID, err error) {
	good := 0
	for _, id := range slices.Sorted(maps.Keys(partials)) {
		key, ok := t.keys[id]
		if !ok || subtle.ConstantTimeCompare(partials[id], checksum("partial", key, message)) != 1 {
			bad = append(bad, id)
			continue
		}
		good++
	}
	if good < t.quorum {
		return nil, bad, fmt.Errorf("combine: %d good signatures, %d are needed", good, t.quorum)
	}
	return checksum("certificate", t.key, message), bad, nil
}
