package governance

import (
	"fmt"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// Operation is a system operation: [Attest], [Present], [Dealing], [Order] or [Accuse].
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
	kindPresent
)

// MaxOperation bounds an encoded system operation, in bytes. An order with the approvals of a few
// boot states for a large cluster is the largest.
const MaxOperation = 256 << 10

// MaxCertificate bounds the certificate of a dealing, in bytes: a list of signatures of the largest
// cluster.
const MaxCertificate = 32 << 10

// Attest submits a replica's evidence.
type Attest struct{ Evidence *attest.Evidence }

// Present submits what a replica shows of the boot it is in.
type Present struct{ Presence *attest.Presence }

// Dealing submits a certified dealing: q receivers acknowledged that they hold their part of what
// the commitment commits to.
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

// Accuse submits a proof that a leader signed two headers for one view: it is scheduled first for
// recovery.
type Accuse struct{ Evidence bft.Evidence }

func (*Attest) kind() operationKind  { return kindAttest }
func (*Dealing) kind() operationKind { return kindDealing }
func (*Order) kind() operationKind   { return kindOrder }
func (*Accuse) kind() operationKind  { return kindAccuse }
func (*Present) kind() operationKind { return kindPresent }

// Encode returns the canonical encoding of an operation, to be submitted in the system's space.
func Encode(op Operation) ([]byte, error) {
	var w writer
	w.U8(uint8(op.kind()))
	op.encode(&w)
	b, err := w.Result()
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
	r.Check(len(b) <= MaxOperation)
	op := r.operation()
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("system operation: %w", err)
	}
	return op, nil
}

func (r *reader) operation() Operation {
	switch operationKind(r.U8()) {
	case kindAttest:
		return r.attest()
	case kindPresent:
		return r.present()
	case kindDealing:
		return r.dealing()
	case kindOrder:
		return r.order()
	case kindAccuse:
		return &Accuse{bft.Evidence{A: r.signedHeader(), B: r.signedHeader()}}
	}
	r.Check(false)
	return nil
}

func (a *Attest) encode(w *writer) {
	b, err := a.Evidence.Encode()
	if err != nil {
		w.Fail(err)
		return
	}
	w.Bytes(b)
}

func (r *reader) attest() *Attest {
	b := r.Bytes(attest.MaxEvidence)
	if r.Failed() {
		return nil
	}
	e, err := attest.ParseEvidence(b)
	r.Check(err == nil)
	return &Attest{e}
}

func (p *Present) encode(w *writer) {
	b, err := p.Presence.Encode()
	if err != nil {
		w.Fail(err)
		return
	}
	w.Bytes(b)
}

func (r *reader) present() *Present {
	b := r.Bytes(attest.MaxEvidence)
	if r.Failed() {
		return nil
	}
	p, err := attest.ParsePresence(b)
	r.Check(err == nil)
	return &Present{p}
}

func (d *Dealing) encode(w *writer) {
	w.U64(uint64(d.Epoch))
	w.U64(uint64(d.Round))
	w.Replica(d.Dealer)
	w.Raw(d.Commitment[:])
	w.Raw(d.PublicKey[:])
	w.Bytes(d.Certificate)
}

func (r *reader) dealing() *Dealing {
	d := &Dealing{Epoch: bft.Epoch(r.U64()), Round: Round(r.U64()), Dealer: r.Replica(), Commitment: r.Digest()}
	r.Into(d.PublicKey[:])
	d.Certificate = r.Bytes(MaxCertificate)
	return d
}

func (a *Accuse) encode(w *writer) {
	w.signedHeader(&a.Evidence.A)
	w.signedHeader(&a.Evidence.B)
}

func (w *writer) signedHeader(h *bft.SignedHeader) {
	w.Raw(h.AppendBinary(nil))
	w.Bytes(h.Signature)
}

func (r *reader) signedHeader() bft.SignedHeader {
	h := bft.SignedHeader{Header: r.Header(), Signature: r.Bytes(64)}
	r.Check(len(h.Signature) == 64)
	return h
}
