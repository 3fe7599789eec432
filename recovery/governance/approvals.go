package governance

import (
	"crypto"
	"fmt"
	"io"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// approvalsSize bounds the approvals that one order can carry: a revocation renews those of all
// states that remain. approvalSize is that of one, in bytes.
const (
	approvalsSize = MaxOperation - 32<<10
	approvalSize  = 2 + 8 + 2 + approvalSignature
)

// mostApproved is how many boot states may be approved at a time: so many that one order can revoke
// one of them.
func (g *Genesis) mostApproved() int {
	return min(attest.MaxApproved, 1+approvalsSize/(approvalSize*len(g.Members)))
}

// Approval is the approval of a boot state towards the TPM of a member, as that TPM takes it.
func (g *Genesis) Approval(state *attest.ApprovedState, a *attest.DeviceApproval) *keystore.Approval {
	return &keystore.Approval{State: g.bootState(state, a.Replica, a.Version), Signature: a.Signature}
}

// bootState is a boot state as the boot-approval key signs it for the TPM of a member.
func (g *Genesis) bootState(state *attest.ApprovedState, id bft.ReplicaID, version uint64) keystore.BootState {
	m := &g.Members[id-1]
	return keystore.BootState{Device: keystore.DeviceID(m.StorageRoot), PCRs: state.Values(g.Attestation.PCRs), Version: version, Slot: m.Slot}
}

// checkApprovals checks that a state has a good approval for each member with a TPM, of a version
// in bounds, and none else.
func (g *Genesis) checkApprovals(state *attest.ApprovedState, versions func(bft.ReplicaID) (least, most uint64)) error {
	rest := state.Approvals
	for i := range g.Members {
		m := &g.Members[i]
		if len(m.AttestationKey) == 0 {
			continue
		}
		if len(rest) == 0 || rest[0].Replica != m.ID {
			return fmt.Errorf("state %q has no approval for the TPM of replica %d", state.Name, m.ID)
		}
		a := &rest[0]
		rest = rest[1:]
		if least, most := versions(m.ID); a.Version < least || a.Version > most {
			return fmt.Errorf("state %q is approved for replica %d with version %d, and it must be %d to %d", state.Name, m.ID, a.Version, least, most)
		}
		key, err := attest.ParseIdentity(g.BootApproval)
		if err != nil {
			return fmt.Errorf("the genesis names no boot-approval key: %w", err)
		}
		if err := g.Approval(state, a).Verify(key); err != nil {
			return fmt.Errorf("state %q, replica %d: %w", state.Name, m.ID, err)
		}
	}
	if len(rest) > 0 {
		return fmt.Errorf("state %q has an approval for replica %d, which has no TPM or another place in the list", state.Name, rest[0].Replica)
	}
	return nil
}

// Approve signs a boot state for all members that have a TPM, with the boot-approval key, for the
// version that a function names for each. It needs no TPM.
func (g *Genesis) Approve(random io.Reader, key crypto.Signer, state *attest.ApprovedState, version func(bft.ReplicaID) uint64) ([]attest.DeviceApproval, error) {
	var list []attest.DeviceApproval
	for i := range g.Members {
		m := &g.Members[i]
		if len(m.AttestationKey) == 0 {
			continue
		}
		v := version(m.ID)
		a, err := keystore.Approve(random, key, g.bootState(state, m.ID, v))
		if err != nil {
			return nil, fmt.Errorf("state %q, replica %d: %w", state.Name, m.ID, err)
		}
		list = append(list, attest.DeviceApproval{Replica: m.ID, Version: v, Signature: a.Signature})
	}
	return list, nil
}

// Approvals returns the approvals of all boot states that are approved now, towards one member's
// TPM. It is safe for concurrent use.
func (s *State) Approvals(id bft.ReplicaID) []*keystore.Approval {
	var list []*keystore.Approval
	approved := s.View().approved
	for i := range approved {
		state := &approved[i]
		for j := range state.Approvals {
			if a := &state.Approvals[j]; a.Replica == id {
				list = append(list, s.genesis.Approval(state, a))
			}
		}
	}
	return list
}
