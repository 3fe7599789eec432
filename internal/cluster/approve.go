package cluster

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/boot"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// Approval says which boot state is to be approved.
type Approval struct {
	// Name of the state. One that is approved already gets new approvals and needs nothing else.
	Name string
	// Binary and Config are the files that will be measured.
	Binary, Config string
	// Like names the approved state from which the new one differs in these only; empty: the first.
	Like string
	// Counters are the values of approval counters that replicas cannot show: somebody raised them.
	Counters map[bft.ReplicaID]uint64
}

// Approve makes the order that approves a boot state, with its approvals for the TPMs of all
// replicas. It needs no TPM and no replica's directory: what the log knows is enough. Only the
// boot-approval key is secret.
func Approve(random io.Reader, dir Dir, genesis *governance.Genesis, state *State, a Approval) (*governance.ApproveState, error) {
	approved, err := a.state(genesis, state)
	if err != nil {
		return nil, err
	}
	for id, counter := range a.Counters {
		if id < 1 || int(id) > len(state.Members) || state.Member(id).Device == nil {
			return nil, fmt.Errorf("replica %d has no TPM whose counter could have been raised", id)
		}
		d := state.Member(id).Device
		d.ApprovableVersion = max(d.ApprovableVersion, counter)
	}
	approved.Approvals, err = approvals(random, dir, genesis, state, &approved, 0)
	return &governance.ApproveState{State: approved}, err
}

// Revoke makes the order that revokes a boot state, with new approvals of those that remain.
func Revoke(random io.Reader, dir Dir, genesis *governance.Genesis, state *State, name string) (*governance.RevokeState, error) {
	order := &governance.RevokeState{Name: name}
	for i := range state.Approved {
		remaining := &state.Approved[i]
		if remaining.Name == name {
			continue
		}
		list, err := approvals(random, dir, genesis, state, remaining, 1)
		if err != nil {
			return nil, err
		}
		order.Remaining = append(order.Remaining, governance.RemainingState{Name: remaining.Name, Approvals: list})
	}
	return order, nil
}

// state is the boot state that is to be approved.
func (a *Approval) state(genesis *governance.Genesis, now *State) (attest.ApprovedState, error) {
	find := func(name string) int {
		return slices.IndexFunc(now.Approved, func(s attest.ApprovedState) bool { return s.Name == name })
	}
	var none attest.ApprovedState
	if len(now.Approved) == 0 {
		return none, errors.New("this cluster attests nothing, so there is no boot state to approve")
	}
	if a.Binary == "" {
		if i := find(a.Name); i >= 0 {
			return now.Approved[i], nil
		}
		return none, fmt.Errorf("no boot state %q is approved: to approve a new one, name its --binary", a.Name)
	}
	like := 0
	if a.Like != "" {
		if like = find(a.Like); like < 0 {
			return none, fmt.Errorf("no boot state %q is approved that the new one could be like", a.Like)
		}
	}
	s := attest.ApprovedState{Name: a.Name, PCRs: maps.Clone(now.Approved[like].PCRs), MinimumFirmware: now.Approved[like].MinimumFirmware}
	measured, err := measurements(a.Binary, a.Config, genesis.FoundingDigest())
	if err != nil {
		return none, err
	}
	s.PCRs[boot.PCR] = attest.Measurement(boot.Predict([]keystore.PCRValue{{Index: boot.PCR}}, measured)[0].Digest)
	return s, nil
}

// approvals signs a boot state for the TPMs of all members, in the version that the log asks for,
// or above it.
func approvals(random io.Reader, dir Dir, genesis *governance.Genesis, state *State, approved *attest.ApprovedState, above uint64) ([]attest.DeviceApproval, error) {
	if !slices.ContainsFunc(state.Members, func(m MemberState) bool { return m.Device != nil }) {
		return nil, nil // nobody has a TPM
	}
	key, err := BootApprovalKeyOf(dir)
	if err != nil {
		return nil, err
	}
	return genesis.Approve(random, key, approved, func(id bft.ReplicaID) uint64 {
		if d := state.Member(id).Device; d != nil {
			return d.ApprovableVersion + above
		}
		return 0
	})
}
