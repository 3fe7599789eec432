package governance

import (
	"encoding/binary"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// Every signed or hashed thing of this package begins with a domain of its own, so that no
// signature can be taken for another.
const (
	genesisDomain  = "reseal/v1/genesis\x00"
	foundingDomain = "reseal/v1/founding\x00"
	dealingDomain  = "reseal/v1/dealing\x00"
	orderDomain    = "reseal/v1/order\x00"
	snapshotDomain = "reseal/v1/system-state\x00"
)

// Round numbers the attempts at a handoff, see [attest.Round].
type Round = attest.Round

// DealingStatement are the bytes that receivers sign, by the scheme of the epoch, to acknowledge
// that they hold their part of a dealing: domain, cluster, epoch, round, dealer, digest of the
// commitment, public key of the dealt secret.
func DealingStatement(cluster bft.ClusterID, epoch bft.Epoch, round Round, dealer bft.ReplicaID, commitment bft.Digest, publicKey [PublicKeySize]byte) []byte {
	b := append([]byte(dealingDomain), cluster[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(round))
	b = binary.BigEndian.AppendUint16(b, uint16(dealer))
	b = append(b, commitment[:]...)
	return append(b, publicKey[:]...)
}

// orderStatement are the bytes that operators sign.
func orderStatement(cluster bft.ClusterID, sequence uint64, kind OrderKind, body []byte) []byte {
	b := append([]byte(orderDomain), cluster[:]...)
	b = binary.BigEndian.AppendUint64(b, sequence)
	b = append(b, byte(kind))
	return append(b, body...)
}
