package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/internal/wire"
)

// Limits of evidence and certificates, in bytes.
const (
	MaxEvidence = 8 << 10

	maxAnchor    = 256 // an anchor's certificate is a threshold signature
	maxQuote     = 4 << 10
	maxSignature = 80 // ECDSA P-256 in ASN.1
)

// Evidence is what a replica shows after its reboot: that it is the member it says, that its TPM measured an approved boot, since
// its last recovery and not before this round, and which fresh key it will sign with.
type Evidence struct {
	Replica bft.ReplicaID
	Epoch   bft.Epoch
	Round   Round
	// Anchor is a block of this epoch, not below the one in which the round opened, and Certificate its notarization under the group key.
	Anchor      bft.Header
	Certificate bft.Certificate
	// EpochKey is the replica's key from the next epoch on.
	EpochKey ed25519.PublicKey
	// Quote is the TPM's quote with [Nonce] as qualifying data, encoded; empty without TPM.
	Quote []byte
	// Signature is the identity key's, ECDSA P-256 in ASN.1 over SHA-256, on all of the above.
	Signature []byte
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

// NewEvidence makes signed evidence. The quote function asks the TPM for an encoded quote over a nonce; nil without TPM. The identity key's
// signer gets random, which hardware ignores.
func NewEvidence(random io.Reader, c Challenge, epochKey ed25519.PublicKey, identity crypto.Signer, quote func(nonce []byte) ([]byte, error)) (*Evidence, error) {
	e := &Evidence{
		Replica: c.Replica, Epoch: c.Epoch, Round: c.Round, Anchor: c.Anchor, Certificate: c.Certificate, EpochKey: epochKey,
	}
	if quote != nil {
		nonce := Nonce(c.Cluster, c.Replica, c.Epoch, c.Round, c.Certificate.Signature, epochKey)
		q, err := quote(nonce[:])
		if err != nil {
			return nil, fmt.Errorf("evidence: quote: %w", err)
		}
		e.Quote = q
	}
	digest, err := e.digest(c.Cluster)
	if err != nil {
		return nil, err
	}
	if e.Signature, err = identity.Sign(random, digest[:], crypto.SHA256); err != nil {
		return nil, fmt.Errorf("evidence: identity key: %w", err)
	}
	return e, e.check()
}

// check reports evidence that has no encoding.
func (e *Evidence) check() error {
	b, err := e.Encode()
	if err != nil {
		return err
	}
	_, err = ParseEvidence(b)
	return err
}

// digest is what the identity key signs.
func (e *Evidence) digest(cluster bft.ClusterID) ([32]byte, error) {
	var w wire.Writer
	w.Raw([]byte(evidenceDomain))
	w.Raw(cluster[:])
	e.encodeClaim(&w)
	b, err := w.Result()
	if err != nil {
		return [32]byte{}, fmt.Errorf("evidence: %w", err)
	}
	return sha256.Sum256(b), nil
}

// signedBy reports whether the evidence is signed by the identity key.
func (e *Evidence) signedBy(cluster bft.ClusterID, identity *ecdsa.PublicKey) bool {
	digest, err := e.digest(cluster)
	return err == nil && ecdsa.VerifyASN1(identity, digest[:], e.Signature)
}

// Encode returns the canonical encoding.
func (e *Evidence) Encode() ([]byte, error) {
	var w wire.Writer
	e.encodeClaim(&w)
	w.Bytes(e.Signature)
	b, err := w.Result()
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	if len(b) > MaxEvidence {
		return nil, errors.New("evidence: too large")
	}
	return b, nil
}

// encodeClaim writes all but the signature. The certificate's statement is written in full: that it is about the anchor is for the policy to say.
func (e *Evidence) encodeClaim(w *wire.Writer) {
	w.Replica(e.Replica)
	w.U64(uint64(e.Epoch))
	w.U64(uint64(e.Round))
	w.Raw(e.Anchor.AppendBinary(nil))
	w.Statement(e.Certificate.Statement)
	w.Bytes(e.Certificate.Signature)
	w.Bytes(e.EpochKey)
	w.Bytes(e.Quote)
}

// ParseEvidence reads what [Evidence.Encode] writes.
func ParseEvidence(b []byte) (*Evidence, error) {
	r := wire.NewReader(b)
	r.Check(len(b) <= MaxEvidence)
	e := &Evidence{
		Replica: r.Replica(), Epoch: bft.Epoch(r.U64()), Round: Round(r.U64()), Anchor: r.Header(),
		Certificate: bft.Certificate{Statement: r.Statement(), Signature: r.Bytes(maxAnchor)},
		EpochKey:    r.EpochKey(), Quote: r.Bytes(maxQuote), Signature: r.Bytes(maxSignature),
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	return e, nil
}
