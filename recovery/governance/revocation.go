package governance

import (
	"slices"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// maxSkip is by how much the version of an approval may exceed what the log knows of a TPM:
// somebody may have raised the counter of one that is down and cannot show it. A counter that was
// raised further has worn out the TPM's memory, and one that was not has so far to count at the
// next revocation, if the operator was wrong.
const maxSkip = 1 << 16

// approve admits a boot state, or renews the approvals of one.
func (s *State) approve(state attest.ApprovedState) *attest.Refusal {
	if err := state.Validate(s.genesis.Attestation.PCRs); err != nil {
		return attest.Refuse(attest.ReasonOrder, "%v", err)
	}
	i := s.findState(state.Name)
	switch {
	case i >= 0 && !s.approved[i].SameAs(&state):
		return attest.Refuse(attest.ReasonOrder, "a boot state %q with other values is approved already: revoke it first, or choose another name", state.Name)
	case i < 0 && len(s.approved) >= s.genesis.mostApproved():
		return attest.Refuse(attest.ReasonOrder, "%d boot states are approved: revoke one first", len(s.approved))
	}
	// The next revocation goes beyond whatever is issued here; the bound is on how often a TPM must
	// then count, however many orders there were.
	if r := s.checkApprovals(&state, func(m *member) (least, most uint64) {
		return m.required, max(m.approvable(), m.shown.ApprovalVersion+maxSkip)
	}); r != nil {
		return r
	}
	for _, a := range state.Approvals {
		m := s.member(a.Replica)
		m.issued = max(m.issued, a.Version)
	}
	s.approved = slices.Clone(s.approved)
	if i >= 0 {
		s.approved[i] = state
	} else {
		s.approved = append(s.approved, state)
	}
	return nil
}

// revoke ends the approval of a boot state, in the log now and on every TPM as soon as its replica
// executes this: it raises the approval counter and takes the new approvals of what remains. A
// replica whose TPM has not shown so gets no share of the next epoch.
func (s *State) revoke(block replica.BlockInfo, v *RevokeState) *attest.Refusal {
	i := s.findState(v.Name)
	if i < 0 {
		return attest.Refuse(attest.ReasonOrder, "no boot state %q is approved", v.Name)
	}
	remaining := slices.Delete(slices.Clone(s.approved), i, i+1)
	if r := s.mayRevoke(v.Name); r != nil {
		return r
	}
	if len(v.Remaining) != len(remaining) {
		return attest.Refuse(attest.ReasonOrder, "%d boot states stay approved, and the order renews the approvals of %d: give it again", len(remaining), len(v.Remaining))
	}
	version := map[bft.ReplicaID]uint64{} // one for each TPM
	for j := range remaining {
		if v.Remaining[j].Name != remaining[j].Name {
			return attest.Refuse(attest.ReasonOrder, "boot state %q stays approved, and the order renews %q in its place: give it again", remaining[j].Name, v.Remaining[j].Name)
		}
		remaining[j].Approvals = v.Remaining[j].Approvals
		r := s.checkApprovals(&remaining[j], func(m *member) (least, most uint64) {
			if same, ok := version[m.id]; ok {
				return same, same
			}
			return m.issued + 1, m.approvable() + 1
		})
		if r != nil {
			return r
		}
		for _, a := range remaining[j].Approvals {
			version[a.Replica] = a.Version
		}
	}
	for i := range s.members {
		if m := &s.members[i]; len(m.attestationKey) > 0 {
			m.issued = max(m.issued+1, version[m.id])
			m.required = m.issued
		}
	}
	s.approved, s.revokedAt = remaining, block.Time
	for i := range s.members {
		s.members[i].outlaw(v.Name)
	}
	if s.round.phase == PhaseDealing { // the receivers have not shown it yet
		s.reopenRound(block)
	}
	s.passTime(block) // opens a round now for who runs in the revoked state, if none is open
	return nil
}

// mayRevoke refuses what would lose the cluster, or cannot be done at this moment.
func (s *State) mayRevoke(name string) *attest.Refusal {
	required := s.genesis.Attestation.Required
	if required && len(s.approved) == 1 {
		return attest.Refuse(attest.ReasonOrder, "%q is the only approved boot state: approve another first, or no replica can recover", name)
	}
	switch {
	case s.round.phase == PhaseReady:
		return attest.Refuse(attest.ReasonOrder, "a handoff is under way: give the order again in epoch %d", s.epoch+1)
	case required && s.epoch == 0:
		return attest.Refuse(attest.ReasonOrder, "the group key is being generated: give the order again in epoch 1")
	}
	stay := s.count(func(m *member) bool {
		return m.holdsShare && !m.quarantined && !m.outlawed && m.shown.State != "" && m.shown.State != name
	})
	if required && stay < s.size.Quorum() {
		return attest.Refuse(attest.ReasonOrder, "only %d replicas with a share run in boot states that would stay approved, and %d are needed: upgrade the others first", stay, s.size.Quorum())
	}
	return nil
}

// outlaw takes note that a state was revoked.
func (m *member) outlaw(name string) {
	if m.shown.State == name {
		m.outlawed = true
	}
	if m.recovery.verdict == verdictAttested && m.recovery.proven.State == name {
		m.forget()
	}
}

// approvable is the version for which approvals are to be given: the TPM takes it now, or when it
// has reached what was ordered.
func (m *member) approvable() uint64 { return max(m.issued, m.shown.ApprovalVersion) }

// checkApprovals refuses a state that lacks a good approval for the TPM of a member.
func (s *State) checkApprovals(state *attest.ApprovedState, versions func(*member) (least, most uint64)) *attest.Refusal {
	err := s.genesis.checkApprovals(state, func(id bft.ReplicaID) (least, most uint64) { return versions(s.member(id)) })
	if err != nil {
		return attest.Refuse(attest.ReasonOrder, "%v: give the order again", err)
	}
	return nil
}

func (s *State) findState(name string) int {
	return slices.IndexFunc(s.approved, func(a attest.ApprovedState) bool { return a.Name == name })
}
