package governance

import (
	"crypto/ed25519"
	"slices"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/internal/plant"
	"github.com/reseal-bft/reseal/threshold"
)

// attest judges evidence. What the replica's own TPM says against it is remembered: it gets no
// share in this round unless it shows better evidence in time, with a later anchor. What anybody
// could have sent in its name is not held against it.
func (s *State) attest(e *attest.Evidence) (refusal *attest.Refusal, changed bool) {
	m := s.member(e.Replica)
	switch {
	case m == nil:
		return attest.Refuse(attest.ReasonUnknownReplica, "there is no replica %d in this cluster", e.Replica), false
	case s.round.phase != PhaseAttesting:
		return attest.Refuse(attest.ReasonPhase, "no evidence is expected now: the epoch's phase is %v", s.round.phase), false
	case !m.recovery.due || m.quarantined:
		return attest.Refuse(attest.ReasonNotDue, "replica %d is not due for recovery in round %d", m.id, s.round.number), false
	case e.Anchor.Height <= m.recovery.anchor:
		return attest.Refuse(attest.ReasonSuperseded, "evidence of replica %d with an anchor at height %d was judged already", m.id, m.recovery.anchor), false
	case e.EpochKey.Equal(m.attestedKey()):
		return attest.Refuse(attest.ReasonSuperfluous, "replica %d has attested this epoch key already", m.id), false
	}
	verdict, refusal := s.policy().Verify(e, s.subject(m))
	if refusal != nil && !refusal.Reason.HeldAgainst() {
		return refusal, false
	}
	m.recovery.anchor = e.Anchor.Height
	if refusal != nil {
		m.recovery.verdict, m.recovery.refusal, m.recovery.proven = verdictRefused, *refusal, attest.Verdict{}
		s.counts.refused[refusal.Reason]++
		return refusal, true
	}
	m.recovery.verdict, m.recovery.refusal, m.recovery.proven, m.nextKey = verdictAttested, attest.Refusal{}, *verdict, e.EpochKey
	if m.evidence, _ = e.Encode(); verdict.Attested {
		m.show(verdict.Boot, moment{e.Anchor.Height, e.Anchor.Time})
	}
	return nil, true
}

// present takes note of what a replica shows of its boot. What tells nothing new is refused, so
// that the log is not filled with it.
func (s *State) present(p *attest.Presence) *attest.Refusal {
	m := s.member(p.Replica)
	switch {
	case m == nil:
		return attest.Refuse(attest.ReasonUnknownReplica, "there is no replica %d in this cluster", p.Replica)
	case len(m.attestationKey) == 0:
		return attest.Refuse(attest.ReasonSuperfluous, "replica %d has no TPM that could show anything", m.id)
	case p.Anchor.Height <= m.shownAt.height:
		return attest.Refuse(attest.ReasonSuperseded, "replica %d showed its boot with an anchor at height %d already", m.id, m.shownAt.height)
	}
	boot, refusal := s.policy().VerifyPresence(p, s.subject(m))
	if refusal != nil {
		return refusal
	}
	r := &m.recovery
	first := r.due && !r.seen && p.Anchor.Height >= r.since.height
	outlawed := boot.State == ""
	if before := m.shown; !first && m.shownAt.height != 0 && outlawed == m.outlawed && boot.ResetCount == before.ResetCount && boot.ApprovalVersion == before.ApprovalVersion &&
		(outlawed || boot.State == before.State) {
		return attest.Refuse(attest.ReasonSuperfluous, "replica %d has shown this already", m.id)
	}
	if first {
		r.seen, r.seenCount = true, boot.ResetCount
	}
	m.show(*boot, moment{p.Anchor.Height, p.Anchor.Time})
	return nil
}

// subject is what the log knows of a member.
func (s *State) subject(m *member) *attest.Subject {
	return &attest.Subject{
		Identity: m.identity, AttestationKey: m.attestationKey, Slot: s.genesis.Members[m.id-1].Slot, ResetCount: m.resetCount, EpochKey: m.epochKey, NextKey: m.nextKey,
		Required: m.required, Due: m.recovery.awaited(),
	}
}

func (s *State) policy() *attest.Policy {
	a := s.genesis.Attestation
	a.Approved = s.approved
	return &attest.Policy{Cluster: s.cluster, Epoch: s.epoch, Round: s.round.number, Opened: s.round.opened, Scheme: s.verifier, Attestation: a, Ahead: s.genesis.Timeouts.Ahead.milliseconds()}
}

// deal takes a certified dealing: the first q of a round, from different dealers, are combined into
// the next sharing.
func (s *State) deal(d *Dealing) *attest.Refusal {
	switch {
	case s.round.phase == PhaseReady && d.Epoch == s.epoch:
		return attest.Refuse(attest.ReasonSuperfluous, "the dealings of round %d are chosen already", s.round.number)
	case s.round.phase != PhaseDealing:
		return attest.Refuse(attest.ReasonPhase, "no dealing is expected now: the epoch's phase is %v", s.round.phase)
	case d.Epoch != s.epoch || d.Round != s.round.number:
		return attest.Refuse(attest.ReasonRound, "the dealing is for epoch %d, round %d; this is epoch %d, round %d", d.Epoch, d.Round, s.epoch, s.round.number)
	}
	m := s.member(d.Dealer)
	switch {
	case m == nil:
		return attest.Refuse(attest.ReasonUnknownReplica, "there is no replica %d in this cluster", d.Dealer)
	case !m.holdsShare: // one that is quarantined may deal: its dealing is certified, and without it there may be too few
		return attest.Refuse(attest.ReasonDealer, "replica %d has no share to deal", d.Dealer)
	case slices.ContainsFunc(s.round.dealings, func(c ChosenDealing) bool { return c.Dealer == d.Dealer }):
		return attest.Refuse(attest.ReasonSuperfluous, "a dealing of replica %d is chosen already", d.Dealer)
	}
	if _, err := threshold.ParsePublicKey(d.PublicKey[:]); err != nil {
		return attest.Refuse(attest.ReasonMalformed, "dealing of replica %d: %v", d.Dealer, err)
	}
	if ok := s.verifier.Verify([][]byte{d.Statement(s.cluster)}, [][]byte{d.Certificate}); len(ok) != 1 || !ok[0] {
		return attest.Refuse(attest.ReasonCertificate, "the certificate of the dealing of replica %d does not verify", d.Dealer)
	}
	s.round.dealings = append(s.round.dealings, ChosenDealing{Dealer: d.Dealer, Commitment: d.Commitment, PublicKey: d.PublicKey, Certificate: d.Certificate})
	return nil
}

// accuse takes a proof of equivocation. The culprit is due first; with no round open, one opens.
func (s *State) accuse(block replica.BlockInfo, e *bft.Evidence) *attest.Refusal {
	a, b := &e.A, &e.B
	if a.Epoch != b.Epoch || a.View != b.View || a.Proposer != b.Proposer || a.Digest() == b.Digest() {
		return attest.Refuse(attest.ReasonAccusation, "the two headers are not two proposals of one leader for one view")
	}
	m := s.member(a.Proposer)
	switch {
	case m == nil:
		return attest.Refuse(attest.ReasonUnknownReplica, "there is no replica %d in this cluster", a.Proposer)
	case m.accused || m.quarantined || !m.holdsShare:
		return attest.Refuse(attest.ReasonSuperfluous, "replica %d is accused already, or has no share", m.id)
	}
	for _, h := range []*bft.SignedHeader{a, b} {
		if !ed25519.Verify(m.epochKey, bft.ProposalBytes(s.cluster, h.Digest()), h.Signature) {
			return attest.Refuse(attest.ReasonAccusation, "the headers are not both signed by the epoch key of replica %d", m.id)
		}
	}
	m.accused = true
	s.passTime(block) // opens a round now, if none is open
	return nil
}

// order carries out an order of the operators.
func (s *State) order(block replica.BlockInfo, o *Order) (refusal *attest.Refusal, changed bool) {
	if next := s.sequence + 1; o.Sequence != next {
		return attest.Refuse(attest.ReasonSequence, "the order has number %d; the next one is %d", o.Sequence, next), false
	}
	if r := o.verify(s.genesis, s.cluster); r != nil {
		return r, false
	}
	s.sequence++
	switch body := o.Body.(type) {
	case *StartRound:
		refusal = s.startRound(block, body.Due)
	case *ApproveState:
		refusal = s.approve(body.State)
	case *RevokeState:
		refusal = s.revoke(block, body)
	case *Quarantine:
		refusal = s.quarantine(block, body)
	case *Release:
		refusal = s.release(body.Replica)
	}
	return refusal, true
}

func (s *State) startRound(block replica.BlockInfo, due []bft.ReplicaID) *attest.Refusal {
	switch {
	case s.round.phase == PhaseReady:
		return attest.Refuse(attest.ReasonOrder, "a handoff is under way: give the order again in epoch %d", s.epoch+1)
	case s.epoch == 0 && len(due) > 0:
		return attest.Refuse(attest.ReasonOrder, "nobody is due in epoch 0, which generates the group key: leave the names out")
	case len(due) > 0:
		if r := s.checkDue(due); r != nil {
			return r
		}
		s.openRound(block, due)
	case s.round.phase != PhaseIdle:
		s.reopenRound(block)
	default:
		s.openRound(block, s.automaticDue())
	}
	return nil
}

// checkDue accepts replicas that may be rebooted together: of those that hold a share, no more than
// the slack bears.
func (s *State) checkDue(due []bft.ReplicaID) *attest.Refusal {
	holders := 0
	for _, id := range due {
		m := s.member(id)
		switch {
		case m == nil:
			return attest.Refuse(attest.ReasonUnknownReplica, "there is no replica %d in this cluster", id)
		case m.quarantined:
			return attest.Refuse(attest.ReasonOrder, "replica %d is quarantined: release it first", id)
		case m.holdsShare:
			holders++
		}
	}
	if holders > s.maxDue() {
		return attest.Refuse(attest.ReasonOrder, "%d replicas with a share cannot be due at once: name at most %d", holders, s.maxDue())
	}
	return nil
}

// quarantine keeps a replica out of the next epoch. A dealing that would give it a share begins
// again without it.
func (s *State) quarantine(block replica.BlockInfo, q *Quarantine) *attest.Refusal {
	m := s.member(q.Replica)
	if m == nil {
		return attest.Refuse(attest.ReasonUnknownReplica, "there is no replica %d in this cluster", q.Replica)
	}
	if m.quarantined {
		return attest.Refuse(attest.ReasonOrder, "replica %d is quarantined already", m.id)
	}
	carry := s.count(func(other *member) bool { return other != m && s.carries(other) })
	if q := s.size.Quorum(); s.carries(m) && carry < q && !plant.Bug("carriers-not-counted") {
		return attest.Refuse(attest.ReasonOrder, "with replica %d quarantined only %d are left that hold a share, and no handoff succeeds without %d: release or recover another first", m.id, carry, q)
	}
	m.quarantined, m.quarantine = true, q.Reason
	if s.round.phase == PhaseDealing {
		s.restartDealing(block)
	}
	return nil
}

// carries: the next handoff can count on the member. It holds a share of the epoch in which that
// begins, and may receive another one: dealings are certified by a quorum of such members. Fewer of
// them stay too few, in an epoch that does not end, until one is released.
func (s *State) carries(m *member) bool {
	if s.round.phase == PhaseReady { // that handoff is over: the next one begins in the next epoch
		return !m.quarantined && m.recovery.eligible
	}
	return !m.quarantined && m.holdsShare
}

func (s *State) release(id bft.ReplicaID) *attest.Refusal {
	m := s.member(id)
	if m == nil {
		return attest.Refuse(attest.ReasonUnknownReplica, "there is no replica %d in this cluster", id)
	}
	if !m.quarantined {
		return attest.Refuse(attest.ReasonOrder, "replica %d is not quarantined", id)
	}
	m.quarantined, m.quarantine = false, ""
	return nil
}
