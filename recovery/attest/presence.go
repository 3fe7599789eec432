package attest

import (
	"crypto"
	"fmt"
	"io"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/internal/wire"
)

// Presence is what a replica shows of the boot that it is in now: how often its TPM was reset so
// far, which boot state it runs in, and which approvals its TPM still takes. The quote is over
// [PresenceNonce]. It gives a replica nothing; what it says is held to.
type Presence struct{ Proof }

// NewPresence makes a signed presence; the round of the challenge plays no part. Presence is always
// by a TPM.
func NewPresence(random io.Reader, c Challenge, identity crypto.Signer, quote Quoter) (*Presence, error) {
	p := &Presence{c.proof()}
	nonce := PresenceNonce(c.Cluster, c.Replica, c.Epoch, c.Certificate.Signature)
	if err := p.make(random, identity, quote, nonce, func() ([]byte, error) { return p.claim(c.Cluster) }); err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	b, err := p.Encode()
	if err != nil {
		return nil, err
	}
	return ParsePresence(b)
}

// claim is what the identity key signs.
func (p *Presence) claim(cluster bft.ClusterID) ([]byte, error) {
	var w wire.Writer
	w.Raw([]byte(presenceDomain))
	w.Raw(cluster[:])
	p.encodeHead(&w)
	return w.Result()
}

// Encode returns the canonical encoding.
func (p *Presence) Encode() ([]byte, error) {
	var w wire.Writer
	p.encodeHead(&w)
	p.encodeTail(&w)
	b, err := result(&w)
	if err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	return b, nil
}

// ParsePresence reads what [Presence.Encode] writes.
func ParsePresence(b []byte) (*Presence, error) {
	r := wire.NewReader(b)
	r.Check(len(b) <= MaxEvidence)
	p := &Presence{readHead(r)}
	p.readTail(r)
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	return p, nil
}
