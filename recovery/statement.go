package recovery

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"

	"github.com/reseal-bft/reseal/bft"
)

// Every signed or hashed thing of this package begins with a domain of its own, so that no signature can be taken for another.
const (
	genesisDomain  = "reseal/v1/genesis\x00"
	dealingDomain  = "reseal/v1/dealing\x00"
	evidenceDomain = "reseal/v1/evidence\x00"
	nonceDomain    = "reseal/v1/quote-nonce\x00"
	orderDomain    = "reseal/v1/order\x00"
	snapshotDomain = "reseal/v1/system-state\x00"
)

// Round numbers the attempts at a handoff over the whole life of a cluster, from 1. An attempt that is begun again has a new
// number, so nothing that was made for the old one counts in the new one.
type Round uint64

// DealingStatement are the bytes that receivers sign, by the scheme of the epoch, to acknowledge that they hold their part of a
// dealing: domain, cluster, epoch, round, dealer, digest of the commitment, public key of the dealt secret.
func DealingStatement(cluster bft.ClusterID, epoch bft.Epoch, round Round, dealer bft.ReplicaID, commitment bft.Digest, publicKey [PublicKeySize]byte) []byte {
	b := append([]byte(dealingDomain), cluster[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(round))
	b = binary.BigEndian.AppendUint16(b, uint16(dealer))
	b = append(b, commitment[:]...)
	return append(b, publicKey[:]...)
}

// Nonce is the qualifying data of a replica's quote. It binds the quote to the cluster, the replica, the round, its fresh epoch key, and,
// through the anchor's certificate, to a moment: nobody can know those 48 bytes before a quorum has signed them.
func Nonce(cluster bft.ClusterID, replica bft.ReplicaID, epoch bft.Epoch, round Round, anchorSignature []byte, epochKey ed25519.PublicKey) [32]byte {
	b := append([]byte(nonceDomain), cluster[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(replica))
	b = binary.BigEndian.AppendUint64(b, uint64(epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(round))
	b = binary.BigEndian.AppendUint16(b, uint16(len(anchorSignature)))
	b = append(b, anchorSignature...)
	return sha256.Sum256(append(b, epochKey...))
}

// orderStatement are the bytes that operators sign.
func orderStatement(cluster bft.ClusterID, sequence uint64, kind OrderKind, body []byte) []byte {
	b := append([]byte(orderDomain), cluster[:]...)
	b = binary.BigEndian.AppendUint64(b, sequence)
	b = append(b, byte(kind))
	return append(b, body...)
}
