package recovery

import (
	"crypto/ed25519"
	"encoding/binary"

	"github.com/reseal-bft/reseal/bft"
)

// signList is a certificate of epoch 0.
func (c *cluster) signList(message []byte) []byte {
	var list []byte
	for i := range c.genesis.Size().Quorum() {
		list = binary.BigEndian.AppendUint16(list, uint16(i+1))
		list = append(list, ed25519.Sign(c.epochKeys[bft.ReplicaID(i+1)], message)...)
	}
	return list
}
