package store

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
)

const headerSize = 8 + 8 + 8 + 2 + 32 + 8 + 8 + 32 + 8 + 32 + 1

// blockSize is the size of a block's record: header, signature behind its length (2 bytes), payload.
func blockSize(b *bft.Block) int { return headerSize + 2 + len(b.Signature) + len(b.Payload) }

func appendBlock(dst []byte, b *bft.Block) []byte {
	dst = b.Header.AppendBinary(dst)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(b.Signature)))
	return append(append(dst, b.Signature...), b.Payload...)
}

// parseBlock parses a record; the parts are copies.
func parseBlock(data []byte) (*bft.Block, bool) {
	s := cryptobyte.String(append([]byte(nil), data...))
	b := new(bft.Block)
	var signature cryptobyte.String
	if !readHeader(&s, &b.Header) || !s.ReadUint16LengthPrefixed(&signature) {
		return nil, false
	}
	b.Signature, b.Payload = signature, s
	return b, true
}

func readHeader(s *cryptobyte.String, h *bft.Header) bool {
	var time uint64
	var end uint8
	ok := s.ReadUint64((*uint64)(&h.Epoch)) && s.ReadUint64((*uint64)(&h.View)) && s.ReadUint64((*uint64)(&h.Height)) &&
		s.ReadUint16((*uint16)(&h.Proposer)) &&
		s.CopyBytes(h.Parent[:]) && s.ReadUint64((*uint64)(&h.ParentView)) && s.ReadUint64(&time) && s.CopyBytes(h.Payload[:]) &&
		s.ReadUint64((*uint64)(&h.StateHeight)) && s.CopyBytes(h.StateRoot[:]) && s.ReadUint8(&end)
	h.Time, h.EpochEnd = int64(time), end == 1
	return ok && end <= 1
}
