package demo

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

// machine is a replica with its TPM, as a machine that can be switched off and on. Used by one goroutine.
type machine struct {
	id       bft.ReplicaID
	dir      cluster.ReplicaDir
	settings *cluster.Replica
	tpm      *swtpm.TPM // nil without hardware
	group    *process.Group
	replica  *process.Process // nil while it is off
}

// plugIn gives the machine its power: the TPM starts, the replica does not yet.
func plugIn(ctx context.Context, group *process.Group, id bft.ReplicaID, dir cluster.ReplicaDir) (*machine, error) {
	settings, err := cluster.ReadReplica(dir)
	if err != nil {
		return nil, err
	}
	m := &machine{id: id, dir: dir, settings: settings, group: group}
	if dir.HasTPM() {
		m.tpm, err = swtpm.Start(ctx, dir.TPM())
	}
	return m, err
}

// boot starts the replica through the launcher, which measures the binary and the configuration first.
func (m *machine) boot(launcher, binary string) error {
	arguments := []string{"launch", "--dir", string(m.dir), "--binary", binary}
	if m.tpm != nil {
		arguments = append(arguments, "--powered")
	}
	var err error
	m.replica, err = m.group.Start(process.Spec{
		Name: fmt.Sprintf("replica %d", m.id), Path: launcher, Args: arguments, Log: m.dir.Log(),
	})
	return err
}

// crash ends the replica without warning.
func (m *machine) crash() {
	if m.replica != nil {
		m.replica.Kill()
		m.replica = nil
	}
}

// died returns why the replica is gone, if it should run and does not.
func (m *machine) died() error {
	if m.replica == nil {
		return nil
	}
	select {
	case <-m.replica.Done():
		err := m.replica.Err()
		if err == nil {
			err = fmt.Errorf("replica %d ended by itself", m.id)
		}
		return fmt.Errorf("%w (with --keep its log stays: %s)", err, m.dir.Log())
	default:
		return nil
	}
}

// powerCycle takes the power from the crashed machine and gives it back: its PCRs are zero, its reset count is one more.
func (m *machine) powerCycle() error {
	if m.tpm == nil {
		return nil
	}
	return m.tpm.Reboot()
}

// unplug ends the replica in order, and the TPM.
func (m *machine) unplug() error {
	if m.replica != nil {
		m.replica.Stop(grace)
		m.replica = nil
	}
	if m.tpm == nil {
		return nil
	}
	return m.tpm.Close()
}

// backUp copies the sealed secrets to a new directory, as a thief of the disk would.
func (m *machine) backUp(to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.CopyFS(to, os.DirFS(m.dir.Keystore()))
}

// sealedEpoch returns the epoch that the machine's keystore is in.
func (m *machine) sealedEpoch(ctx context.Context) (epoch bft.Epoch, err error) {
	ks, err := cluster.OpenKeystore(ctx, m.dir, m.settings)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, ks.Close()) }()
	status, err := ks.Status()
	return bft.Epoch(status.Epoch), err
}

// offer gives sealed secrets from a backup to the machine's own device and asks for the share of an epoch. It returns the refusal; that the
// device unseals it is an error.
func (m *machine) offer(ctx context.Context, backup string, epoch bft.Epoch) (refusal *keystore.RefusedError, err error) {
	ks, err := cluster.OpenKeystoreAt(ctx, m.dir, m.settings, backup)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ks.Close()) }()
	secret, err := ks.Unseal(uint64(epoch))
	if err == nil {
		clear(secret)
		return nil, fmt.Errorf("the keystore of replica %d unsealed the share of epoch %d, which is over", m.id, epoch)
	}
	if !errors.As(err, &refusal) {
		return nil, fmt.Errorf("the share of epoch %d was not refused by the device itself: %w", epoch, err)
	}
	return refusal, nil
}

// tamper makes a copy of a program that differs in one byte, behind its end: it runs as before, and is measured otherwise.
func tamper(binary, copied string) error {
	text, err := os.ReadFile(filepath.Clean(binary))
	if err != nil {
		return err
	}
	return os.WriteFile(copied, append(text, '!'), 0o700)
}
