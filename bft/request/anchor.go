package request

import (
	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
)

// maxSignature bounds a certificate's signature, in bytes: a list of [bft.MaxReplicas] signatures fits.
const maxSignature = 1 << 15

// addAnchor encodes a header and a certificate of it: of the certificate's statement only the kind, the rest is the header's.
func addAnchor(b *cryptobyte.Builder, h *bft.Header, c *bft.Certificate) {
	b.AddBytes(h.AppendBinary(nil))
	b.AddUint8(uint8(c.Kind))
	addPart(b, c.Signature)
}

func readAnchor(s *cryptobyte.String, h *bft.Header, c *bft.Certificate) bool {
	var kind uint8
	var signature cryptobyte.String
	if !readHeader(s, h) || !s.ReadUint8(&kind) || !s.ReadUint24LengthPrefixed(&signature) || len(signature) > maxSignature {
		return false
	}
	*c = bft.Certificate{
		Statement: bft.Statement{Epoch: h.Epoch, View: h.View, Kind: bft.VoteKind(kind), Block: h.Digest()},
		Signature: signature,
	}
	return true
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
