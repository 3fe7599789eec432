package scheme

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/reseal-bft/reseal/bft"
)

// listEntry is the size of one entry of a list: the replica, 2 bytes, and its signature.
const listEntry = 2 + ed25519.SignatureSize

// ListScheme makes certificates that are lists of a quorum of Ed25519 signatures, by replica
// ascending. Safe for concurrent use.
type ListScheme struct {
	keys   map[bft.ReplicaID]ed25519.PublicKey
	quorum int
	key    ed25519.PrivateKey
}

// List returns the scheme for replicas with the given keys; key is this replica's own, nil where it
// only verifies. The map is not changed afterwards.
func List(keys map[bft.ReplicaID]ed25519.PublicKey, quorum int, key ed25519.PrivateKey) *ListScheme {
	return &ListScheme{keys: keys, quorum: quorum, key: key}
}

// Name identifies the scheme.
func (*ListScheme) Name() string { return "ed25519-list" }

// Sign makes the replica's signature, 64 bytes.
func (l *ListScheme) Sign(message []byte) ([]byte, error) {
	if l.key == nil {
		return nil, errors.New("this replica holds no key of the epoch")
	}
	return ed25519.Sign(l.key, message), nil
}

// Combine lists a quorum of the signatures that verify.
func (l *ListScheme) Combine(message []byte, partials map[bft.ReplicaID][]byte) (signature []byte, bad []bft.ReplicaID, err error) {
	count := 0
	for _, id := range slices.Sorted(maps.Keys(partials)) {
		if !l.verify(id, message, partials[id]) {
			bad = append(bad, id)
			continue
		}
		if count < l.quorum {
			signature = append(binary.BigEndian.AppendUint16(signature, uint16(id)), partials[id]...)
			count++
		}
	}
	if count < l.quorum {
		return nil, bad, fmt.Errorf("combine: %d good signatures, %d are needed", count, l.quorum)
	}
	return signature, bad, nil
}

func (l *ListScheme) verify(id bft.ReplicaID, message, signature []byte) bool {
	key, ok := l.keys[id]
	return ok && len(signature) == ed25519.SignatureSize && ed25519.Verify(key, message, signature)
}

// Verify checks lists one by one.
func (l *ListScheme) Verify(messages, signatures [][]byte) []bool {
	good := make([]bool, len(messages))
	for i := range messages {
		good[i] = l.verifyList(messages[i], signatures[i])
	}
	return good
}

func (l *ListScheme) verifyList(message, list []byte) bool {
	if len(list) != l.quorum*listEntry {
		return false
	}
	last := bft.ReplicaID(0)
	for ; len(list) > 0; list = list[listEntry:] {
		id := bft.ReplicaID(binary.BigEndian.Uint16(list))
		if id <= last || !l.verify(id, message, list[2:listEntry]) {
			return false
		}
		last = id
	}
	return true
}
