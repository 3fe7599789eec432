package cluster

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/boot"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// founder is a member as it was enrolled.
type founder struct {
	member governance.GenesisMember
	boot   []keystore.PCRValue // after a measured boot; nil without a TPM
}

// enrol prepares all replicas, several at a time: making a TPM takes a while.
func (p *Plan) enrol(ctx context.Context, addresses []string, approval *ecdsa.PrivateKey) ([]founder, error) {
	maker, err := p.newMaker(ctx)
	if err != nil {
		return nil, err
	}
	founders := make([]founder, len(addresses))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i, address := range addresses {
		group.Go(func() (err error) {
			r := &Replica{ID: bft.ReplicaID(i + 1), Listen: address, Genesis: "../genesis.json"}
			founders[i], err = p.prepare(ctx, maker, r, approval)
			return err
		})
	}
	return founders, group.Wait()
}

// prepare makes the directory of one replica, with its keystore.
func (p *Plan) prepare(ctx context.Context, maker *maker, r *Replica, approval *ecdsa.PrivateKey) (f founder, err error) {
	dir := p.Dir.Replica(r.ID)
	if err := os.Mkdir(string(dir), 0o700); err != nil {
		return f, err
	}
	if err := writeJSON(dir.Config(), p.Config); err != nil {
		return f, err
	}
	stop, err := maker.make(ctx, dir, r)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := writeJSON(dir.File(), r); err != nil {
		return f, err
	}
	if r, err = ReadReplica(dir); err != nil {
		return f, err
	}
	ks, err := initKeystore(ctx, dir, r, &approval.PublicKey)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, ks.Close()) }()
	roots, err := maker.roots()
	if err != nil {
		return f, err
	}
	return p.enrolOne(dir, r, ks, roots, approval)
}

// enrolOne reads what the genesis says of a member, and approves the boot state that its TPM will be in after a measured boot.
func (p *Plan) enrolOne(dir ReplicaDir, r *Replica, ks keystore.Keystore, roots *x509.CertPool, approval *ecdsa.PrivateKey) (f founder, err error) {
	identity, err := x509.MarshalPKIXPublicKey(ks.Identity().Public())
	if err != nil {
		return f, err
	}
	epochKey, err := recovery.SealGenesisKey(ks)
	if err != nil {
		return f, err
	}
	f.member = governance.GenesisMember{ID: r.ID, Address: r.Listen, Identity: identity, EpochKey: epochKey}
	tpm, ok := ks.(keystore.Attester)
	if !ok {
		return f, nil
	}
	status, err := ks.Status()
	if err != nil {
		return f, err
	}
	f.member.AttestationKey, f.member.ResetCount, f.member.ApprovalVersion = tpm.AttestationKey(), status.ResetCount, status.ApprovalVersion
	if f.member.EKCertificates, err = p.verifyTPM(tpm, roots); err != nil {
		return f, fmt.Errorf("TPM of replica %d: %w", r.ID, err)
	}
	if f.boot, err = predictBoot(tpm, p.Binary, dir.Config()); err != nil {
		return f, err
	}
	return f, approveBoot(p.Rand, ks, approval, f.boot)
}

// verifyTPM checks that the attestation key, the identity key and a certified endorsement key live in one TPM, and returns the endorsement
// key's certificates.
func (p *Plan) verifyTPM(tpm keystore.Attester, roots *x509.CertPool) ([][]byte, error) {
	enrollment, err := tpm.Enrollment()
	if err != nil {
		return nil, err
	}
	if _, err := keystore.VerifyEnrollment(enrollment, roots, time.Now()); err != nil {
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
	answer, err := tpm.ActivateCredential(credential)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(answer, challenge) {
		return nil, fmt.Errorf("%w: the attestation key does not live with the endorsement key", keystore.ErrInvalid)
	}
	return enrollment.Chain, nil
}

// predictBoot returns the PCR values that a machine will have after it measured the binary and the configuration, provided that it boots
// otherwise as it did now and has not measured them yet.
func predictBoot(tpm keystore.Attester, binary, config string) ([]keystore.PCRValue, error) {
	measurements, err := boot.Measure(binary, config)
	if err != nil {
		return nil, err
	}
	now, err := tpm.ReadPCRs()
	if err != nil {
		return nil, err
	}
	return boot.Predict(now, measurements), nil
}

// approveBoot signs a boot state and gives the approval to the TPM, which then unseals in it.
func approveBoot(random io.Reader, ks keystore.Keystore, key *ecdsa.PrivateKey, values []keystore.PCRValue) error {
	status, err := ks.Status()
	if err != nil {
		return err
	}
	approval, err := keystore.Approve(random, key, keystore.BootState{PCRs: values, Version: status.ApprovalVersion})
	if err != nil {
		return err
	}
	return ks.(keystore.Attester).AddApproval(approval)
}
