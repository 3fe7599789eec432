package request

import (
	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
)

// headerSize is the size of an encoded header.
const headerSize = 147

// Anchor proves the state of a height, without anything of the state.
type Anchor struct {
	Header bft.Header
	// Certificate is a notarization of the header, or a finalization.
	Certificate bft.Certificate
}

// Verify checks that the certificate proves the header, and so that the state of height
// Header.StateHeight is final and has the root Header.StateRoot.
func (a *Anchor) Verify(cluster bft.ClusterID, key GroupKey) error {
	return verifyAnchor(cluster, key, &a.Header, &a.Certificate)
}

// MarshalBinary returns the canonical encoding.
func (a *Anchor) MarshalBinary() ([]byte, error) {
	var b cryptobyte.Builder
	addAnchor(&b, &a.Header, &a.Certificate)
	return b.Bytes()
}

// ParseAnchor parses what [Anchor.MarshalBinary] wrote, and only that.
func ParseAnchor(data []byte) (*Anchor, error) {
	s := cryptobyte.String(data)
	a := new(Anchor)
	if !readAnchor(&s, &a.Header, &a.Certificate) || !s.Empty() {
		return nil, malformed("anchor", "its parts")
	}
	return a, nil
}

// addAnchor encodes a header and a certificate of it: of the certificate's statement only the kind,
// the rest is the header's.
func addAnchor(b *cryptobyte.Builder, h *bft.Header, c *bft.Certificate) {
	b.AddBytes(h.AppendBinary(nil))
	b.AddUint8(uint8(c.Kind))
	addPart(b, c.Signature)
}

func readAnchor(s *cryptobyte.String, h *bft.Header, c *bft.Certificate) bool {
	var header []byte
	var kind uint8
	var signature cryptobyte.String
	if !s.ReadBytes(&header, headerSize) || !s.ReadUint8(&kind) || !s.ReadUint24LengthPrefixed(&signature) || len(signature) > bft.MaxCertificate {
		return false
	}
	var err error
	if *h, err = bft.ParseHeader(header); err != nil {
		return false
	}
	*c = bft.Certificate{
		Statement: bft.Statement{Epoch: h.Epoch, View: h.View, Kind: bft.VoteKind(kind), Block: h.Digest()},
		Signature: signature,
	}
	return true
}
