package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/internal/wire"
)

// Limits of evidence and presence, in bytes.
const (
	MaxEvidence = 8 << 10

	maxAnchor    = 256 // an anchor's certificate is a threshold signature
	maxQuote     = 4 << 10
	maxSignature = 80 // ECDSA P-256 in ASN.1
)

// Proof is what [Evidence] and [Presence] have in common: a TPM's word, not older than a block, in
// a replica's name.
type Proof struct {
	Replica bft.ReplicaID
	Epoch   bft.Epoch
	// Anchor is a recent block of this epoch, and Certificate its notarization under the group key.
	Anchor      bft.Header
	Certificate bft.Certificate
	// Quote is the TPM's quote, encoded; empty without TPM.
	Quote []byte
	// Signature is the identity key's, ECDSA P-256 in ASN.1 over SHA-256, on all of the above and
	// what the proof is for.
	Signature []byte
}

// Quoter asks a TPM for an encoded quote over a nonce; nil without TPM.
type Quoter func(nonce []byte) ([]byte, error)

// make fills in quote and signature. Claim is what the identity key signs. Hardware ignores random.
func (p *Proof) make(random io.Reader, identity crypto.Signer, quote Quoter, nonce [32]byte, claim func() ([]byte, error)) (err error) {
	if quote != nil {
		if p.Quote, err = quote(nonce[:]); err != nil {
			return fmt.Errorf("quote: %w", err)
		}
	}
	b, err := claim()
	if err != nil {
		return err
	}
	digest := sha256.Sum256(b)
	if p.Signature, err = identity.Sign(random, digest[:], crypto.SHA256); err != nil {
		return fmt.Errorf("identity key: %w", err)
	}
	return nil
}

// signedBy reports whether the identity key signed the claim.
func (p *Proof) signedBy(identity *ecdsa.PublicKey, claim func() ([]byte, error)) bool {
	b, err := claim()
	digest := sha256.Sum256(b)
	return err == nil && ecdsa.VerifyASN1(identity, digest[:], p.Signature)
}

// encodeHead writes what comes before that which makes a proof evidence or presence, encodeTail
// what comes after; the signature is over all but itself. The certificate's statement is written in
// full: that it is about the anchor is for the policy to say.
func (p *Proof) encodeHead(w *wire.Writer) {
	w.Replica(p.Replica)
	w.U64(uint64(p.Epoch))
	w.Raw(p.Anchor.AppendBinary(nil))
	w.Statement(p.Certificate.Statement)
	w.Bytes(p.Certificate.Signature)
	w.Bytes(p.Quote)
}

func (p *Proof) encodeTail(w *wire.Writer) { w.Bytes(p.Signature) }

func readHead(r *wire.Reader) Proof {
	return Proof{
		Replica: r.Replica(), Epoch: bft.Epoch(r.U64()), Anchor: r.Header(),
		Certificate: bft.Certificate{Statement: r.Statement(), Signature: r.Bytes(maxAnchor)},
		Quote:       r.Bytes(maxQuote),
	}
}

func (p *Proof) readTail(r *wire.Reader) { p.Signature = r.Bytes(maxSignature) }

// result is what a writer holds, if it is not too large.
func result(w *wire.Writer) ([]byte, error) {
	b, err := w.Result()
	if err == nil && len(b) > MaxEvidence {
		err = errors.New("too large")
	}
	return b, err
}
