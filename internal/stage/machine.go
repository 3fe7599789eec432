package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/process"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/swtpm"
)

// grace is how long a replica may take to end in order.
const grace = 5 * time.Second

// Machine is a replica with its TPM, as a machine that can be switched off and on. Used by one
// goroutine.
type Machine struct {
	ID       bft.ReplicaID
	Dir      cluster.ReplicaDir
	Settings *cluster.Replica
	TPM      *swtpm.TPM // nil without hardware
	MayDie   bool       // that the replica ends is part of the play
	group    *process.Group
	traces   string           // where each life of the replica is recorded; empty: nowhere
	replica  *process.Process // nil while it is off
}

// PlugIn gives the machine its power: the TPM starts, the replica does not yet.
func PlugIn(ctx context.Context, group *process.Group, id bft.ReplicaID, dir cluster.ReplicaDir) (*Machine, error) {
	settings, err := cluster.ReadReplica(dir)
	if err != nil {
		return nil, err
	}
	m := &Machine{ID: id, Dir: dir, Settings: settings, group: group}
	if dir.HasTPM() {
		m.TPM, err = swtpm.Start(ctx, dir.TPM())
	}
	return m, err
}

// Boot starts the replica through the launcher, which measures the binary and the configuration first.
func (m *Machine) Boot(launcher, binary string) error {
	arguments := []string{"launch", "--dir", string(m.Dir), "--binary", binary}
	if m.TPM != nil {
		arguments = append(arguments, "--powered")
	}
	return m.start("", launcher, arguments)
}

// Act starts the replica as an actor that follows a conduct file, see package actor. A machine with
// a TPM measures the actor as what it should be.
func (m *Machine) Act(program, conduct string) error {
	return m.start(" (actor)", program, []string{"actor", "--dir", string(m.Dir), "--binary", program, "--conduct", conduct})
}

// Run starts the replica without measuring anything: as it is started again in the same boot.
func (m *Machine) Run(program string) error {
	return m.start("", program, []string{"replica", "--dir", string(m.Dir)})
}

func (m *Machine) start(as, program string, arguments []string) (err error) {
	if m.traces != "" {
		arguments = append(arguments, "--trace", m.traces)
	}
	m.replica, err = m.group.Start(process.Spec{Name: fmt.Sprintf("replica %d%s", m.ID, as), Path: program, Args: arguments, Log: m.Dir.Log()})
	return err
}

// Crash ends the replica without warning.
func (m *Machine) Crash() {
	if m.replica != nil {
		m.replica.Kill()
		m.replica = nil
	}
}

// Died returns why the replica is gone, if it should run and does not.
func (m *Machine) Died() error {
	if m.replica == nil || m.MayDie {
		return nil
	}
	select {
	case <-m.replica.Done():
		err := m.replica.Err()
		if err == nil {
			err = fmt.Errorf("replica %d ended by itself", m.ID)
		}
		return fmt.Errorf("%w (with --keep its log stays: %s)", err, m.Dir.Log())
	default:
		return nil
	}
}

// Stopped reports whether the replica has ended by itself, and its last words. The machine is off then.
func (m *Machine) Stopped() (lastWords string, stopped bool) {
	if m.replica == nil {
		return "", false
	}
	select {
	case <-m.replica.Done():
	default:
		return "", false
	}
	if err := m.replica.Err(); err != nil {
		lastWords = err.Error()
	}
	m.replica = nil
	return lastWords, true
}

// AwaitStop waits until the replica has ended by itself, and returns its last words. It is expected
// to, and [Stage.Until] does not mind.
func (m *Machine) AwaitStop(ctx context.Context) (lastWords string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("replica %d runs, and should not", m.ID))
	defer cancel()
	select {
	case <-m.replica.Done():
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	lastWords, _ = m.Stopped()
	return lastWords, nil
}

// PowerCycle takes the power from the crashed machine and gives it back: its PCRs are zero, its
// reset count is one more.
func (m *Machine) PowerCycle() error {
	if m.TPM == nil {
		return nil
	}
	return m.TPM.Reboot()
}

// Stop ends the replica in order.
func (m *Machine) Stop() {
	if m.replica != nil {
		m.replica.Stop(grace)
		m.replica = nil
	}
}

// Unplug ends the replica in order, and the TPM.
func (m *Machine) Unplug() error {
	m.Stop()
	if m.TPM == nil {
		return nil
	}
	return m.TPM.Close()
}

// BackUp copies the sealed secrets to a new directory, as a thief of the disk would.
func (m *Machine) BackUp(to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.CopyFS(to, os.DirFS(m.Dir.Keystore()))
}

// SealedEpoch returns the epoch that the machine's keystore is in.
func (m *Machine) SealedEpoch(ctx context.Context) (epoch bft.Epoch, err error) {
	ks, err := cluster.OpenKeystore(ctx, m.Dir, m.Settings)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, ks.Close()) }()
	status, err := ks.Status()
	return bft.Epoch(status.Epoch), err
}

// Offer gives sealed secrets from a backup to the machine's own device and asks for the share of an
// epoch. It returns the refusal; that the device unseals it is an error. A TPM opens nothing in a
// boot that the replica claimed: the machine is reset, its approved program measured, and the TPM
// asked before anybody claims that boot. The machine is off afterwards.
func (m *Machine) Offer(ctx context.Context, program, backup string, epoch bft.Epoch) (refusal *keystore.RefusedError, err error) {
	if m.TPM != nil {
		m.Crash()
		if err := m.PowerCycle(); err != nil {
			return nil, err
		}
		if _, err := cluster.MeasureBoot(ctx, m.Dir, m.Settings, program); err != nil {
			return nil, err
		}
	}
	ks, err := cluster.OpenKeystoreAt(ctx, m.Dir, m.Settings, backup)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ks.Close()) }()
	secret, err := ks.Unseal(uint64(epoch))
	if err == nil {
		clear(secret)
		return nil, fmt.Errorf("the keystore of replica %d unsealed the share of epoch %d, which is over", m.ID, epoch)
	}
	if !errors.As(err, &refusal) {
		return nil, fmt.Errorf("the share of epoch %d was not refused by the device itself: %w", epoch, err)
	}
	return refusal, nil
}

// Tamper makes a copy of a program that differs in one byte, behind its end: it runs as before, and
// is measured otherwise.
func Tamper(binary, copied string) error {
	text, err := os.ReadFile(filepath.Clean(binary))
	if err != nil {
		return err
	}
	return os.WriteFile(copied, append(text, '!'), 0o700)
}
