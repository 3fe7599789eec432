package attest

import (
	"crypto"
	"crypto/ed25519"
	"fmt"
	"io"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/internal/wire"
)

// Evidence is what a replica shows after its reboot: that it is the member it says, that its TPM
// measured an approved boot, since its last recovery and after it became due, and which fresh key
// it will sign with. The anchor is not below the block in which the round opened; the quote is over
// [Nonce].
type Evidence struct {
	Proof
	Round Round
	// EpochKey is the replica's key from the next epoch on.
	EpochKey ed25519.PublicKey
}

// Challenge is what evidence answers: the round and a recent certificate.
type Challenge struct {
	Cluster     bft.ClusterID
	Replica     bft.ReplicaID
	Epoch       bft.Epoch
	Round       Round
	Anchor      bft.Header
	Certificate bft.Certificate
}

func (c *Challenge) proof() Proof {
	return Proof{Replica: c.Replica, Epoch: c.Epoch, Anchor: c.Anchor, Certificate: c.Certificate}
}

// NewEvidence makes signed evidence. The identity key's signer gets random, which hardware ignores.
func NewEvidence(random io.Reader, c Challenge, epochKey ed25519.PublicKey, identity crypto.Signer, quote Quoter) (*Evidence, error) {
	e := &Evidence{Proof: c.proof(), Round: c.Round, EpochKey: epochKey}
	nonce := Nonce(c.Cluster, c.Replica, c.Epoch, c.Round, c.Certificate.Signature, epochKey)
	if err := e.make(random, identity, quote, nonce, func() ([]byte, error) { return e.claim(c.Cluster) }); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	b, err := e.Encode()
	if err != nil {
		return nil, err
	}
	return ParseEvidence(b)
}

// claim is what the identity key signs.
func (e *Evidence) claim(cluster bft.ClusterID) ([]byte, error) {
	var w wire.Writer
	w.Raw([]byte(evidenceDomain))
	w.Raw(cluster[:])
	e.encodeClaim(&w)
	return w.Result()
}

// Encode returns the canonical encoding.
func (e *Evidence) Encode() ([]byte, error) {
	var w wire.Writer
	e.encodeClaim(&w)
	e.encodeTail(&w)
	b, err := result(&w)
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	return b, nil
}

func (e *Evidence) encodeClaim(w *wire.Writer) {
	e.encodeHead(w)
	w.U64(uint64(e.Round))
	w.Bytes(e.EpochKey)
}

// ParseEvidence reads what [Evidence.Encode] writes.
func ParseEvidence(b []byte) (*Evidence, error) {
	r := wire.NewReader(b)
	r.Check(len(b) <= MaxEvidence)
	e := &Evidence{Proof: readHead(r), Round: Round(r.U64()), EpochKey: r.EpochKey()}
	e.readTail(r)
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	return e, nil
}
