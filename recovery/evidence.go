package recovery

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/reseal-bft/reseal/bft"
)

// Limits of evidence and certificates, in bytes.
const (
	MaxEvidence    = 8 << 10
	MaxCertificate = 32 << 10 // a list of signatures of the largest cluster
	maxAnchor      = 256      // an anchor's certificate is a threshold signature
	maxQuote       = 4 << 10
	maxSignature   = 80 // ECDSA P-256 in ASN.1
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
	var w writer
	w.raw([]byte(evidenceDomain))
	w.raw(cluster[:])
	e.encodeClaim(&w)
	b, err := w.result()
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
	var w writer
	e.encodeClaim(&w)
	w.bytes(e.Signature)
	b, err := w.result()
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	if len(b) > MaxEvidence {
		return nil, errors.New("evidence: too large")
	}
	return b, nil
}

// encodeClaim writes all but the signature. The certificate's statement is written in full: that it is about the anchor is for the policy to say.
func (e *Evidence) encodeClaim(w *writer) {
	w.replica(e.Replica)
	w.u64(uint64(e.Epoch))
	w.u64(uint64(e.Round))
	w.raw(e.Anchor.AppendBinary(nil))
	w.statement(e.Certificate.Statement)
	w.bytes(e.Certificate.Signature)
	w.bytes(e.EpochKey)
	w.bytes(e.Quote)
}

// ParseEvidence reads what [Evidence.Encode] writes.
func ParseEvidence(b []byte) (*Evidence, error) {
	r := newReader(b)
	r.check(len(b) <= MaxEvidence)
	e := &Evidence{
		Replica: r.replica(), Epoch: bft.Epoch(r.u64()), Round: Round(r.u64()), Anchor: r.header(),
		Certificate: bft.Certificate{Statement: r.statement(), Signature: r.bytes(maxAnchor)},
		EpochKey:    r.epochKey(), Quote: r.bytes(maxQuote), Signature: r.bytes(maxSignature),
	}
	if err := r.done(); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	return e, nil
}

// epochKey reads an Ed25519 public key, 32 bytes with their length.
func (r *reader) epochKey() ed25519.PublicKey {
	key := r.bytes(ed25519.PublicKeySize)
	r.check(len(key) == ed25519.PublicKeySize)
	return key
}

func (w *writer) statement(s bft.Statement) {
	w.u64(uint64(s.Epoch))
	w.u64(uint64(s.View))
	w.u8(uint8(s.Kind))
	w.raw(s.Block[:])
}

func (r *reader) statement() bft.Statement {
	s := bft.Statement{Epoch: bft.Epoch(r.u64()), View: bft.View(r.u64()), Kind: bft.VoteKind(r.u8()), Block: r.digest()}
	r.check(s.Kind >= bft.Notarize && s.Kind <= bft.Finalize)
	return s
}

// header reads the canonical encoding of a header, see [bft.Header.AppendBinary].
func (r *reader) header() (h bft.Header) {
	h.Epoch, h.View, h.Height = bft.Epoch(r.u64()), bft.View(r.u64()), bft.Height(r.u64())
	h.Proposer = r.replica()
	h.Parent, h.ParentView = r.digest(), bft.View(r.u64())
	h.Time = int64(r.u64())
	h.Payload = r.digest()
	h.StateHeight, h.StateRoot = bft.Height(r.u64()), r.digest()
	h.EpochEnd = r.bool()
	return h
}
