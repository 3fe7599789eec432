package request

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/merkle"
)

// GroupKey verifies certificates under the cluster's group public key.
type GroupKey interface {
	Verify(message, signature []byte) error
}

// errUnproven is behind every reply that does not verify.
var errUnproven = errors.New("the reply is not proven")

func unproven(why string) error { return fmt.Errorf("%w: %s; ask another replica", errUnproven, why) }

// verifyAnchor checks the certificate of a header.
func verifyAnchor(cluster bft.ClusterID, key GroupKey, h *bft.Header, c *bft.Certificate) error {
	switch {
	case c.Kind != bft.Notarize && c.Kind != bft.Finalize:
		return unproven("its certificate is of the wrong kind")
	case c.Epoch != h.Epoch || c.View != h.View || c.Block != h.Digest():
		return unproven("its certificate is of another block")
	}
	if err := key.Verify(c.Statement.Bytes(cluster), c.Signature); err != nil {
		return unproven("its certificate does not verify under the group key")
	}
	return nil
}

// verifyState checks the certificate of a header, and that the header binds the state made of the
// three roots.
func verifyState(cluster bft.ClusterID, key GroupKey, h *bft.Header, c *bft.Certificate, application, sessions, system bft.Digest) error {
	if StateRoot(h.StateHeight, application, sessions, system) != h.StateRoot {
		return unproven("its state is not the certified one")
	}
	return verifyAnchor(cluster, key, h, c)
}

// Reply is the outcome of a request, with its proof.
type Reply struct {
	Results [][]byte
	Record  Record
	// Proof leads from the root of the sessions to the record.
	Proof               merkle.Proof
	AppRoot, SystemRoot bft.Digest
	Header              bft.Header
	// Certificate is a notarization of the header, or a finalization.
	Certificate bft.Certificate
}

// Verify checks that the results are those of the client's request with the given sequence number.
// It needs nothing but the group public key, and believes nobody.
func (r *Reply) Verify(cluster bft.ClusterID, key GroupKey, client ed25519.PublicKey, sequence uint64) error {
	switch {
	case r.Record.Sequence != sequence:
		return unproven("it is of another request")
	case r.Record.Height > r.Header.StateHeight:
		return unproven("its record is newer than its state")
	case ResultsDigest(r.Results) != r.Record.Results:
		return unproven("its results are not the recorded ones")
	}
	sessions, err := r.Proof.Root(SessionLeaf(client, sequence), r.Record.MarshalBinary(), true)
	if err != nil {
		return unproven("its Merkle path is malformed")
	}
	return verifyState(cluster, key, &r.Header, &r.Certificate, r.AppRoot, sessions, r.SystemRoot)
}

// MarshalBinary returns the canonical encoding.
func (r *Reply) MarshalBinary() ([]byte, error) {
	proof, err := r.Proof.MarshalBinary()
	if err != nil {
		return nil, err
	}
	if len(r.Results) > bft.MaxOperations {
		return nil, malformed("reply", "too many results")
	}
	size := anchorBytes + len(proof)
	for _, result := range r.Results {
		size += partBytes + len(result)
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, size))
	addAnchor(b, &r.Header, &r.Certificate)
	b.AddBytes(r.AppRoot[:])
	b.AddBytes(r.SystemRoot[:])
	b.AddBytes(r.Record.MarshalBinary())
	addPart(b, proof)
	b.AddUint16(uint16(len(r.Results)))
	for _, result := range r.Results {
		addPart(b, result)
	}
	return b.Bytes()
}

// partBytes is what stands before a part, and anchorBytes is room for all that is not a part of
// varying length: results are copied once.
const (
	partBytes   = 3
	anchorBytes = 1 << 10
)

func addPart(b *cryptobyte.Builder, part []byte) {
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(part) })
}

// ParseReply parses what [Reply.MarshalBinary] wrote, and only that. The results are slices of data.
func ParseReply(data []byte) (*Reply, error) {
	if len(data) > bft.MaxReply {
		return nil, malformed("reply", "too large")
	}
	s := cryptobyte.String(data)
	r := new(Reply)
	var proof cryptobyte.String
	var count uint16
	ok := readAnchor(&s, &r.Header, &r.Certificate) && s.CopyBytes(r.AppRoot[:]) && s.CopyBytes(r.SystemRoot[:])
	if ok {
		r.Record, ok = readRecord(&s)
	}
	if !ok || !s.ReadUint24LengthPrefixed(&proof) || !s.ReadUint16(&count) || count > bft.MaxOperations {
		return nil, malformed("reply", "its head")
	}
	var err error
	if r.Proof, err = merkle.ParseProof(proof); err != nil {
		return nil, err
	}
	if r.Results, ok = readParts(s, int(count), bft.MaxResult); !ok {
		return nil, malformed("reply", "its results")
	}
	return r, nil
}

// ReadReply is the answer to a read that one replica gave, with its proof and the state that it is of.
type ReadReply struct {
	// Answer and Proof are the application's: it checks them against AppRoot.
	Answer, Proof                     []byte
	AppRoot, SessionsRoot, SystemRoot bft.Digest
	Header                            bft.Header
	Certificate                       bft.Certificate
}

// Verify checks that AppRoot is a certified root of the application's state. How old it is,
// Header.Time says; whether the answer belongs to it, the application must check.
func (r *ReadReply) Verify(cluster bft.ClusterID, key GroupKey) error {
	return verifyState(cluster, key, &r.Header, &r.Certificate, r.AppRoot, r.SessionsRoot, r.SystemRoot)
}

// Time is the block time of the certified header: the answer was true of a state that was final then.
func (r *ReadReply) Time() time.Time { return time.UnixMilli(r.Header.Time) }

// MarshalBinary returns the canonical encoding.
func (r *ReadReply) MarshalBinary() ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, anchorBytes+len(r.Answer)+len(r.Proof)))
	addAnchor(b, &r.Header, &r.Certificate)
	b.AddBytes(r.AppRoot[:])
	b.AddBytes(r.SessionsRoot[:])
	b.AddBytes(r.SystemRoot[:])
	addPart(b, r.Answer)
	addPart(b, r.Proof)
	return b.Bytes()
}

// ParseReadReply parses what [ReadReply.MarshalBinary] wrote, and only that. Answer and proof are
// slices of data.
func ParseReadReply(data []byte) (*ReadReply, error) {
	if len(data) > bft.MaxReply {
		return nil, malformed("read reply", "too large")
	}
	s := cryptobyte.String(data)
	r := new(ReadReply)
	ok := readAnchor(&s, &r.Header, &r.Certificate) &&
		s.CopyBytes(r.AppRoot[:]) && s.CopyBytes(r.SessionsRoot[:]) && s.CopyBytes(r.SystemRoot[:]) &&
		s.ReadUint24LengthPrefixed((*cryptobyte.String)(&r.Answer)) && s.ReadUint24LengthPrefixed((*cryptobyte.String)(&r.Proof))
	if !ok || !s.Empty() {
		return nil, malformed("read reply", "its parts")
	}
	return r, nil
}
