package recovery

import (
	"cmp"
	"slices"

	"github.com/reseal-bft/reseal/bft"
)

// maxDue is the number of holders of shares that may be due in one round: the slack c, so that the service does not notice; and one where there is no
// slack, so that replicas are recovered at all.
func (s *State) maxDue() int { return max(s.size.C, 1) }

// automaticDue chooses who is due: first the accused; then those without a share, but for those who were due in the last round, so that one that is
// gone for good does not keep the others from their turn; then the others, in turn.
func (s *State) automaticDue() []bft.ReplicaID {
	var candidates []*member
	for i := range s.members {
		if m := &s.members[i]; !m.quarantined {
			candidates = append(candidates, m)
		}
	}
	rank := func(m *member) int {
		switch {
		case m.accused:
			return 0
		case !m.leased() && m.lastDue < s.round.number:
			return 1
		}
		return 2
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

// schedule lists the leaders of an epoch that begins now: the holders of shares that are not quarantined and not expected to be due in its
// round, so that a planned reboot never costs a timeout. Since more than max(c,1) replicas hold a share there is always one.
func (s *State) schedule() []bft.ReplicaID {
	due := s.automaticDue()
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
