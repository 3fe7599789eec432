package cluster

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/reseal-bft/reseal/internal/boot"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// ApproveBinary approves the boot state of another binary towards the TPMs of all replicas, so that they unseal in it, and returns the state
// for the log to approve. The TPMs must be running.
func ApproveBinary(ctx context.Context, random io.Reader, dir Dir, name, binary string) (attest.ApprovedState, error) {
	var none attest.ApprovedState
	genesis, err := governance.Load(dir.Genesis())
	if err != nil {
		return none, err
	}
	if len(genesis.Attestation.Approved) == 0 {
		return none, errors.New("this cluster attests nothing, so there is no boot state to approve")
	}
	key, err := BootApprovalKeyOf(dir)
	if err != nil {
		return none, err
	}
	state := attest.ApprovedState{Name: name, PCRs: maps.Clone(genesis.Attestation.Approved[0].PCRs)}
	measurements, err := boot.Measure(binary, dir.Replica(1).Config())
	if err != nil {
		return none, err
	}
	state.PCRs[boot.PCR] = attest.Measurement(keystore.PredictPCR(measurements[0].Digest, measurements[1].Digest))
	for _, member := range genesis.Members {
		if err := approveOn(ctx, random, dir.Replica(member.ID), key, state); err != nil {
			return none, fmt.Errorf("approving towards the TPM of replica %d: %w", member.ID, err)
		}
	}
	return state, nil
}

func approveOn(ctx context.Context, random io.Reader, dir ReplicaDir, key *ecdsa.PrivateKey, state attest.ApprovedState) (err error) {
	settings, err := ReadReplica(dir)
	if err != nil {
		return err
	}
	ks, err := OpenKeystore(ctx, dir, settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ks.Close()) }()
	var values []keystore.PCRValue
	for pcr := range keystore.NumPCRs {
		if value, ok := state.PCRs[pcr]; ok {
			values = append(values, keystore.PCRValue{Index: pcr, Digest: value})
		}
	}
	return approveBoot(random, ks, key, values)
}
