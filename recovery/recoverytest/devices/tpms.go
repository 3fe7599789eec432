package devices

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/swtpm"
	"github.com/reseal-bft/reseal/keystore/tpm"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/recovery/recoverytest"
)

// options are those of keystores that nobody but the tests looks after.
func options(dir string) keystore.Options {
	return keystore.NewOptions(keystore.WithDir(dir), keystore.WithLog(slog.New(slog.DiscardHandler)))
}

// tpms are software TPMs. They are manufactured once, which takes a second each; fleets play with
// copies.
type tpms struct {
	dir  string
	ca   *swtpm.CA
	made [maxReplicas]struct {
		once sync.Once
		err  error
	}
}

func newTPMs(dir string) (*tpms, error) {
	ca, err := swtpm.NewCA(filepath.Join(dir, "ca"))
	return &tpms{dir: dir, ca: ca}, err
}

// manufacture puts the TPM of a replica into a directory.
func (t *tpms) manufacture(ctx context.Context, id bft.ReplicaID, to string) error {
	master, m := filepath.Join(t.dir, fmt.Sprint("tpm", id)), &t.made[id-1]
	m.once.Do(func() { m.err = t.ca.Manufacture(context.WithoutCancel(ctx), master) })
	if m.err != nil {
		return m.err
	}
	return os.CopyFS(to, os.DirFS(master))
}

// Fleet implements [Maker].
func (t *tpms) Fleet() (recoverytest.Fleet, error) {
	dir, err := os.MkdirTemp(t.dir, "fleet")
	if err != nil {
		return nil, err
	}
	f := &tpmFleet{thief: thief{dir, map[bft.ReplicaID][]map[string]string{}}, tpms: t, devices: map[bft.ReplicaID]*swtpm.TPM{}, enrolled: map[bft.ReplicaID]*keystore.Enrollment{}}
	for _, key := range []**ecdsa.PrivateKey{&f.operator, &f.his} {
		if *key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// tpmFleet is keystores on software TPMs. Whoever is anywhere on the machine, or takes it, has the
// TPM's socket and the directory; nobody but who is in the replica has the process that claimed the
// boot.
type tpmFleet struct {
	thief
	tpms          *tpms
	devices       map[bft.ReplicaID]*swtpm.TPM
	enrolled      map[bft.ReplicaID]*keystore.Enrollment
	genesis       *governance.Genesis
	operator, his *ecdsa.PrivateKey // that approve boot states: the operators', and the intruder's
}

// The programs that the machines boot: what runs, what ran before and is approved until it is
// revoked, and the intruder's.
var current, former, foreign = sha256.Sum256([]byte("current")), sha256.Sum256([]byte("former")), sha256.Sum256([]byte("foreign"))

const (
	programPCR    = 14
	currentState  = "current"
	formerState   = "former"
	deviceTimeout = 30 * time.Second
	approvedByHim = 1 << 40 // a version that no TPM's counter is at
)

func (f *tpmFleet) options(dir string, operator *ecdsa.PrivateKey) keystore.Options {
	o := options(dir)
	o.OperatorKey, o.Timeout = &operator.PublicKey, deviceTimeout
	return o
}

func (f *tpmFleet) Init(ctx context.Context, id bft.ReplicaID) (keystore.Keystore, error) {
	dir := filepath.Join(f.dir, fmt.Sprint("tpm", id))
	if err := f.tpms.manufacture(ctx, id, dir); err != nil {
		return nil, err
	}
	device, err := swtpm.Start(ctx, dir)
	if err != nil {
		return nil, err
	}
	f.devices[id] = device
	if err := f.boot(ctx, id, current); err != nil {
		return nil, err
	}
	store, err := tpm.Init(ctx, device.URI(), f.options(f.keystoreDir(id), f.operator))
	if err != nil {
		return nil, err
	}
	f.enrolled[id], err = store.Enrollment()
	return store, err
}

func opened(s *tpm.Store, err error) (keystore.Keystore, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// boot does what firmware and boot loader do after a reset.
func (f *tpmFleet) boot(ctx context.Context, id bft.ReplicaID, program [sha256.Size]byte) error {
	uri := f.devices[id].URI()
	return errors.Join(f.devices[id].Reboot(), tpm.DisablePlatform(ctx, uri, options("")), tpm.Extend(ctx, uri, programPCR, program, options("")))
}

func (f *tpmFleet) Reboot(ctx context.Context, id bft.ReplicaID) (keystore.Keystore, error) {
	if err := f.boot(ctx, id, current); err != nil {
		return nil, err
	}
	o := f.options(f.keystoreDir(id), f.operator)
	o.Root = f.genesis.Members[id-1].StorageRoot
	return opened(tpm.Open(ctx, f.devices[id].URI(), o))
}

func (f *tpmFleet) Offline(ctx context.Context, id bft.ReplicaID, use func(keystore.Keystore) error) error {
	return offline(use)(opened(tpm.Open(ctx, f.devices[id].URI(), f.options(f.keystoreDir(id), f.operator))))
}

func (f *tpmFleet) Found(g *governance.Genesis) (err error) {
	f.genesis = g
	if g.BootApproval, err = x509.MarshalPKIXPublicKey(&f.operator.PublicKey); err != nil {
		return err
	}
	for id, e := range f.enrolled {
		m := &g.Members[id-1]
		m.AttestationKey, m.StorageRoot, m.ResetCount, m.ApprovalVersion = e.Attestation, e.Root, e.ResetCount, e.Approvals
	}
	values, err := tpm.ReadPCRs(context.Background(), f.devices[1].URI(), keystore.DefaultPCRs, options(""))
	if err != nil {
		return err
	}
	g.Attestation = attest.Attestation{Required: true, PCRs: keystore.DefaultPCRs.Indexes()}
	for name, program := range map[string][sha256.Size]byte{currentState: current, formerState: former} {
		state := attest.ApprovedState{Name: name, PCRs: map[int]attest.Measurement{}}
		for _, v := range values {
			state.PCRs[v.Index] = v.Digest
		}
		state.PCRs[programPCR] = sha256.Sum256(append(make([]byte, sha256.Size), program[:]...))
		state.Approvals, err = g.Approve(rand.Reader, f.operator, &state, func(id bft.ReplicaID) uint64 { return g.Members[id-1].ApprovalVersion })
		if err != nil {
			return err
		}
		g.Attestation.Approved = append(g.Attestation.Approved, state)
	}
	return nil
}

// Revocation revokes the state that ran before.
func (f *tpmFleet) Revocation(v *governance.View) (governance.OrderBody, error) {
	order := &governance.RevokeState{Name: formerState}
	for i := range v.Approved {
		state := &v.Approved[i]
		if state.Name == formerState {
			continue
		}
		list, err := f.genesis.Approve(rand.Reader, f.operator, state, func(id bft.ReplicaID) uint64 { return v.Member(id).Device.ApprovableVersion + 1 })
		if err != nil {
			return nil, err
		}
		order.Remaining = append(order.Remaining, governance.RemainingState{Name: state.Name, Approvals: list})
	}
	return order, nil
}

func (f *tpmFleet) Close() (err error) {
	for _, d := range f.devices {
		err = errors.Join(err, d.Close())
	}
	return errors.Join(err, os.RemoveAll(f.dir))
}

// Plant exchanges the key by which boot states are approved, wherever the directory may say it.
func (f *tpmFleet) Plant(id bft.ReplicaID, _ bft.Epoch) error {
	der, err := x509.MarshalPKIXPublicKey(&f.his.PublicKey)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(f.keystoreDir(id), "operator.der"), der, 0o600)
}

// Try is another process in the boot that the replica has claimed.
func (f *tpmFleet) Try(ctx context.Context, id bft.ReplicaID, _ bool) ([]recoverytest.Stolen, error) {
	stolen, err := f.attempt(ctx, id, "in the same boot, another process")
	if err != nil {
		return nil, err
	}
	open, err := f.signsForAnybody(id)
	if open {
		stolen = append(stolen, recoverytest.Stolen{How: "another user of the TPM signs with the replica's identity key"})
	}
	return stolen, err
}

// Misboot boots what the intruder likes, and what was revoked.
func (f *tpmFleet) Misboot(ctx context.Context, id bft.ReplicaID, revoked bool) ([]recoverytest.Stolen, error) {
	if err := f.boot(ctx, id, foreign); err != nil {
		return nil, err
	}
	stolen, err := f.attempt(ctx, id, "a system that nobody approved")
	if err != nil || !revoked {
		return stolen, err
	}
	if err := f.boot(ctx, id, former); err != nil {
		return nil, err
	}
	more, err := f.attempt(ctx, id, "a system that was revoked")
	if len(more) > 0 {
		more = append(more, recoverytest.Stolen{How: "the TPM answers to a system that was revoked"})
	}
	return append(stolen, more...), err
}

// newest is how many of all envelopes are tried: each costs a dozen commands.
const newest = 6

// attempt opens copies of the keystore, as the operators' and as his own, in the boot that the
// machine is in.
func (f *tpmFleet) attempt(ctx context.Context, id bft.ReplicaID, who string) (stolen []recoverytest.Stolen, err error) {
	if err := f.Copy(id); err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, c := range f.copies[id] { // all approvals that there ever were, and the last of all else
		maps.Copy(files, c)
	}
	envelopes := f.envelopes(id)
	envelopes = envelopes[max(len(envelopes)-newest, 0):]
	for _, operator := range []*ecdsa.PrivateKey{f.operator, f.his} {
		delete(files, "operator.der")
		dir, err := f.put(files)
		if err != nil {
			return nil, err
		}
		store, err := tpm.Open(ctx, f.devices[id].URI(), f.options(dir, operator))
		if err != nil {
			return nil, err
		}
		if operator == f.his {
			if err := f.approve(store); err != nil {
				return nil, err
			}
		}
		for _, e := range envelopes {
			if err := os.WriteFile(filepath.Join(dir, e.name), []byte(e.data), 0o600); err != nil {
				return nil, err
			}
			if secret, err := store.Unseal(e.Epoch); err == nil {
				stolen = append(stolen, recoverytest.Stolen{How: fmt.Sprintf("%s unseals the secret of epoch %d", who, e.Epoch), Secret: secret})
			}
		}
		if store.Claim() == nil {
			stolen = append(stolen, recoverytest.Stolen{How: who + " claims the boot, and has the identity key"})
		}
		if err := errors.Join(store.Close(), os.RemoveAll(dir)); err != nil {
			return nil, err
		}
	}
	return stolen, nil
}

// approve approves the boot that the machine is in, by the intruder's key.
func (f *tpmFleet) approve(s *tpm.Store) error {
	values, err := s.ReadPCRs()
	if err != nil {
		return err
	}
	a, err := keystore.Approve(rand.Reader, f.his, keystore.BootState{Device: s.DeviceID(), PCRs: values, Version: approvedByHim})
	if err != nil {
		return err
	}
	return s.AddApproval(a)
}
