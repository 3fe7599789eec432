package drill

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/reseal-bft/reseal/internal/stage"
	"github.com/reseal-bft/reseal/keystore/swtpm"
)

// clearedTPM plays the two ways in which a machine comes to have no TPM of the group's: another one
// is in its place, which is mended by putting it back; or it was cleared, which is the end of this
// replica's keys. A new TPM cannot take the seat yet, so the drill ends with the seat empty and the
// service whole.
func clearedTPM(ctx context.Context, r *Rehearsal) error {
	m := r.Machines[0]
	backup := filepath.Join(r.Scratch, "backup")
	if out, err := r.reseal(ctx, "keystore", "backup", "--dir", m.Dir.Keystore(), "--out", backup); err != nil {
		r.Show.Event("%s", out)
		return err
	}
	if err := r.exchangeTPM(ctx, m); err != nil {
		return err
	}

	m.Crash()
	if err := m.PowerCycle(); err != nil {
		return err
	}
	if err := m.TPM.Clear(); err != nil {
		return err
	}
	r.Show.Event("somebody at machine %d has cleared its TPM in the firmware's setup", m.ID)
	if err := m.Boot(r.Program, r.Program); err != nil {
		return err
	}
	words, err := m.AwaitStop(ctx)
	if err != nil {
		return err
	}
	r.Check(strings.Contains(words, "was cleared") && strings.Contains(words, "order quarantine"), "the replica does not run, and says that the TPM was cleared, and what to do", "%s", words)
	status, err := r.status(ctx, m)
	r.Check(err != nil && strings.Contains(status, "was cleared"), "`keystore status` says so", "%s", lastLine(status))
	restored, err := r.reseal(ctx, "keystore", "init", m.TPM.URI(), "--dir", filepath.Join(r.Scratch, "restored"), "--backup", backup,
		"--genesis", r.Dir.Genesis(), "--replica", strconv.Itoa(int(m.ID)))
	r.Check(err != nil && strings.Contains(restored, "was cleared"), "the backup of its directory is worth nothing now", "%s", lastLine(restored))
	if err := r.writes(ctx, "without it"); err != nil {
		return err
	}

	out, err := r.reseal(ctx, "order", "quarantine", "--dir", string(r.Dir), "--replica", strconv.Itoa(int(m.ID)), "--reason", "its TPM is lost")
	if err != nil {
		r.Show.Event("%s", out)
		return err
	}
	seen, err := r.Await(ctx, "the order is carried out", func(v *stage.Sight) bool { return strings.Contains(v.Member(m.ID).Status, "quarantined") })
	if err != nil {
		return err
	}
	r.Check(true, "status says what became of it", "%s", seen.Member(m.ID).Status)
	// Nobody waits for it.
	other := r.Machines[1]
	_, after, err := r.recover(ctx, other.ID)
	if err != nil {
		return err
	}
	r.Check(after.Member(other.ID).HoldsShare && !after.Member(m.ID).HoldsShare, "rounds go on: the others recover, and the empty seat gets no share",
		"epoch %d, %d shares", after.Epoch, after.Holders())
	return r.writes(ctx, "with the seat empty")
}

// exchangeTPM boots a machine with another TPM in it, and then with its own again.
func (r *Rehearsal) exchangeTPM(ctx context.Context, m *stage.Machine) error {
	m.Crash()
	if err := m.TPM.Close(); err != nil {
		return err
	}
	own, dir := m.Dir.TPM()+".own", m.Dir.TPM()
	if err := os.Rename(dir, own); err != nil {
		return err
	}
	ca, err := swtpm.NewCA(filepath.Join(r.Scratch, "ca"))
	if err != nil {
		return err
	}
	if err := ca.Manufacture(ctx, dir); err != nil {
		return err
	}
	if m.TPM, err = swtpm.Start(ctx, dir); err != nil {
		return err
	}
	r.Show.Event("machine %d comes up with another TPM in it", m.ID)
	if err := r.Reboot(m); err != nil {
		return err
	}
	words, err := m.AwaitStop(ctx)
	if err != nil {
		return err
	}
	r.Check(strings.Contains(words, "another TPM") && !strings.Contains(words, "was cleared"), "the replica does not run, and says that it is another TPM", "%s", words)
	status, err := r.status(ctx, m)
	r.Check(err != nil && strings.Contains(status, "another TPM"), "`keystore status` says so, too", "%s", lastLine(status))
	if err := r.writes(ctx, "without it"); err != nil {
		return err
	}

	if err := m.TPM.Close(); err != nil {
		return err
	}
	if err := os.Rename(dir, dir+".other"); err != nil {
		return err
	}
	if err := os.Rename(own, dir); err != nil {
		return err
	}
	if m.TPM, err = swtpm.Start(ctx, dir); err != nil {
		return err
	}
	if err := r.Reboot(m); err != nil {
		return err
	}
	v, err := r.Await(ctx, "the replica votes with its own TPM", func(v *stage.Sight) bool { return v.Votes(m.ID, v.Epoch) })
	if err == nil {
		r.Check(true, "with its own TPM back it votes again", "in epoch %d", v.Epoch)
	}
	return err
}

// status is what `reseal keystore status` says of a machine's keystore.
func (r *Rehearsal) status(ctx context.Context, m *stage.Machine) (string, error) {
	return r.reseal(ctx, "keystore", "status", m.TPM.URI(), "--dir", m.Dir.Keystore(), "--genesis", r.Dir.Genesis(), "--replica", strconv.Itoa(int(m.ID)))
}

// reseal runs a command of the program that is rehearsed, and returns what it printed.
func (r *Rehearsal) reseal(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, r.Program, args...).CombinedOutput()
	return string(out), err
}
