package attest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"

	"github.com/reseal-bft/reseal/bft"
)

// Every signed or hashed thing begins with a domain of its own, so that no signature can be taken
// for another.
const (
	evidenceDomain = "reseal/v1/evidence\x00"
	nonceDomain    = "reseal/v1/quote-nonce\x00"

	presenceDomain      = "reseal/v1/presence\x00"
	presenceNonceDomain = "reseal/v1/presence-nonce\x00"
)

// Round numbers the attempts at a handoff over the whole life of a cluster, from 1. An attempt that
// is begun again has a new number, so nothing that was made for the old one counts in the new one.
type Round uint64

// Nonce is the qualifying data of a replica's quote. It binds the quote to the cluster, the
// replica, the round, its fresh epoch key, and, through the anchor's certificate, to a moment:
// nobody can know those 48 bytes before a quorum has signed them.
func Nonce(cluster bft.ClusterID, replica bft.ReplicaID, epoch bft.Epoch, round Round, anchorSignature []byte, epochKey ed25519.PublicKey) [32]byte {
	return sha256.Sum256(NonceInput(cluster, replica, epoch, round, anchorSignature, epochKey))
}

// NonceInput is what [Nonce] is the SHA-256 of: all numbers are big-endian.
func NonceInput(cluster bft.ClusterID, replica bft.ReplicaID, epoch bft.Epoch, round Round, anchorSignature []byte, epochKey ed25519.PublicKey) []byte {
	b := append([]byte(nonceDomain), cluster[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(replica))
	b = binary.BigEndian.AppendUint64(b, uint64(epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(round))
	b = binary.BigEndian.AppendUint16(b, uint16(len(anchorSignature)))
	b = append(b, anchorSignature...)
	return append(b, epochKey...)
}

// PresenceNonce is the qualifying data of the quote in a replica's presence, bound like [Nonce] but
// to no round and no key.
func PresenceNonce(cluster bft.ClusterID, replica bft.ReplicaID, epoch bft.Epoch, anchorSignature []byte) [32]byte {
	b := append([]byte(presenceNonceDomain), cluster[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(replica))
	b = binary.BigEndian.AppendUint64(b, uint64(epoch))
	return sha256.Sum256(append(b, anchorSignature...))
}
