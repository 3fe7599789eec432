package wire

import (
	"crypto/ed25519"

	"github.com/reseal-bft/reseal/bft"
)

// EpochKey reads an Ed25519 public key, 32 bytes with their length.
func (r *Reader) EpochKey() ed25519.PublicKey {
	key := r.Bytes(ed25519.PublicKeySize)
	r.Check(len(key) == ed25519.PublicKeySize)
	return key
}

func (w *Writer) Statement(s bft.Statement) {
	w.U64(uint64(s.Epoch))
	w.U64(uint64(s.View))
	w.U8(uint8(s.Kind))
	w.Raw(s.Block[:])
}

func (r *Reader) Statement() bft.Statement {
	s := bft.Statement{Epoch: bft.Epoch(r.U64()), View: bft.View(r.U64()), Kind: bft.VoteKind(r.U8()), Block: r.Digest()}
	r.Check(s.Kind >= bft.Notarize && s.Kind <= bft.Finalize)
	return s
}

// Header reads the canonical encoding of a header, see [bft.Header.AppendBinary].
func (r *Reader) Header() (h bft.Header) {
	h.Epoch, h.View, h.Height = bft.Epoch(r.U64()), bft.View(r.U64()), bft.Height(r.U64())
	h.Proposer = r.Replica()
	h.Parent, h.ParentView = r.Digest(), bft.View(r.U64())
	h.Time = int64(r.U64())
	h.Payload = r.Digest()
	h.StateHeight, h.StateRoot = bft.Height(r.U64()), r.Digest()
	h.EpochEnd = r.Bool()
	return h
}
