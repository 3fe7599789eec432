package governance

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// State is the replicated state that governs a cluster: membership, policy, and the recovery round.
// It implements [replica.System]: it is deterministic, and its methods are called from one
// goroutine, but for [State.View] and [State.Membership], which any goroutine may call.
type State struct {
	genesis *Genesis
	cluster bft.ClusterID
	ledger

	// What follows is derived from the ledger.
	verifier attest.Verifier
	snapshot []byte // nil when the ledger has changed since
	root     bft.Digest
	view     atomic.Pointer[View]
	current  atomic.Pointer[replica.Membership]
}

// ledger is what the snapshot holds.
type ledger struct {
	size  bft.Size
	epoch bft.Epoch
	// base is the block that the epoch builds on, and began its time.
	base     bft.Base
	groupKey []byte // empty in epoch 0
	leaders  []bft.ReplicaID
	members  []member // by ID
	approved []attest.ApprovedState
	// sequence is that of the last order.
	sequence uint64
	// revokedAt is the block time of the last revocation.
	revokedAt int64
	// regular is the block time at which the next regular round opens; 0: rounds open by order or
	// accusation only.
	regular int64
	round   roundState
	last    Handoff
	counts  counts
}

// counts are kept for operators.
type counts struct {
	recoveries uint64
	abandoned  uint64                    // rounds
	restarted  uint64                    // dealing attempts
	refused    [attest.NumReasons]uint64 // evidence, by reason
}

// New returns the state at genesis: epoch 0, which generates the group key; everybody is eligible
// for a share.
func New(g *Genesis) (*State, error) {
	if err := g.Validate(); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	s := &State{genesis: g, cluster: g.ClusterID()}
	s.size = g.Size()
	s.base = bft.Base{Digest: s.cluster, Time: g.Created.UnixMilli()}
	s.approved = slices.Clone(g.Attestation.Approved)
	for i := range g.Members {
		m, err := foundingMember(&g.Members[i])
		if err != nil {
			return nil, err
		}
		s.members = append(s.members, m)
		s.leaders = append(s.leaders, m.id)
	}
	s.round = roundState{number: 1, phase: PhaseDealing}
	s.chooseReceivers()
	return s, s.derive()
}

func foundingMember(m *GenesisMember) (member, error) {
	identity, err := attest.ParseIdentity(m.Identity)
	if err != nil {
		return member{}, fmt.Errorf("genesis: member %d: identity: %w", m.ID, err)
	}
	return member{
		id: m.ID, address: m.Address, identityDER: m.Identity, identity: identity,
		attestationKey: m.AttestationKey, epochKey: m.EpochKey, resetCount: m.ResetCount, holdsShare: true,
		shown: attest.Boot{ResetCount: m.ResetCount, ApprovalVersion: m.ApprovalVersion}, required: m.ApprovalVersion, issued: m.ApprovalVersion,
	}, nil
}

// Apply executes the system operations of a final block. Each result is an encoded [Result].
func (s *State) Apply(block replica.BlockInfo, operations []bft.Operation) [][]byte {
	changed := s.passTime(block)
	results := make([][]byte, len(operations))
	for i := range operations {
		refusal, did := s.apply(block, operations[i].Data)
		changed = changed || did
		results[i] = Result{refusal}.Encode()
	}
	if changed {
		s.publish()
	}
	return results
}

// apply executes one operation and reports whether the state has changed: some refusals are remembered.
func (s *State) apply(block replica.BlockInfo, data []byte) (refusal *attest.Refusal, changed bool) {
	op, err := Parse(data)
	if err != nil {
		return attest.Refuse(attest.ReasonMalformed, "%v", err), false
	}
	switch op := op.(type) {
	case *Attest:
		refusal, changed = s.attest(op.Evidence)
	case *Present:
		refusal = s.present(op.Presence)
	case *Dealing:
		refusal = s.deal(op)
	case *Order:
		refusal, changed = s.order(block, op)
	case *Accuse:
		refusal = s.accuse(block, &op.Evidence)
	}
	changed = changed || refusal == nil
	if changed {
		s.settle(block)
	}
	return refusal, changed
}

// HandoffReady says that enough certified dealings are ordered. Once true it stays true until the
// epoch ends.
func (s *State) HandoffReady() bool { return s.round.phase == PhaseReady }

// EndEpoch begins the next epoch on top of the given block, the last of this one. The core ends an
// epoch only after HandoffReady.
func (s *State) EndEpoch(block replica.BlockInfo) {
	if !s.HandoffReady() {
		panic("governance: the epoch ends before its handoff is ready")
	}
	s.last = Handoff{Epoch: s.epoch, Round: s.round.number, Dealings: s.round.dealings}
	s.groupKey = s.round.groupKey
	s.epoch++
	s.base = bft.Base{Height: block.Height, Digest: block.Digest, Time: block.Time}
	for i := range s.members {
		m := &s.members[i]
		if m.recovers() {
			s.counts.recoveries++
		}
		m.endEpoch(s.epoch, s.round.number)
	}
	s.setRegular(block.Time)
	s.round = roundState{number: s.round.number, phase: PhaseIdle}
	s.leaders = s.schedule()
	if err := s.derive(); err != nil {
		panic("governance: " + err.Error()) // the group key was parsed when the handoff became ready
	}
}

// Membership describes the current epoch.
func (s *State) Membership() *replica.Membership { return s.current.Load() }

// View returns a copy of the state for drivers and operators.
func (s *State) View() *View { return s.view.Load() }

// Root is a digest of the whole state: that of its snapshot.
func (s *State) Root() bft.Digest {
	s.Snapshot()
	return s.root
}

// member returns the member with the given ID, or nil.
func (s *State) member(id bft.ReplicaID) *member {
	if id < 1 || int(id) > len(s.members) {
		return nil
	}
	return &s.members[id-1]
}

// count counts the members for which a property holds.
func (l *ledger) count(property func(*member) bool) (n int) {
	for i := range l.members {
		if property(&l.members[i]) {
			n++
		}
	}
	return n
}

// derive computes what hangs on the ledger after a change of epoch.
func (s *State) derive() error {
	verifier, err := s.epochScheme()
	if err != nil {
		return err
	}
	s.verifier = verifier
	s.publish()
	return nil
}

// publish makes changes of the ledger visible.
func (s *State) publish() {
	s.snapshot = nil
	s.current.Store(s.membership())
	s.view.Store(s.newView())
}

func (s *State) membership() *replica.Membership {
	m := &replica.Membership{
		Epoch: s.epoch, Size: s.size, Base: s.base, Leaders: slices.Clone(s.leaders), GroupKey: slices.Clone(s.groupKey),
	}
	for i := range s.members {
		x := &s.members[i]
		m.Members = append(m.Members, replica.Member{
			ID: x.id, Address: x.address, Identity: x.identity, EpochKey: slices.Clone(x.epochKey), NextKey: slices.Clone(x.attestedKey()),
		})
	}
	return m
}
