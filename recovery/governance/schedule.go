package governance

import (
	"cmp"
	"slices"

	"github.com/reseal-bft/reseal/bft"
)

// maxDue is the number of holders of shares that may be due in one round: the slack c, so that the
// service does not notice; and one where there is no slack, so that replicas are recovered at all.
func (s *State) maxDue() int { return max(s.size.C, 1) }

// urgent: a share that should not last until its owner's turn. The owner was proven Byzantine, or
// runs in a state that is not approved; or, when the time for it is over, its TPM has not shown
// that it refuses what was revoked. Who holds no share has nothing that could wait or not.
func (s *State) urgent(m *member, now int64) bool {
	return m.holdsShare && !m.quarantined && (m.accused || m.outlawed || !m.reached() && now >= s.graceEnds())
}

// graceEnds is the block time until which TPMs have time to show the last revocation.
func (s *State) graceEnds() int64 { return s.revokedAt + s.genesis.RoundDeadline.milliseconds() }

// isUrgent says whether somebody's recovery is urgent.
func (s *State) isUrgent(now int64) bool {
	return s.count(func(m *member) bool { return s.urgent(m, now) }) > 0
}

// automaticDue chooses who is due in a regular round: first the urgent, then those without a lease,
// then the others, in turn. Who was due in the last round comes last in any case: one that is gone
// for good, or equivocates again and again, does not keep the others from their turn.
func (s *State) automaticDue() []bft.ReplicaID {
	rank := func(m *member) int {
		switch {
		case m.lastDue == s.round.number:
			return 2
		case s.urgent(m, s.base.Time):
			return 0
		case !m.leased():
			return 1
		}
		return 2
	}
	return s.chooseDue(rank, func(*member) bool { return true })
}

// urgentDue chooses who is due in an urgent round: those for whom it was opened, and nobody else,
// since nobody else expects it.
func (s *State) urgentDue(now int64) []bft.ReplicaID {
	return s.chooseDue(func(*member) int { return 0 }, func(m *member) bool { return s.urgent(m, now) })
}

// chooseDue chooses among the members that are not quarantined: by rank, then those who were not
// due for longest, then by ID.
func (s *State) chooseDue(rank func(*member) int, among func(*member) bool) []bft.ReplicaID {
	var candidates []*member
	for i := range s.members {
		if m := &s.members[i]; !m.quarantined && among(m) {
			candidates = append(candidates, m)
		}
	}
	slices.SortStableFunc(candidates, func(a, b *member) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.lastDue, b.lastDue))
	})
	var due []bft.ReplicaID
	for _, m := range candidates[:min(len(candidates), s.maxDue())] {
		due = append(due, m.id)
	}
	slices.Sort(due)
	return due
}

// expectedDue is who will be due in the next round, as far as one can know.
func (s *State) expectedDue() []bft.ReplicaID {
	if s.isUrgent(s.base.Time) {
		return s.urgentDue(s.base.Time)
	}
	return s.automaticDue()
}

// schedule lists the leaders of an epoch that begins now: the holders of shares that are not
// quarantined and not expected to be due in its round, so that a planned reboot never costs a
// timeout. Since more than max(c,1) replicas hold a share there is always one.
func (s *State) schedule() []bft.ReplicaID {
	due := s.expectedDue()
	var leaders, holders []bft.ReplicaID
	for i := range s.members {
		m := &s.members[i]
		if !m.holdsShare {
			continue
		}
		holders = append(holders, m.id)
		if !m.quarantined && !contains(due, m.id) {
			leaders = append(leaders, m.id)
		}
	}
	if len(leaders) == 0 {
		return holders
	}
	return leaders
}

func contains(ids []bft.ReplicaID, id bft.ReplicaID) bool { return slices.Contains(ids, id) }
