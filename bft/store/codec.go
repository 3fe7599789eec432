package store

import (
	"fmt"

	"github.com/reseal-bft/reseal/bft"
)

// headerSize is the size of an encoded header.
const headerSize = 147

// blockSize is the size of a block's record, which is the block's wire encoding: header, signature,
// payload.
func blockSize(b *bft.Block) int { return headerSize + bft.SignatureSize + len(b.Payload) }

// checkBlock refuses what could not be read back.
func checkBlock(b *bft.Block) error {
	if len(b.Signature) != bft.SignatureSize || len(b.Payload) > bft.MaxPayload {
		return fmt.Errorf("store: block %s has a signature of %d bytes and a payload of %d", b.Digest(), len(b.Signature), len(b.Payload))
	}
	return nil
}

// appendBlock writes a block's record, without the copy that a call of MarshalBinary would make of
// the payload.
func appendBlock(dst []byte, b *bft.Block) []byte {
	dst = b.Header.AppendBinary(dst)
	return append(append(dst, b.Signature...), b.Payload...)
}
