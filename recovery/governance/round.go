package governance

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/internal/plant"
	"github.com/reseal-bft/reseal/threshold"
)

// Phase is where an epoch stands on its way to the next one.
type Phase uint8

// The phases of an epoch, in order. Epoch 0, which generates the group key, starts in Dealing.
const (
	// PhaseIdle: no round is open.
	PhaseIdle Phase = iota
	// PhaseAttesting: the due replicas reboot and show evidence.
	PhaseAttesting
	// PhaseDealing: holders of shares deal them to the eligible receivers.
	PhaseDealing
	// PhaseReady: a quorum of certified dealings is ordered; the epoch is about to end.
	PhaseReady
	numPhases
)

// String returns the phase's name.
func (p Phase) String() string {
	if p >= numPhases {
		return "invalid"
	}
	return [...]string{"idle", "attesting", "dealing", "ready"}[p]
}

// MarshalText writes the phase's name.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// roundState is the recovery round of an epoch.
type roundState struct {
	number Round
	phase  Phase
	// opened is the height of the block in which the round opened: anchors are not below it.
	opened bft.Height
	// deadline is the block time at which the phase is over; 0 in epoch 0 before the first block,
	// and in phases without one.
	deadline int64
	// urgent: the round was opened because of accusations or of a revocation, and does not stand
	// for the regular one.
	urgent bool
	// notBefore is the block time before which no urgent round opens, after one was abandoned.
	notBefore int64
	// attempts counts the dealing attempts that failed in a row.
	attempts uint8
	// dealings are the certified dealings, in the order of the log: at most a quorum.
	dealings []ChosenDealing
	// groupKey is the next epoch's, once Ready.
	groupKey []byte
	// note says how the last round was abandoned.
	note string
}

// ChosenDealing is a certified dealing that the log ordered among the first q of its round.
type ChosenDealing struct {
	Dealer bft.ReplicaID
	// Commitment is the digest by which the commitment can be fetched.
	Commitment bft.Digest
	// PublicKey is the public key of the dealt secret.
	PublicKey [PublicKeySize]byte
	// Certificate is the one by which the log accepted the dealing, over [Dealing.Statement].
	Certificate []byte
}

// certification is what the log checked of a dealing of an epoch and round.
func (d *ChosenDealing) certification(cluster bft.ClusterID, epoch bft.Epoch, round Round, verifier attest.Verifier) threshold.Certification {
	return threshold.Certification{
		Dealer: int(d.Dealer),
		Statement: func(commitment [32]byte, key *threshold.PublicKey) []byte {
			return DealingStatement(cluster, epoch, round, d.Dealer, commitment, [PublicKeySize]byte(key.Bytes()))
		},
		Certificate: d.Certificate,
		Verify: func(message, certificate []byte) error {
			if ok := verifier.Verify([][]byte{message}, [][]byte{certificate}); len(ok) != 1 || !ok[0] {
				return errors.New("it does not verify")
			}
			return nil
		},
	}
}

// Certify checks that a commitment is that of the dealing, made for the context, and that the
// certificate, of the epoch in which it was dealt, verifies. A replica that combines dealings does
// not take the log's word alone: it may have the log from a snapshot.
func (d *ChosenDealing) Certify(cluster bft.ClusterID, epoch bft.Epoch, round Round, verifier attest.Verifier, c *threshold.Commitment, context []byte) (*threshold.CertifiedDealing, error) {
	by := d.certification(cluster, epoch, round, verifier)
	by.Context = context
	return c.Certify(by)
}

// MarshalJSON writes digests and keys in hexadecimal.
func (d ChosenDealing) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{
		"dealer": d.Dealer, "commitment": hex.EncodeToString(d.Commitment[:]), "public_key": hex.EncodeToString(d.PublicKey[:]),
	})
}

// Handoff is a completed one: the dealings whose combination gave the shares of epoch Epoch + 1.
type Handoff struct {
	Epoch    bft.Epoch       `json:"epoch"`
	Round    Round           `json:"round"`
	Dealings []ChosenDealing `json:"dealings"`
}

// maxBackoff bounds the doubling of the dealing deadline: 16 times.
const maxBackoff = 4

// passTime opens and closes phases by block time. It reports whether anything changed.
func (s *State) passTime(block replica.BlockInfo) bool {
	r := &s.round
	switch {
	case r.phase == PhaseIdle && s.regular != 0 && block.Time >= s.regular:
		s.openRound(block, s.automaticDue())
	case r.phase == PhaseIdle && s.isUrgent(block.Time) && block.Time >= r.notBefore:
		s.openRound(block, s.urgentDue(block.Time))
		s.round.urgent = true
	case r.phase == PhaseAttesting && block.Time >= r.deadline:
		s.startDealing(block)
	case r.phase == PhaseDealing && r.deadline == 0: // the first block of all
		r.deadline = block.Time + s.genesis.RoundDeadline.milliseconds()
	case r.phase == PhaseDealing && block.Time >= r.deadline && s.isLeftOut():
		s.abandon(block, fmt.Sprintf("round %d was abandoned: its dealing did not end in time, and replicas that hold a share were left out", r.number))
	case r.phase == PhaseDealing && block.Time >= r.deadline:
		s.restartDealing(block)
	default:
		return false
	}
	s.settle(block)
	return true
}

// openRound opens a recovery round in which the given replicas are due.
func (s *State) openRound(block replica.BlockInfo, due []bft.ReplicaID) {
	s.beginAttempt(block)
	for i := range s.members {
		m := &s.members[i]
		m.beginRecovery(contains(due, m.id), s.round.number, at(block))
	}
}

// reopenRound begins the running round again: the same replicas are due, and those that attested
// stay attested.
func (s *State) reopenRound(block replica.BlockInfo) {
	s.beginAttempt(block)
	for i := range s.members {
		m := &s.members[i]
		m.recovery.eligible = false
		if m.recovery.due && m.recovery.verdict != verdictAttested {
			m.beginRecovery(true, s.round.number, at(block))
		}
	}
}

// beginAttempt starts phase Attesting under a new number: whatever was made for an earlier attempt
// is void.
func (s *State) beginAttempt(block replica.BlockInfo) {
	s.round = roundState{
		number: s.round.number + 1, phase: PhaseAttesting, opened: block.Height,
		deadline: block.Time + s.genesis.RoundDeadline.milliseconds(),
	}
}

// settle closes a phase whose work is done.
func (s *State) settle(block replica.BlockInfo) {
	switch s.round.phase {
	case PhaseAttesting:
		if s.count((*member).pending) == 0 {
			s.startDealing(block)
		}
	case PhaseDealing:
		if len(s.round.dealings) == s.size.Quorum() {
			s.finishDealing(block)
		}
	}
}

// startDealing closes phase Attesting. Too few receivers would leave the next epoch without a
// quorum, and when too few of them hold a share of this one no dealing can be certified: then the
// round is abandoned and this epoch, with its shares, stays in force.
func (s *State) startDealing(block replica.BlockInfo) {
	s.chooseReceivers()
	receivers := s.count(func(m *member) bool { return m.recovery.eligible })
	certify := s.count(func(m *member) bool { return m.recovery.eligible && m.holdsShare })
	switch q := s.size.Quorum(); {
	case receivers < q:
		s.abandon(block, fmt.Sprintf("round %d was abandoned: %d replicas could receive a share, and %d are needed", s.round.number, receivers, q))
		return
	case certify < q && !plant.Bug("certifiers-not-counted"):
		s.abandon(block, fmt.Sprintf("round %d was abandoned: of those that could receive a share %d hold one now, and %d are needed to certify dealings", s.round.number, certify, q))
		return
	}
	s.round.phase, s.round.dealings = PhaseDealing, nil
	s.round.deadline = block.Time + s.genesis.RoundDeadline.milliseconds()<<s.round.attempts
}

// chooseReceivers fixes who receives a share.
func (s *State) chooseReceivers() {
	for i := range s.members {
		m := &s.members[i]
		m.recovery.eligible = m.mayReceive()
	}
}

// isLate: the dealing may have failed for want of somebody who holds a share, is due and has not
// attested. Receivers may be a quorum with whoever is faulty.
func (s *State) isLate() bool {
	return s.count(func(m *member) bool {
		return m.holdsShare && !m.quarantined && m.recovery.due && m.recovery.verdict == verdictNone
	}) > 0
}

// isLeftOut: the longest dealing has failed, and somebody who holds a share did not take part. Who
// was late has had its time with each attempt.
func (s *State) isLeftOut() bool {
	return s.round.attempts == maxBackoff && s.count(func(m *member) bool { return m.holdsShare && !m.quarantined && !m.recovery.eligible }) > 0
}

// restartDealing begins the dealing again under a new number, and lets who was late attest before.
// An attempt that failed, for whatever reason, leaves nothing behind that could hinder the next one.
func (s *State) restartDealing(block replica.BlockInfo) {
	s.counts.restarted++
	if s.isLate() {
		urgent, attempts := s.round.urgent, s.round.attempts
		s.reopenRound(block)
		s.round.urgent, s.round.attempts = urgent, min(attempts+1, maxBackoff)
		return
	}
	s.round.number++
	for i := range s.members {
		if m := &s.members[i]; m.recovery.due {
			m.lastDue = s.round.number
		}
	}
	s.round.attempts = min(s.round.attempts+1, maxBackoff)
	s.startDealing(block)
}

// finishDealing makes the handoff ready if the dealt secrets are what they should be, and begins
// the dealing again otherwise.
func (s *State) finishDealing(block replica.BlockInfo) {
	key, err := s.nextGroupKey()
	if err != nil {
		s.restartDealing(block)
		return
	}
	s.round.phase, s.round.deadline, s.round.groupKey = PhaseReady, 0, key
}

// abandon goes back to Idle. The next regular round comes after its interval; accusations wait for
// the time of a deadline.
func (s *State) abandon(block replica.BlockInfo, note string) {
	s.counts.abandoned++
	s.setRegular(block.Time)
	s.round = roundState{
		number: s.round.number, phase: PhaseIdle, note: note,
		notBefore: block.Time + s.genesis.RoundDeadline.milliseconds(),
	}
	for i := range s.members {
		r := &s.members[i].recovery
		r.due, r.eligible, r.since, r.seen, r.seenCount = false, false, moment{}, false, 0
	}
}

// setRegular says when the next regular round opens, after a round that ended at the given time.
// Urgent rounds do not put it off: a replica that equivocates again and again would keep the others
// from their turn.
func (s *State) setRegular(ended int64) {
	if interval := s.genesis.RoundInterval.milliseconds(); interval > 0 && !s.round.urgent {
		s.regular = ended + interval
	}
}

// nextRound is the block time at which a round opens by itself, in phase Idle; 0: none does.
func (s *State) nextRound() int64 {
	if s.round.phase != PhaseIdle {
		return s.regular
	}
	switch {
	case s.isUrgent(s.base.Time):
		return max(s.base.Time, s.round.notBefore)
	case s.isUrgent(math.MaxInt64):
		if at := max(s.graceEnds(), s.round.notBefore); s.regular == 0 || at < s.regular {
			return at
		}
	}
	return s.regular
}

// at is a block's moment.
func at(block replica.BlockInfo) moment { return moment{block.Height, block.Time} }
