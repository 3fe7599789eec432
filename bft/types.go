package bft

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// ReplicaID names a replica, 1 to n. It is also the index of its share of the group key.
type ReplicaID uint16

// Epoch counts the handoffs of the group key. Epoch 0 is key generation: its certificates are lists
// of signatures.
type Epoch uint64

// View counts the views of one epoch, from 1. View 0 stands for the block that ended the epoch before.
type View uint64

// Height counts the blocks of the log, from 1. Height 0 is the genesis.
type Height uint64

// Digest is a SHA-256 hash.
type Digest [32]byte

// String returns the first eight hexadecimal digits: enough to tell blocks apart in a log.
func (d Digest) String() string { return hex.EncodeToString(d[:4]) }

// IsZero reports whether d was never set.
func (d Digest) IsZero() bool { return d == Digest{} }

// ClusterID is the digest of a cluster's genesis; it is part of everything that is signed.
type ClusterID = Digest

// Header is what a block's digest commits to.
type Header struct {
	Epoch    Epoch
	View     View
	Height   Height
	Proposer ReplicaID
	// Parent is the digest of the parent's header, ParentView the view in which it was notarized
	// (0: the block that ended the epoch before, or the genesis).
	Parent     Digest
	ParentView View
	// Time is the block's time in milliseconds since 1970: not before the parent's, and the
	// parent's or at most a bound ahead of a voter's clock.
	Time int64
	// Payload is the digest of the payload.
	Payload Digest
	// StateHeight and StateRoot certify the state after an ancestor: final, and executed by every
	// first-voter.
	StateHeight Height
	StateRoot   Digest
	// EpochEnd is set exactly when the state at StateHeight says that the handoff is ready. The
	// first such block of a chain is the epoch's last; its descendants within the epoch are empty
	// and never executed: they only help to make it final.
	EpochEnd bool
}

const headerSize = 8 + 8 + 8 + 2 + 32 + 8 + 8 + 32 + 8 + 32 + 1

// AppendBinary appends the canonical encoding of the header, 147 bytes, to b.
func (h *Header) AppendBinary(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(h.Epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(h.View))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Height))
	b = binary.BigEndian.AppendUint16(b, uint16(h.Proposer))
	b = append(b, h.Parent[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.ParentView))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Time))
	b = append(b, h.Payload[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.StateHeight))
	b = append(b, h.StateRoot[:]...)
	if h.EpochEnd {
		return append(b, 1)
	}
	return append(b, 0)
}

const blockDomain = "reseal/v1/block\x00"

// Digest returns the block's name: the hash of its header under a domain of its own.
func (h *Header) Digest() Digest {
	var buf [len(blockDomain) + headerSize]byte
	b := append(buf[:0], blockDomain...)
	return sha256.Sum256(h.AppendBinary(b))
}

// PayloadDigest is the digest by which a header commits to its payload.
func PayloadDigest(payload []byte) Digest { return sha256.Sum256(payload) }

// Block is a proposal: a header, the leader's signature over it with its epoch key (64-byte
// Ed25519), and the payload, opaque to the core. Immutable once made.
type Block struct {
	Header
	Signature []byte
	Payload   []byte
}

const proposalDomain = "reseal/v1/proposal\x00"

// ProposalBytes are the bytes that a leader signs to propose the block with the given digest.
func ProposalBytes(cluster ClusterID, block Digest) []byte {
	b := append([]byte(proposalDomain), cluster[:]...)
	return append(b, block[:]...)
}

// VoteKind is the verb of a vote.
type VoteKind uint8

// The three verbs. Their certificates are called notarization, nullification and finalization.
const (
	Notarize VoteKind = 1 + iota
	Nullify
	Finalize
)

func (k VoteKind) String() string {
	switch k {
	case Notarize:
		return "notarize"
	case Nullify:
		return "nullify"
	case Finalize:
		return "finalize"
	}
	return "invalid"
}

// Statement is what a vote says and a certificate proves. Block is zero for Nullify.
type Statement struct {
	Epoch Epoch
	View  View
	Kind  VoteKind
	Block Digest
}

const voteDomain = "reseal/v1/vote\x00"

// Bytes are the bytes signed for the statement: domain, cluster, epoch, kind, view, block.
func (s Statement) Bytes(cluster ClusterID) []byte {
	b := make([]byte, 0, len(voteDomain)+32+8+1+8+32)
	b = append(b, voteDomain...)
	b = append(b, cluster[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Epoch))
	b = append(b, byte(s.Kind))
	b = binary.BigEndian.AppendUint64(b, uint64(s.View))
	return append(b, s.Block[:]...)
}

// Vote is one replica's statement. First tells first votes from fallback votes; it is not signed: it is
// attributed to the authenticated channel on which the vote came, as is the voter.
type Vote struct {
	Statement
	First bool
	// Partial is the voter's partial signature over the statement, in the form of the epoch's [Scheme].
	Partial []byte
}

// Certificate is q votes for one statement, combined: 48 bytes under the threshold scheme.
type Certificate struct {
	Statement
	Signature []byte
}

// SignedHeader is a header with its leader's signature: half of a proof of equivocation. It is sent
// to a peer that voted for another block of the view.
type SignedHeader struct {
	Header
	Signature []byte
}

// Message is what replicas send each other: *Block, Vote, Certificate, SignedHeader, Evidence, Status.
type Message interface{ message() }

// Evidence proves a leader Byzantine: two different headers that it signed for the same view, the
// smaller digest first.
type Evidence struct{ A, B SignedHeader }

// Status tells peers where a replica stands, so that they send what it lacks. It is sent when a
// view makes no progress.
type Status struct {
	Epoch Epoch
	// View asks for the certificates of this view and later ones: the first that the sender does
	// not know to be resolved.
	View View
	// FinalView is the view up to which the sender can show that blocks are final, FinalHeight the
	// height of the last one that it knows to be.
	FinalView   View
	FinalHeight Height
	// WantFinality asks for finalize votes: the sender holds blocks that are notarized and not final.
	WantFinality bool
}

func (*Block) message()       {}
func (Vote) message()         {}
func (Certificate) message()  {}
func (SignedHeader) message() {}
func (Evidence) message()     {}
func (Status) message()       {}

// EpochOf returns the epoch that a message is of.
func EpochOf(m Message) Epoch {
	switch m := m.(type) {
	case *Block:
		return m.Epoch
	case Vote:
		return m.Epoch
	case Certificate:
		return m.Epoch
	case SignedHeader:
		return m.Epoch
	case Evidence:
		return m.A.Epoch
	case Status:
		return m.Epoch
	}
	return 0
}
