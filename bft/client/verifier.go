package client

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/threshold"
)

// Verifier verifies certificates under the group public key and remembers recent ones: the replies
// to all requests of one block share a certificate, which costs a millisecond to verify. Safe for
// concurrent use, and worth sharing.
type Verifier struct {
	key *threshold.PublicKey

	mu     sync.Mutex
	recent [remembered]*verification
	next   int
}

// remembered is the number of certificates that a verifier remembers.
const remembered = 64

// verification is made once, by the first who asks; others wait for it.
type verification struct {
	message, signature []byte
	result             func() error
}

// NewVerifier returns a verifier for a group public key.
func NewVerifier(key *threshold.PublicKey) *Verifier { return &Verifier{key: key} }

// Verify checks a signature of 48 bytes on a message.
func (v *Verifier) Verify(message, signature []byte) error {
	if len(signature) != threshold.SignatureLen {
		return threshold.ErrInvalidSignature
	}
	return v.lookup(message, signature).result()
}

func (v *Verifier) lookup(message, signature []byte) *verification {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.recent {
		if r != nil && bytes.Equal(r.message, message) && bytes.Equal(r.signature, signature) {
			return r
		}
	}
	r := &verification{message: bytes.Clone(message), signature: bytes.Clone(signature)}
	r.result = sync.OnceValue(func() error { return v.key.Verify(r.message, threshold.Signature(r.signature)) })
	v.recent[v.next] = r
	v.next = (v.next + 1) % remembered
	return r
}

// ErrNoGroupKey says that the replicas told no group key that could be believed.
var ErrNoGroupKey = errors.New("fewer than f + 1 replicas tell the same group key: wait until the cluster has generated it, or start more replicas")

// GroupKey learns the cluster's group public key, for a client that has none yet: it asks all
// replicas, each of which proves to have its identity key at that time, and takes the key that f + 1
// of them tell, of whom one at least is correct. It waits for answers until ctx ends.
func GroupKey(ctx context.Context, cluster bft.ClusterID, peers []transport.Peer, f int) (*threshold.PublicKey, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	told := make(chan string, len(peers))
	for _, peer := range peers {
		go func() { told <- groupKeyOf(ctx, cluster, peer) }()
	}
	votes := make(map[string]int)
	for range peers {
		text := <-told
		if votes[text]++; text == "" || votes[text] <= f {
			continue
		}
		raw, err := hex.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("the group key that the replicas tell: %w", err)
		}
		return threshold.ParsePublicKey(raw)
	}
	return nil, ErrNoGroupKey
}

// groupKeyOf returns the group key that one replica tells, in hexadecimal; empty if none.
func groupKeyOf(ctx context.Context, cluster bft.ClusterID, peer transport.Peer) string {
	conn, err := transport.Dial(cluster, peer)
	if err != nil {
		return ""
	}
	defer conn.Close()
	data, err := conn.CallVouched(ctx, 0, methodInfo, nil)
	if err != nil {
		return ""
	}
	var info struct {
		State struct {
			GroupKey string `json:"group_key"`
		} `json:"state"`
	}
	if json.Unmarshal(data, &info) != nil {
		return ""
	}
	return info.State.GroupKey
}
