package cluster

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/boot"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/tpm"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/recovery/handoff"
)

// founder is a member as it was enrolled. Its device runs until close.
type founder struct {
	dir      ReplicaDir
	member   governance.GenesisMember
	keystore keystore.Keystore
	stop     func() error
}

func (f *founder) close() error {
	if f.keystore == nil {
		return nil
	}
	return errors.Join(f.keystore.Close(), f.stop())
}

// enrol prepares all replicas, several at a time: making a TPM takes a while. The caller closes
// what it returns, also when it failed.
func (p *Plan) enrol(ctx context.Context, addresses []string, approval *ecdsa.PrivateKey) ([]founder, error) {
	maker, err := p.newMaker(ctx)
	if err != nil {
		return nil, err
	}
	founders := make([]founder, len(addresses))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i, address := range addresses {
		group.Go(func() error {
			r := &Replica{ID: bft.ReplicaID(i + 1), Listen: address, Genesis: "../genesis.json"}
			return p.prepare(ctx, &founders[i], maker, r, approval)
		})
	}
	return founders, group.Wait()
}

// prepare makes the directory of one replica, with its keystore.
func (p *Plan) prepare(ctx context.Context, f *founder, maker *maker, r *Replica, approval *ecdsa.PrivateKey) error {
	f.dir = p.Dir.Replica(r.ID)
	if err := os.Mkdir(string(f.dir), 0o700); err != nil {
		return err
	}
	if err := writeJSON(f.dir.Config(), p.Config); err != nil {
		return err
	}
	stop, err := maker.make(ctx, f.dir, r)
	if err != nil {
		return err
	}
	if err := writeJSON(f.dir.File(), r); err != nil {
		return errors.Join(err, stop())
	}
	if r, err = ReadReplica(f.dir); err != nil {
		return errors.Join(err, stop())
	}
	ks, err := initKeystore(ctx, f.dir, r, &approval.PublicKey)
	if err != nil {
		return errors.Join(err, stop())
	}
	f.keystore, f.stop = ks, stop
	// It belongs to the operators, as their keys do.
	err = os.Rename(filepath.Join(f.dir.Keystore(), tpm.HierarchiesFile), p.Dir.HierarchiesAuth(r.ID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	roots, err := maker.roots()
	if err != nil {
		return err
	}
	return p.enrolOne(f, r, roots, &approval.PublicKey)
}

// enrolOne reads what the genesis says of a member.
func (p *Plan) enrolOne(f *founder, r *Replica, roots *x509.CertPool, approval *ecdsa.PublicKey) error {
	identity, err := x509.MarshalPKIXPublicKey(f.keystore.Identity().Public())
	if err != nil {
		return err
	}
	epochKey, err := handoff.SealGenesisKey(f.keystore)
	if err != nil {
		return err
	}
	f.member = governance.GenesisMember{ID: r.ID, Address: r.Listen, Identity: identity, EpochKey: epochKey}
	attester, ok := f.keystore.(keystore.Attester)
	if !ok {
		return nil
	}
	enrollment, err := p.verifyTPM(attester, roots, approval)
	if err != nil {
		return fmt.Errorf("TPM of replica %d: %w", r.ID, err)
	}
	f.member.AttestationKey, f.member.StorageRoot = enrollment.Attestation, enrollment.Root
	f.member.ResetCount, f.member.ApprovalVersion, f.member.EKCertificates = enrollment.ResetCount, enrollment.Approvals, enrollment.Chain
	return nil
}

// approve returns the boot states that the founders' TPMs will be in after a measured boot, with
// the approvals for all TPMs, and gives those to the TPMs. The genesis says the rest of what is
// measured.
func (p *Plan) approve(g *governance.Genesis, founders []founder, key *ecdsa.PrivateKey) ([]attest.ApprovedState, error) {
	var predicted [][]keystore.PCRValue
	for i := range founders {
		f := &founders[i]
		attester, ok := f.keystore.(keystore.Attester)
		if !ok {
			return nil, nil
		}
		values, err := predictBoot(attester, p.Binary, f.dir.Config(), g.FoundingDigest())
		if err != nil {
			return nil, err
		}
		predicted = append(predicted, values)
	}
	states := approvedStates(predicted)
	for i := range states {
		state := &states[i]
		var err error
		state.Approvals, err = g.Approve(p.Rand, key, state, func(id bft.ReplicaID) uint64 { return g.Members[id-1].ApprovalVersion })
		if err != nil {
			return nil, err
		}
		for _, a := range state.Approvals {
			if err := founders[a.Replica-1].keystore.(keystore.Attester).AddApproval(g.Approval(state, &a)); err != nil {
				return nil, fmt.Errorf("TPM of replica %d: %w", a.Replica, err)
			}
		}
	}
	return states, nil
}

// verifyTPM checks that the keys of a keystore and a certified endorsement key live in one TPM, and
// that they answer to boots alone that the approval key approves.
func (p *Plan) verifyTPM(attester keystore.Attester, roots *x509.CertPool, approval *ecdsa.PublicKey) (*keystore.Enrollment, error) {
	enrollment, err := attester.Enrollment()
	if err != nil {
		return nil, err
	}
	if _, err := keystore.VerifyEnrollment(enrollment, roots, time.Now()); err != nil {
		return nil, err
	}
	if err := keystore.VerifyGate(enrollment, approval, 0); err != nil {
		return nil, err
	}
	challenge := make([]byte, 32)
	if _, err := io.ReadFull(p.Rand, challenge); err != nil {
		return nil, err
	}
	credential, err := keystore.MakeCredential(p.Rand, enrollment, challenge)
	if err != nil {
		return nil, err
	}
	answer, err := attester.ActivateCredential(credential)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(answer, challenge) {
		return nil, fmt.Errorf("%w: the attestation key does not live with the endorsement key", keystore.ErrInvalid)
	}
	return enrollment, nil
}

// predictBoot returns the PCR values that a machine will have after it measured the binary, the
// configuration and the genesis, provided that it boots otherwise as it did now and has not
// measured them yet.
func predictBoot(attester keystore.Attester, binary, config string, founding [32]byte) ([]keystore.PCRValue, error) {
	measurements, err := measurements(binary, config, founding)
	if err != nil {
		return nil, err
	}
	now, err := attester.ReadPCRs()
	if err != nil {
		return nil, err
	}
	return boot.Predict(now, measurements), nil
}
