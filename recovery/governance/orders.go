package governance

import (
	"cmp"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/internal/wire"
)

// OrderKind tells the operators' orders apart. Kinds are never given a new meaning; a kind that a
// replica does not know is refused.
type OrderKind uint8

// The kinds of orders.
const (
	OrderStartRound OrderKind = 1 + iota
	OrderApproveState
	OrderRevokeState
	OrderQuarantine
	OrderRelease
)

// Order is an administrative order, signed by a quorum of operators. Orders are numbered without
// gaps, which protects against replay: an order with good signatures uses up its number also when
// it cannot be carried out, so that it cannot come back later.
type Order struct {
	Sequence   uint64
	Body       OrderBody
	Signatures []OperatorSignature // by operator, ascending
}

// OperatorSignature is an operator's Ed25519 signature; Operator is its place in the genesis, from 0.
type OperatorSignature struct {
	Operator  uint8
	Signature []byte
}

// OrderBody is what an order asks for: [StartRound], [ApproveState], [RevokeState], [Quarantine] or
// [Release].
type OrderBody interface {
	Kind() OrderKind
	validate() error
	encodeBody(w *writer)
}

// StartRound begins a recovery round now, or begins the running one again. Without names the due
// replicas are chosen automatically; while a round runs they stay the same, and those that have
// attested stay attested.
type StartRound struct{ Due []bft.ReplicaID }

// ApproveState admits a boot state, with its approvals for all TPMs. For a state that is approved
// already it renews the approvals.
type ApproveState struct{ State attest.ApprovedState }

// RevokeState no longer admits a boot state, neither here nor on any TPM: each raises its approval
// counter, which ends all approvals so far. So the order holds new ones of all states that stay
// approved, in the log's order. Replicas that run in the revoked state are due at once.
type RevokeState struct {
	Name      string
	Remaining []RemainingState
}

// RemainingState is a state that stays approved, with its new approvals.
type RemainingState struct {
	Name      string
	Approvals []attest.DeviceApproval
}

// Quarantine keeps a replica out of the next epochs, until [Release].
type Quarantine struct {
	Replica bft.ReplicaID
	Reason  string // 1 to 64 printable ASCII characters
}

// Release ends a quarantine: the replica may recover.
type Release struct{ Replica bft.ReplicaID }

// Kind returns OrderStartRound.
func (*StartRound) Kind() OrderKind { return OrderStartRound }

// Kind returns OrderApproveState.
func (*ApproveState) Kind() OrderKind { return OrderApproveState }

// Kind returns OrderRevokeState.
func (*RevokeState) Kind() OrderKind { return OrderRevokeState }

// Kind returns OrderQuarantine.
func (*Quarantine) Kind() OrderKind { return OrderQuarantine }

// Kind returns OrderRelease.
func (*Release) Kind() OrderKind { return OrderRelease }

// Sign adds the signature of one of the genesis's operators.
func (o *Order) Sign(g *Genesis, operator crypto.Signer) error {
	public, ok := operator.Public().(ed25519.PublicKey)
	index := slices.IndexFunc(g.Operators, func(k ed25519.PublicKey) bool { return ok && k.Equal(public) })
	if index < 0 {
		return errors.New("order: this key is not one of the genesis's operators")
	}
	if err := o.Body.validate(); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	statement, err := o.statement(g.ClusterID())
	if err != nil {
		return err
	}
	signature, err := operator.Sign(io.Reader(nil), statement, crypto.Hash(0))
	if err != nil {
		return fmt.Errorf("order: operator's key: %w", err)
	}
	o.Signatures = slices.DeleteFunc(o.Signatures, func(s OperatorSignature) bool { return int(s.Operator) == index })
	o.Signatures = append(o.Signatures, OperatorSignature{uint8(index), signature})
	slices.SortFunc(o.Signatures, func(a, b OperatorSignature) int { return cmp.Compare(a.Operator, b.Operator) })
	return nil
}

// statement are the bytes that the order's signatures are over.
func (o *Order) statement(cluster bft.ClusterID) ([]byte, error) {
	var w writer
	o.Body.encodeBody(&w)
	body, err := w.Result()
	if err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	return orderStatement(cluster, o.Sequence, o.Body.Kind(), body), nil
}

// verify checks that a quorum of operators signed, and that no signature is bad.
func (o *Order) verify(g *Genesis, cluster bft.ClusterID) *attest.Refusal {
	if len(o.Signatures) < g.OperatorQuorum {
		return attest.Refuse(attest.ReasonSignatures, "the order has %d signatures; %d operators must sign", len(o.Signatures), g.OperatorQuorum)
	}
	statement, err := o.statement(cluster)
	if err != nil {
		return attest.Refuse(attest.ReasonMalformed, "%v", err)
	}
	for _, s := range o.Signatures {
		if int(s.Operator) >= len(g.Operators) {
			return attest.Refuse(attest.ReasonSignatures, "the order is signed by operator %d, and there are %d", s.Operator, len(g.Operators))
		}
		if !ed25519.Verify(g.Operators[s.Operator], statement, s.Signature) {
			return attest.Refuse(attest.ReasonSignatures, "the signature of operator %d on the order does not verify", s.Operator)
		}
	}
	return nil
}

func (o *Order) encode(w *writer) {
	w.U64(o.Sequence)
	w.U8(uint8(o.Body.Kind()))
	o.Body.encodeBody(w)
	w.U16(uint16(len(o.Signatures)))
	for _, s := range o.Signatures {
		w.U8(s.Operator)
		w.Bytes(s.Signature)
	}
}

func (r *reader) order() *Order {
	o := &Order{Sequence: r.U64(), Body: r.orderBody(OrderKind(r.U8()))}
	last := -1
	for range r.Count(maxOperators) {
		s := OperatorSignature{Operator: r.U8(), Signature: r.Bytes(ed25519.SignatureSize)}
		r.Check(int(s.Operator) > last && len(s.Signature) == ed25519.SignatureSize)
		last = int(s.Operator)
		o.Signatures = append(o.Signatures, s)
	}
	return o
}

func (r *reader) orderBody(kind OrderKind) OrderBody {
	switch kind {
	case OrderStartRound:
		return &StartRound{r.Replicas()}
	case OrderApproveState:
		return &ApproveState{r.approvedState()}
	case OrderRevokeState:
		return r.revokeState()
	case OrderQuarantine:
		return &Quarantine{Replica: r.Replica(), Reason: r.Text(wire.MaxName)}
	case OrderRelease:
		return &Release{r.Replica()}
	}
	r.Check(false)
	return nil
}

func (s *StartRound) validate() error {
	for i, id := range s.Due {
		if id < 1 || id > bft.MaxReplicas || slices.Contains(s.Due[:i], id) {
			return fmt.Errorf("replica %d is named twice, or cannot be: name replicas by their number, from 1", id)
		}
	}
	return nil
}

func (a *ApproveState) validate() error {
	pcrs := slices.Sorted(maps.Keys(a.State.PCRs))
	if len(pcrs) > 0 && (pcrs[0] < 0 || pcrs[len(pcrs)-1] >= keystore.NumPCRs) {
		return fmt.Errorf("state %q: PCRs are 0 to %d", a.State.Name, keystore.NumPCRs-1)
	}
	if err := a.State.Validate(pcrs); err != nil {
		return err
	}
	return validApprovals(a.State.Approvals)
}

func (v *RevokeState) validate() error {
	if err := wire.CheckName("name of the state", v.Name); err != nil {
		return err
	}
	for i := range v.Remaining {
		if err := wire.CheckName("name of a state that stays", v.Remaining[i].Name); err != nil {
			return err
		}
		if err := validApprovals(v.Remaining[i].Approvals); err != nil {
			return err
		}
	}
	return nil
}

func validApprovals(list []attest.DeviceApproval) error {
	var last bft.ReplicaID
	for _, a := range list {
		if a.Replica <= last || a.Replica > bft.MaxReplicas || len(a.Signature) != approvalSignature {
			return fmt.Errorf("approval for replica %d: list approvals by replica, ascending, with signatures of %d bytes", a.Replica, approvalSignature)
		}
		last = a.Replica
	}
	return nil
}

func (q *Quarantine) validate() error {
	if err := validReplica(q.Replica); err != nil {
		return err
	}
	return wire.CheckName("reason", q.Reason)
}

func (l *Release) validate() error { return validReplica(l.Replica) }

func validReplica(id bft.ReplicaID) error {
	if id < 1 || id > bft.MaxReplicas {
		return fmt.Errorf("replica %d: replicas are numbered from 1", id)
	}
	return nil
}

func (s *StartRound) encodeBody(w *writer)   { w.Replicas(s.Due) }
func (a *ApproveState) encodeBody(w *writer) { w.approvedState(&a.State) }
func (l *Release) encodeBody(w *writer)      { w.Replica(l.Replica) }
func (q *Quarantine) encodeBody(w *writer) {
	w.Replica(q.Replica)
	w.Bytes([]byte(q.Reason))
}

func (v *RevokeState) encodeBody(w *writer) {
	w.Bytes([]byte(v.Name))
	w.U16(uint16(len(v.Remaining)))
	for i := range v.Remaining {
		w.Bytes([]byte(v.Remaining[i].Name))
		w.approvals(v.Remaining[i].Approvals)
	}
}

func (r *reader) revokeState() *RevokeState {
	v := &RevokeState{Name: r.Text(wire.MaxName)}
	for range r.Count(attest.MaxApproved) {
		v.Remaining = append(v.Remaining, RemainingState{Name: r.Text(wire.MaxName), Approvals: r.approvals()})
	}
	return v
}

// approvalSignature is the size of the signature of an approval, in bytes.
const approvalSignature = 64

func (w *writer) approvals(list []attest.DeviceApproval) {
	w.U16(uint16(len(list)))
	for _, a := range list {
		w.Replica(a.Replica)
		w.U64(a.Version)
		w.Bytes(a.Signature)
	}
}

func (r *reader) approvals() (list []attest.DeviceApproval) {
	var last bft.ReplicaID
	for range r.Count(bft.MaxReplicas) {
		a := attest.DeviceApproval{Replica: r.Replica(), Version: r.U64(), Signature: r.Bytes(approvalSignature)}
		r.Check(a.Replica > last && len(a.Signature) == approvalSignature)
		last = a.Replica
		list = append(list, a)
	}
	return list
}

func (w *writer) approvedState(s *attest.ApprovedState) {
	w.Bytes([]byte(s.Name))
	w.U64(s.MinimumFirmware)
	w.U16(uint16(len(s.PCRs)))
	for pcr := range keystore.NumPCRs {
		if value, ok := s.PCRs[pcr]; ok {
			w.U8(uint8(pcr))
			w.Raw(value[:])
		}
	}
	w.approvals(s.Approvals)
}

func (r *reader) approvedState() attest.ApprovedState {
	s := attest.ApprovedState{Name: r.Text(wire.MaxName), MinimumFirmware: r.U64(), PCRs: map[int]attest.Measurement{}}
	last := -1
	for range r.Count(keystore.NumPCRs) {
		pcr := int(r.U8())
		r.Check(pcr > last && pcr < keystore.NumPCRs)
		last = pcr
		s.PCRs[pcr] = attest.Measurement(r.Digest())
	}
	s.Approvals = r.approvals()
	return s
}
