package recovery

import (
	"fmt"

	"github.com/reseal-bft/reseal/bft"
)

// Operation is a system operation: [Attest], [Dealing], [Order] or [Accuse].
type Operation interface {
	kind() operationKind
	encode(w *writer)
}

type operationKind uint8

const (
	kindAttest operationKind = 1 + iota
	kindDealing
	kindOrder
	kindAccuse
)

// MaxOperation bounds an encoded system operation, in bytes.
const MaxOperation = 64 << 10

// Attest submits a replica's evidence.
type Attest struct{ Evidence *Evidence }

// Dealing submits a certified dealing: q receivers acknowledged that they hold their part of what the commitment commits to.
type Dealing struct {
	Epoch  bft.Epoch
	Round  Round
	Dealer bft.ReplicaID
	// Commitment is the digest of the dealing's commitment.
	Commitment bft.Digest
	// PublicKey is the public key of the dealt secret.
	PublicKey [PublicKeySize]byte
	// Certificate is one of the epoch's scheme over [Dealing.Statement].
	Certificate []byte
}

// Statement are the bytes that the dealing's certificate is over.
func (d *Dealing) Statement(cluster bft.ClusterID) []byte {
	return DealingStatement(cluster, d.Epoch, d.Round, d.Dealer, d.Commitment, d.PublicKey)
}

// Accuse submits a proof that a leader signed two headers for one view: it is scheduled first for recovery.
type Accuse struct{ Evidence bft.Evidence }

func (*Attest) kind() operationKind  { return kindAttest }
func (*Dealing) kind() operationKind { return kindDealing }
func (*Order) kind() operationKind   { return kindOrder }
func (*Accuse) kind() operationKind  { return kindAccuse }

// Encode returns the canonical encoding of an operation, to be submitted in the system's space.
func Encode(op Operation) ([]byte, error) {
	var w writer
	w.u8(uint8(op.kind()))
	op.encode(&w)
	b, err := w.result()
	if err != nil {
		return nil, fmt.Errorf("system operation: %w", err)
	}
	if len(b) > MaxOperation {
		return nil, fmt.Errorf("system operation: %d bytes, more than %d", len(b), MaxOperation)
	}
	if _, err := Parse(b); err != nil {
		return nil, err
	}
	return b, nil
}

// Parse reads what [Encode] writes and nothing else.
func Parse(b []byte) (Operation, error) {
	r := newReader(b)
	r.check(len(b) <= MaxOperation)
	op := r.operation()
	if err := r.done(); err != nil {
		return nil, fmt.Errorf("system operation: %w", err)
	}
	return op, nil
}

func (r *reader) operation() Operation {
	switch operationKind(r.u8()) {
	case kindAttest:
		return r.attest()
	case kindDealing:
		return r.dealing()
	case kindOrder:
		return r.order()
	case kindAccuse:
		return &Accuse{bft.Evidence{A: r.signedHeader(), B: r.signedHeader()}}
	}
	r.check(false)
	return nil
}

func (a *Attest) encode(w *writer) {
	b, err := a.Evidence.Encode()
	if err != nil {
		w.b.SetError(err)
		return
	}
	w.bytes(b)
}

func (r *reader) attest() *Attest {
	b := r.bytes(MaxEvidence)
	if r.bad {
		return nil
	}
	e, err := ParseEvidence(b)
	r.check(err == nil)
	return &Attest{e}
}

func (d *Dealing) encode(w *writer) {
	w.u64(uint64(d.Epoch))
	w.u64(uint64(d.Round))
	w.replica(d.Dealer)
	w.raw(d.Commitment[:])
	w.raw(d.PublicKey[:])
	w.bytes(d.Certificate)
}

func (r *reader) dealing() *Dealing {
	d := &Dealing{Epoch: bft.Epoch(r.u64()), Round: Round(r.u64()), Dealer: r.replica(), Commitment: r.digest()}
	r.into(d.PublicKey[:])
	d.Certificate = r.bytes(MaxCertificate)
	return d
}

func (a *Accuse) encode(w *writer) {
	w.signedHeader(&a.Evidence.A)
	w.signedHeader(&a.Evidence.B)
}

func (w *writer) signedHeader(h *bft.SignedHeader) {
	w.raw(h.AppendBinary(nil))
	w.bytes(h.Signature)
}

func (r *reader) signedHeader() bft.SignedHeader {
	h := bft.SignedHeader{Header: r.header(), Signature: r.bytes(64)}
	r.check(len(h.Signature) == 64)
	return h
}
