package request

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/hdevalence/ed25519consensus"
	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
)

// Space says who executes a request's operations.
type Space uint8

// The spaces.
const (
	// Application operations are for the replicated service.
	Application Space = iota
	// System operations change the cluster: dealings, evidence, administration. They authenticate
	// themselves further.
	System
	spaces
)

// Request is a client's signed envelope of operations. Immutable once made.
type Request struct {
	// Client is the Ed25519 key that signed the request.
	Client ed25519.PublicKey
	// Sequence numbers the client's requests, from 1.
	Sequence uint64
	Space    Space
	// Operations are 1 to [bft.MaxOperations], each at most [bft.MaxOperation] bytes.
	Operations [][]byte
	// Signature is the client's, over the cluster's id and the hash of all that stands before it.
	Signature [ed25519.SignatureSize]byte

	raw    []byte
	hashed sync.Once
	body   bft.Digest // hash of all but the signature: what is signed
	digest bft.Digest
}

const (
	requestDomain = "reseal/v1/request\x00"
	nameDomain    = "reseal/v1/request-name\x00"

	headSize = ed25519.PublicKeySize + 8 + 1 + 2 // client, sequence, space, number of operations
	minSize  = headSize + ed25519.SignatureSize
)

// ErrMalformed is what every parser of this package returns, with more words.
var ErrMalformed = errors.New("malformed")

func malformed(what, why string) error { return fmt.Errorf("%w %s: %s", ErrMalformed, what, why) }

// New makes and signs a request. It copies the operations.
func New(cluster bft.ClusterID, key ed25519.PrivateKey, sequence uint64, space Space, operations [][]byte) (*Request, error) {
	size := minSize
	for _, op := range operations {
		size += 3 + len(op)
	}
	if err := checkShape(sequence, space, len(operations), size); err != nil {
		return nil, err
	}
	raw := make([]byte, 0, size)
	raw = append(raw, key.Public().(ed25519.PublicKey)...)
	raw = binary.BigEndian.AppendUint64(raw, sequence)
	raw = append(raw, byte(space))
	raw = binary.BigEndian.AppendUint16(raw, uint16(len(operations)))
	for i, op := range operations {
		if len(op) > bft.MaxOperation {
			return nil, fmt.Errorf("operation %d has %d bytes: the limit is %d", i, len(op), bft.MaxOperation)
		}
		raw = appendPart(raw, op)
	}
	body := bft.Digest(sha256.Sum256(raw))
	return Parse(append(raw, ed25519.Sign(key, signedBytes(cluster, body))...))
}

// appendPart appends a part of varying length, below 2^24 bytes, behind its length.
func appendPart(b, part []byte) []byte {
	n := len(part)
	return append(append(b, byte(n>>16), byte(n>>8), byte(n)), part...)
}

func checkShape(sequence uint64, space Space, operations, size int) error {
	switch {
	case sequence == 0:
		return malformed("request", "sequence numbers start at 1")
	case space >= spaces:
		return malformed("request", "unknown space")
	case operations < 1 || operations > bft.MaxOperations:
		return malformed("request", fmt.Sprintf("%d operations: need 1 to %d", operations, bft.MaxOperations))
	case size > bft.MaxRequest:
		return malformed("request", fmt.Sprintf("%d bytes: the limit is %d; send fewer operations in one request", size, bft.MaxRequest))
	}
	return nil
}

// Parse parses a request. It keeps raw, which must not be changed afterwards: the operations are
// slices of it. The signature is not checked.
func Parse(raw []byte) (*Request, error) {
	if len(raw) < minSize {
		return nil, malformed("request", "too short")
	}
	body := raw[:len(raw)-ed25519.SignatureSize]
	r := &Request{
		Client:    ed25519.PublicKey(raw[:ed25519.PublicKeySize:ed25519.PublicKeySize]),
		Sequence:  binary.BigEndian.Uint64(raw[32:]),
		Space:     Space(raw[40]),
		Signature: [ed25519.SignatureSize]byte(raw[len(body):]),
		raw:       raw,
	}
	count := int(binary.BigEndian.Uint16(raw[41:]))
	if err := checkShape(r.Sequence, r.Space, count, len(raw)); err != nil {
		return nil, err
	}
	operations, ok := readParts(body[headSize:], count, bft.MaxOperation)
	if !ok {
		return nil, malformed("request", "its operations")
	}
	r.Operations = operations
	return r, nil
}

// readParts reads exactly count parts of at most limit bytes each; they are slices of data.
func readParts(data []byte, count, limit int) ([][]byte, bool) {
	if count > len(data)/3 {
		return nil, false
	}
	parts := make([][]byte, count)
	s := cryptobyte.String(data)
	for i := range parts {
		var part cryptobyte.String
		if !s.ReadUint24LengthPrefixed(&part) || len(part) > limit {
			return nil, false
		}
		parts[i] = part[:len(part):len(part)]
	}
	return parts, s.Empty()
}

// Raw returns the canonical encoding: the bytes that [Parse] got. They must not be changed.
func (r *Request) Raw() []byte { return r.raw }

// Digest names the request, its signature included: who has verified a request need not verify
// another of the same digest.
func (r *Request) Digest() bft.Digest {
	r.hash()
	return r.digest
}

// hash computes the digests, when they are needed first. It hashes the body, which is long, once:
// the name is made of its hash.
func (r *Request) hash() {
	r.hashed.Do(func() {
		r.body = sha256.Sum256(r.raw[:len(r.raw)-ed25519.SignatureSize])
		b := make([]byte, 0, len(nameDomain)+len(r.body)+len(r.Signature))
		b = append(b, nameDomain...)
		b = append(b, r.body[:]...)
		r.digest = sha256.Sum256(append(b, r.Signature[:]...))
	})
}

// signed returns what the client has signed.
func (r *Request) signed(cluster bft.ClusterID) []byte {
	r.hash()
	return signedBytes(cluster, r.body)
}

// signedBytes are what a client signs.
func signedBytes(cluster bft.ClusterID, body bft.Digest) []byte {
	b := make([]byte, 0, len(requestDomain)+64)
	b = append(b, requestDomain...)
	b = append(b, cluster[:]...)
	return append(b, body[:]...)
}

// ErrSignature says that a request was not signed by its client for this cluster.
var ErrSignature = errors.New("the request's signature does not verify: it is forged, damaged, or meant for another cluster")

// Verify checks the client's signature by the rules of ZIP 215, which are the same for one
// signature and for a batch, so that all replicas agree. It returns [ErrSignature].
func (r *Request) Verify(cluster bft.ClusterID) error {
	if !ed25519consensus.Verify(r.Client, r.signed(cluster), r.Signature[:]) {
		return ErrSignature
	}
	return nil
}

// VerifyAll checks the signatures of many requests at once, at about half the cost of one by one,
// and returns for each whether it is good.
func VerifyAll(cluster bft.ClusterID, requests []*Request) []bool {
	good := make([]bool, len(requests))
	verifyInto(good, cluster, requests)
	return good
}

// verifyInto checks a batch, and where it fails its two halves: a few bad signatures cost a few
// batches more.
func verifyInto(good []bool, cluster bft.ClusterID, requests []*Request) {
	if len(requests) == 0 {
		return
	}
	if len(requests) == 1 {
		good[0] = requests[0].Verify(cluster) == nil
		return
	}
	batch := ed25519consensus.NewPreallocatedBatchVerifier(len(requests))
	for _, r := range requests {
		batch.Add(r.Client, r.signed(cluster), r.Signature[:])
	}
	if batch.Verify() {
		for i := range good {
			good[i] = true
		}
		return
	}
	half := len(requests) / 2
	verifyInto(good[:half], cluster, requests[:half])
	verifyInto(good[half:], cluster, requests[half:])
}
