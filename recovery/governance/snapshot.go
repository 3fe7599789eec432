package governance

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/internal/wire"
	"github.com/reseal-bft/reseal/threshold"
)

// The snapshot is the canonical encoding of the ledger behind a version and the cluster's ID.
// Members come in order of ID and are not numbered.
const snapshotVersion = 2

// maxSnapshot bounds a snapshot, in bytes: 256 members with their evidence, the boot states with
// their approvals and twice 256 dealings fit well.
const maxSnapshot = 8 << 20

// Snapshot encodes the state.
func (s *State) Snapshot() []byte {
	if s.snapshot == nil {
		var w writer
		w.U8(snapshotVersion)
		w.Raw(s.cluster[:])
		w.ledger(&s.ledger)
		b, err := w.Result()
		if err != nil { // every field is limited when it enters the ledger
			panic("governance: snapshot: " + err.Error())
		}
		s.snapshot = b
		s.root = s.SnapshotRoot(b)
	}
	return s.snapshot
}

// SnapshotRoot is the root of the state that a snapshot describes: others' are checked before they
// are restored.
func (s *State) SnapshotRoot(snapshot []byte) bft.Digest {
	return sha256.Sum256(append([]byte(snapshotDomain), snapshot...))
}

// Restore replaces the state by a snapshot of the same cluster. The state stays as it was when the
// snapshot is bad.
func (s *State) Restore(snapshot []byte) error {
	r := newReader(snapshot)
	r.Check(len(snapshot) <= maxSnapshot && r.U8() == snapshotVersion)
	if cluster := r.Digest(); !r.Failed() && cluster != s.cluster {
		return fmt.Errorf("system snapshot: of cluster %v, not of this one (%v)", cluster, s.cluster)
	}
	l := r.ledger(s.genesis.Attestation.PCRs)
	if err := r.Done(); err != nil {
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

// check reports a ledger that no run can have led to. What it accepts can be worked with: nothing
// later fails or panics on it.
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
	case l.count(func(m *member) bool { return m.required > m.issued }) > 0:
		return errors.New("a TPM must have reached a version that no approval has")
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
	w.U16(uint16(l.size.F))
	w.U16(uint16(l.size.C))
	w.U64(uint64(l.epoch))
	w.U64(uint64(l.base.Height))
	w.Raw(l.base.Digest[:])
	w.Time(l.base.Time)
	w.Bytes(l.groupKey)
	w.Replicas(l.leaders)
	w.U16(uint16(len(l.members)))
	for i := range l.members {
		w.member(&l.members[i])
	}
	w.U16(uint16(len(l.approved)))
	for i := range l.approved {
		w.approvedState(&l.approved[i])
	}
	w.U64(l.sequence)
	w.Time(l.revokedAt)
	w.Time(l.regular)
	w.round(&l.round)
	w.U64(uint64(l.last.Epoch))
	w.U64(uint64(l.last.Round))
	w.dealings(l.last.Dealings)
	w.U64(l.counts.recoveries)
	w.U64(l.counts.abandoned)
	w.U64(l.counts.restarted)
	for _, n := range l.counts.refused {
		w.U64(n)
	}
}

func (r *reader) ledger(pcrs []int) *ledger {
	l := &ledger{
		size:     bft.Size{F: int(r.U16()), C: int(r.U16())},
		epoch:    bft.Epoch(r.U64()),
		base:     bft.Base{Height: bft.Height(r.U64()), Digest: r.Digest(), Time: r.Time()},
		groupKey: r.Bytes(PublicKeySize),
		leaders:  r.Replicas(),
	}
	for i := range r.Count(bft.MaxReplicas) {
		l.members = append(l.members, r.member(bft.ReplicaID(i+1)))
	}
	names := map[string]bool{}
	for range r.Count(attest.MaxApproved) {
		state := r.approvedState()
		r.Check(!names[state.Name] && state.Validate(pcrs) == nil)
		names[state.Name] = true
		l.approved = append(l.approved, state)
	}
	l.sequence, l.revokedAt, l.regular = r.U64(), r.Time(), r.Time()
	l.round = r.round()
	l.last = Handoff{Epoch: bft.Epoch(r.U64()), Round: Round(r.U64()), Dealings: r.dealings()}
	l.counts = counts{recoveries: r.U64(), abandoned: r.U64(), restarted: r.U64()}
	for i := range l.counts.refused {
		l.counts.refused[i] = r.U64()
	}
	return l
}

func (w *writer) round(s *roundState) {
	w.U64(uint64(s.number))
	w.U8(uint8(s.phase))
	w.U64(uint64(s.opened))
	w.Time(s.deadline)
	w.Bool(s.urgent)
	w.Time(s.notBefore)
	w.U8(s.attempts)
	w.dealings(s.dealings)
	w.Bytes(s.groupKey)
	w.Bytes([]byte(s.note))
}

func (r *reader) round() roundState {
	s := roundState{
		number: Round(r.U64()), phase: Phase(r.U8()), opened: bft.Height(r.U64()), deadline: r.Time(), urgent: r.Bool(), notBefore: r.Time(), attempts: r.U8(),
		dealings: r.dealings(), groupKey: r.Bytes(PublicKeySize), note: string(r.Bytes(attest.MaxSentence)),
	}
	r.Check(s.phase < numPhases && s.attempts <= maxBackoff)
	return s
}

func (w *writer) dealings(ds []ChosenDealing) {
	w.U16(uint16(len(ds)))
	for i := range ds {
		w.Replica(ds[i].Dealer)
		w.Raw(ds[i].Commitment[:])
		w.Raw(ds[i].PublicKey[:])
		w.Bytes(ds[i].Certificate)
	}
}

func (r *reader) dealings() []ChosenDealing {
	var out []ChosenDealing
	var seen [bft.MaxReplicas + 1]bool
	for range r.Count(bft.MaxReplicas) {
		d := ChosenDealing{Dealer: r.Replica(), Commitment: r.Digest()}
		r.Into(d.PublicKey[:])
		d.Certificate = r.Bytes(MaxCertificate)
		if r.Failed() {
			return nil
		}
		r.Check(!seen[d.Dealer])
		seen[d.Dealer] = true
		out = append(out, d)
	}
	return out
}

func (w *writer) boot(b *attest.Boot) {
	w.U32(b.ResetCount)
	w.U64(b.ApprovalVersion)
	w.Bytes([]byte(b.State))
}

func (r *reader) boot() attest.Boot {
	return attest.Boot{ResetCount: r.U32(), ApprovalVersion: r.U64(), State: string(r.Bytes(wire.MaxName))}
}

func (w *writer) moment(m moment) {
	w.U64(uint64(m.height))
	w.Time(m.time)
}

func (r *reader) moment() moment { return moment{height: bft.Height(r.U64()), time: r.Time()} }

func (w *writer) member(m *member) {
	w.Bytes([]byte(m.address))
	w.Bytes(m.identityDER)
	w.Bytes(m.attestationKey)
	w.Bytes(m.epochKey)
	w.Bytes(m.nextKey)
	w.boot(&m.shown)
	w.moment(m.shownAt)
	w.Bool(m.outlawed)
	w.U64(m.required)
	w.U64(m.issued)
	w.Bytes(m.evidence)
	w.U32(m.resetCount)
	w.Bool(m.attested)
	w.Bytes([]byte(m.bootState))
	w.U64(uint64(m.recovered))
	w.U64(m.recoveries)
	w.Bool(m.holdsShare)
	w.Bytes([]byte(m.lapse))
	w.Bool(m.quarantined)
	w.Bytes([]byte(m.quarantine))
	w.Bool(m.accused)
	w.U64(uint64(m.lastDue))
	s := &m.recovery
	w.Bool(s.due)
	w.moment(s.since)
	w.Bool(s.seen)
	w.U32(s.seenCount)
	w.U8(uint8(s.verdict))
	w.U64(uint64(s.anchor))
	w.U8(uint8(s.refusal.Reason))
	w.Bytes([]byte(s.refusal.Sentence))
	w.Bool(s.proven.Attested)
	w.boot(&s.proven.Boot)
	w.Bool(s.eligible)
}

func (r *reader) member(id bft.ReplicaID) member {
	m := member{
		id: id, address: string(r.Bytes(maxAddress)), identityDER: r.Bytes(maxIdentity), attestationKey: r.Bytes(maxAttestationKey),
		epochKey: r.EpochKey(), nextKey: r.Bytes(ed25519.PublicKeySize),
		shown: r.boot(), shownAt: r.moment(), outlawed: r.Bool(), required: r.U64(), issued: r.U64(), evidence: r.Bytes(attest.MaxEvidence),
		resetCount: r.U32(), attested: r.Bool(), bootState: string(r.Bytes(wire.MaxName)), recovered: bft.Epoch(r.U64()), recoveries: r.U64(),
		holdsShare: r.Bool(), lapse: string(r.Bytes(attest.MaxSentence)), quarantined: r.Bool(), quarantine: string(r.Bytes(wire.MaxName)),
		accused: r.Bool(), lastDue: Round(r.U64()),
		recovery: recoveryStatus{
			due: r.Bool(), since: r.moment(), seen: r.Bool(), seenCount: r.U32(), verdict: verdictKind(r.U8()), anchor: bft.Height(r.U64()),
			refusal:  attest.Refusal{Reason: attest.Reason(r.U8()), Sentence: string(r.Bytes(attest.MaxSentence))},
			proven:   attest.Verdict{Attested: r.Bool(), Boot: r.boot()},
			eligible: r.Bool(),
		},
	}
	r.Check(len(m.nextKey) == 0 || len(m.nextKey) == ed25519.PublicKeySize)
	r.Check(m.recovery.verdict < numVerdicts && m.recovery.refusal.Reason < attest.NumReasons)
	r.Check(m.nextKey != nil || m.recovery.verdict != verdictAttested)
	if r.Failed() {
		return m
	}
	var err error
	m.identity, err = attest.ParseIdentity(m.identityDER)
	r.Check(err == nil)
	return m
}
