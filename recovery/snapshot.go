package recovery

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/threshold"
)

// The snapshot is the canonical encoding of the ledger behind a version and the cluster's ID. Members come in order of ID and are not numbered.
const snapshotVersion = 1

// maxSnapshot bounds a snapshot, in bytes: 256 members, 64 boot states and twice 256 dealings fit well.
const maxSnapshot = 4 << 20

// Snapshot encodes the state.
func (s *State) Snapshot() []byte {
	if s.snapshot == nil {
		var w writer
		w.u8(snapshotVersion)
		w.raw(s.cluster[:])
		w.ledger(&s.ledger)
		b, err := w.result()
		if err != nil { // every field is limited when it enters the ledger
			panic("recovery: snapshot: " + err.Error())
		}
		s.snapshot = b
		s.root = s.SnapshotRoot(b)
	}
	return s.snapshot
}

// SnapshotRoot is the root of the state that a snapshot describes: others' are checked before they are restored.
func (s *State) SnapshotRoot(snapshot []byte) bft.Digest {
	return sha256.Sum256(append([]byte(snapshotDomain), snapshot...))
}

// Restore replaces the state by a snapshot of the same cluster. The state stays as it was when the snapshot is bad.
func (s *State) Restore(snapshot []byte) error {
	r := newReader(snapshot)
	r.check(len(snapshot) <= maxSnapshot && r.u8() == snapshotVersion)
	if cluster := r.digest(); !r.bad && cluster != s.cluster {
		return fmt.Errorf("system snapshot: of cluster %v, not of this one (%v)", cluster, s.cluster)
	}
	l := r.ledger(s.genesis.Attestation.PCRs)
	if err := r.done(); err != nil {
		return fmt.Errorf("system snapshot: %w", err)
	}
	if err := l.check(); err != nil {
		return fmt.Errorf("system snapshot: %w", err)
	}
	verifier, err := l.epochScheme()
	if err != nil {
		return fmt.Errorf("system snapshot: %w", err)
	}
	s.ledger, s.verifier = *l, verifier
	s.publish()
	return nil
}

// check reports a ledger that no run can have led to. What it accepts can be worked with: nothing later fails or panics on it.
func (l *ledger) check() error {
	if err := l.size.Validate(); err != nil {
		return err
	}
	n := len(l.members)
	inRange := func(id bft.ReplicaID) bool { return int(id) <= n }
	switch {
	case n != l.size.N():
		return fmt.Errorf("%d members, not %d", n, l.size.N())
	case l.count(func(m *member) bool { return m.holdsShare }) < l.size.Quorum():
		return errors.New("fewer holders of shares than a quorum")
	case l.round.phase >= PhaseDealing && l.count(func(m *member) bool { return m.recovery.eligible }) < l.size.Quorum():
		return errors.New("fewer receivers than a quorum")
	case len(l.leaders) == 0:
		return errors.New("no leaders")
	case l.round.phase == PhaseReady && len(l.round.dealings) != l.size.Quorum():
		return errors.New("ready without a quorum of dealings")
	case len(l.round.dealings) > l.size.Quorum() || l.round.phase == PhaseDealing && len(l.round.dealings) == l.size.Quorum():
		return errors.New("too many dealings")
	case (l.epoch == 0) != (l.groupKey == nil) || (l.round.phase == PhaseReady) != (l.round.groupKey != nil):
		return errors.New("a group key is missing or too many")
	}
	for _, id := range l.leaders {
		if !inRange(id) {
			return fmt.Errorf("leader %d is no member", id)
		}
	}
	for _, d := range l.round.dealings {
		if !inRange(d.Dealer) {
			return fmt.Errorf("dealer %d is no member", d.Dealer)
		}
	}
	if l.round.groupKey != nil {
		if _, err := threshold.ParsePublicKey(l.round.groupKey); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) ledger(l *ledger) {
	w.u16(uint16(l.size.F))
	w.u16(uint16(l.size.C))
	w.u64(uint64(l.epoch))
	w.u64(uint64(l.base.Height))
	w.raw(l.base.Digest[:])
	w.time(l.base.Time)
	w.bytes(l.groupKey)
	w.replicas(l.leaders)
	w.u16(uint16(len(l.members)))
	for i := range l.members {
		w.member(&l.members[i])
	}
	w.u16(uint16(len(l.approved)))
	for i := range l.approved {
		w.approvedState(&l.approved[i])
	}
	w.u64(l.sequence)
	w.time(l.regular)
	w.round(&l.round)
	w.u64(uint64(l.last.Epoch))
	w.u64(uint64(l.last.Round))
	w.dealings(l.last.Dealings)
	w.u64(l.counts.recoveries)
	w.u64(l.counts.abandoned)
	w.u64(l.counts.restarted)
	for _, n := range l.counts.refused {
		w.u64(n)
	}
}

func (r *reader) ledger(pcrs []int) *ledger {
	l := &ledger{
		size:     bft.Size{F: int(r.u16()), C: int(r.u16())},
		epoch:    bft.Epoch(r.u64()),
		base:     bft.Base{Height: bft.Height(r.u64()), Digest: r.digest(), Time: r.time()},
		groupKey: r.bytes(PublicKeySize),
		leaders:  r.replicas(),
	}
	for i := range r.count(bft.MaxReplicas) {
		l.members = append(l.members, r.member(bft.ReplicaID(i+1)))
	}
	names := map[string]bool{}
	for range r.count(maxApproved) {
		state := r.approvedState()
		r.check(!names[state.Name] && state.validate(pcrs) == nil)
		names[state.Name] = true
		l.approved = append(l.approved, state)
	}
	l.sequence, l.regular = r.u64(), r.time()
	l.round = r.round()
	l.last = Handoff{Epoch: bft.Epoch(r.u64()), Round: Round(r.u64()), Dealings: r.dealings()}
	l.counts = counts{recoveries: r.u64(), abandoned: r.u64(), restarted: r.u64()}
	for i := range l.counts.refused {
		l.counts.refused[i] = r.u64()
	}
	return l
}

func (w *writer) round(s *roundState) {
	w.u64(uint64(s.number))
	w.u8(uint8(s.phase))
	w.u64(uint64(s.opened))
	w.time(s.deadline)
	w.bool(s.accusation)
	w.time(s.notBefore)
	w.u8(s.attempts)
	w.dealings(s.dealings)
	w.bytes(s.groupKey)
	w.bytes([]byte(s.note))
}

func (r *reader) round() roundState {
	s := roundState{
		number: Round(r.u64()), phase: Phase(r.u8()), opened: bft.Height(r.u64()), deadline: r.time(), accusation: r.bool(), notBefore: r.time(), attempts: r.u8(),
		dealings: r.dealings(), groupKey: r.bytes(PublicKeySize), note: string(r.bytes(maxSentence)),
	}
	r.check(s.phase < numPhases && s.attempts <= maxBackoff)
	return s
}

func (w *writer) dealings(ds []ChosenDealing) {
	w.u16(uint16(len(ds)))
	for i := range ds {
		w.replica(ds[i].Dealer)
		w.raw(ds[i].Commitment[:])
		w.raw(ds[i].PublicKey[:])
	}
}

func (r *reader) dealings() []ChosenDealing {
	var out []ChosenDealing
	var seen [bft.MaxReplicas + 1]bool
	for range r.count(bft.MaxReplicas) {
		d := ChosenDealing{Dealer: r.replica(), Commitment: r.digest()}
		r.into(d.PublicKey[:])
		if r.bad {
			return nil
		}
		r.check(!seen[d.Dealer])
		seen[d.Dealer] = true
		out = append(out, d)
	}
	return out
}

func (w *writer) member(m *member) {
	w.bytes([]byte(m.address))
	w.bytes(m.identityDER)
	w.bytes(m.attestationKey)
	w.bytes(m.epochKey)
	w.bytes(m.nextKey)
	w.u32(m.resetCount)
	w.bool(m.attested)
	w.bytes([]byte(m.bootState))
	w.u64(uint64(m.recovered))
	w.u64(m.recoveries)
	w.bool(m.holdsShare)
	w.bytes([]byte(m.lapse))
	w.bool(m.quarantined)
	w.bytes([]byte(m.quarantine))
	w.bool(m.accused)
	w.u64(uint64(m.lastDue))
	s := &m.recovery
	w.bool(s.due)
	w.u8(uint8(s.verdict))
	w.u64(uint64(s.anchor))
	w.u8(uint8(s.refusal.Reason))
	w.bytes([]byte(s.refusal.Sentence))
	w.bool(s.proven.Attested)
	w.u32(s.proven.ResetCount)
	w.bytes([]byte(s.proven.State))
	w.bool(s.eligible)
}

func (r *reader) member(id bft.ReplicaID) member {
	m := member{
		id: id, address: string(r.bytes(maxAddress)), identityDER: r.bytes(maxIdentity), attestationKey: r.bytes(maxAttestationKey),
		epochKey: r.epochKey(), nextKey: r.bytes(ed25519.PublicKeySize),
		resetCount: r.u32(), attested: r.bool(), bootState: string(r.bytes(maxName)), recovered: bft.Epoch(r.u64()), recoveries: r.u64(),
		holdsShare: r.bool(), lapse: string(r.bytes(maxSentence)), quarantined: r.bool(), quarantine: string(r.bytes(maxName)),
		accused: r.bool(), lastDue: Round(r.u64()),
		recovery: recoveryStatus{
			due: r.bool(), verdict: verdictKind(r.u8()), anchor: bft.Height(r.u64()),
			refusal:  Refusal{Reason: Reason(r.u8()), Sentence: string(r.bytes(maxSentence))},
			proven:   Verdict{Attested: r.bool(), ResetCount: r.u32(), State: string(r.bytes(maxName))},
			eligible: r.bool(),
		},
	}
	r.check(len(m.nextKey) == 0 || len(m.nextKey) == ed25519.PublicKeySize)
	r.check(m.recovery.verdict < numVerdicts && m.recovery.refusal.Reason < numReasons)
	r.check(m.nextKey != nil || m.recovery.verdict != verdictAttested)
	if r.bad {
		return m
	}
	var err error
	m.identity, err = parseIdentity(m.identityDER)
	r.check(err == nil)
	return m
}
