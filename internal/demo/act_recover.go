package demo

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/stage"
)

// recoverAll recovers every replica in turn, up to c in an epoch.
func (d *demo) recoverAll(ctx context.Context) error {
	from := d.Load.Meter.Mark()
	recovered := map[bft.ReplicaID]bool{}
	for rounds := 0; len(recovered) < d.options.Size.N(); rounds++ {
		if rounds > 2*d.options.Size.N() {
			return fmt.Errorf("after %d rounds it still was not every replica's turn", rounds)
		}
		recoveries, err := d.recoverDue(ctx)
		if err != nil {
			return err
		}
		for _, r := range recoveries {
			recovered[r.Replica] = true
		}
		d.report.Recoveries = append(d.report.Recoveries, recoveries...)
	}
	d.healing.Add(from, d.Load.Meter.Mark())
	d.Show.Event("all %d replicas rebooted; %.0f operations a second meanwhile", len(recovered), d.healing.PerSecond())
	return nil
}

// recoverDue orders a round and recovers the replicas that are due in it: they do not lead in this
// epoch, so that their reboot costs no timeout.
func (d *demo) recoverDue(ctx context.Context) ([]Recovery, error) {
	began := time.Now()
	before, err := d.OpenRound(ctx)
	if err != nil {
		return nil, err
	}
	due := d.MachinesOf(before.Due)
	loot := map[bft.ReplicaID]*stage.Loot{}
	for _, m := range due {
		if loot[m.ID], err = d.plunder(ctx, m, before.Epoch); err != nil {
			return nil, err
		}
		m.Crash()
	}
	if err := d.Reboot(due...); err != nil {
		return nil, err
	}
	after, err := d.AwaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return nil, err
	}
	var recoveries []Recovery
	for _, m := range due {
		if err := d.AwaitBack(ctx, m, after); err != nil {
			return nil, err
		}
		now := after.Member(m.ID)
		r := Recovery{
			Replica: m.ID, Seconds: time.Since(began).Seconds(), Attested: now.Attested && now.RecoveredEpoch == after.Epoch,
			ResetCountBefore: before.Member(m.ID).ResetCount, ResetCountAfter: now.ResetCount,
		}
		recoveries = append(recoveries, r)
		d.step(fmt.Sprintf("epoch %d", after.Epoch))
		d.Show.Event("replica %d rebooted and is back in epoch %d: %s", r.Replica, after.Epoch, r)
		if err := d.tryLoot(ctx, m, loot[m.ID]); err != nil {
			return nil, err
		}
		if err := d.offerOldShare(ctx, m, before.Epoch); err != nil {
			return nil, err
		}
	}
	return recoveries, nil
}

// plunder takes all from a replica, before its reboot, that somebody with root's rights could copy:
// the sealed secrets, and its credential with the private key out of its memory. The credential
// works now; that the device opens nothing to another process in the same boot is seen on the way.
func (d *demo) plunder(ctx context.Context, m *stage.Machine, epoch bft.Epoch) (*stage.Loot, error) {
	loot, err := m.Plunder(ctx, d.backup(m), epoch)
	if err != nil || loot.Credential == nil {
		return loot, err
	}
	if err := d.neighbour(m).Admits(ctx, loot.Credential); err != nil {
		return nil, fmt.Errorf("the credential in the memory of replica %d is refused before its time, so that refusing it later would show nothing: %w", m.ID, err)
	}
	return loot, nil
}

// tryLoot shows that what was copied from a replica before its reboot is worth nothing after the
// handoff.
func (d *demo) tryLoot(ctx context.Context, m *stage.Machine, loot *stage.Loot) error {
	if loot.Device != nil {
		d.report.OtherProcessesRefused++
	}
	if loot.Credential == nil {
		d.Show.Event("  its memory could not be copied, which takes root: only its disk was")
		return nil
	}
	if err := d.neighbour(m).Admits(ctx, loot.Credential); err == nil {
		return fmt.Errorf("replica %d admits the credential that replica %d had in epoch %d, which is over", d.neighbour(m).ID, m.ID, loot.Epoch)
	}
	d.report.OldCredentialsRefused++
	d.Show.Event("  the credential and key copied from its memory before: admitted to nothing, and the log names another key")
	return nil
}

// neighbour is another replica than the given one.
func (d *demo) neighbour(m *stage.Machine) *stage.Machine {
	return d.Machines[int(m.ID)%len(d.Machines)]
}

// backup is where the sealed secrets of a machine are copied to.
func (d *demo) backup(m *stage.Machine) string {
	return filepath.Join(d.Scratch, fmt.Sprintf("backup-%d", m.ID))
}

// offerOldShare shows that the share of a past epoch is gone for good, also from a copy of the disk.
func (d *demo) offerOldShare(ctx context.Context, m *stage.Machine, epoch bft.Epoch) error {
	if d.options.Keystore == cluster.File {
		return nil // files cannot refuse a copy of themselves
	}
	err := d.Until(ctx, fmt.Sprintf("the keystore of replica %d moves on from epoch %d", m.ID, epoch), func(ctx context.Context) (bool, error) {
		now, err := m.SealedEpoch(ctx)
		return now > epoch, err
	})
	if err != nil {
		return err
	}
	if d.hasTPMs() {
		d.offers = append(d.offers, offer{m, epoch}) // it takes a reset of the machine: see settle
		return nil
	}
	return offer{m, epoch}.play(ctx, d)
}

// offer is the share of a past epoch, in a backup, to be offered to the device that sealed it.
type offer struct {
	machine *stage.Machine
	epoch   bft.Epoch
}

func (o offer) play(ctx context.Context, d *demo) error {
	refusal, err := o.machine.Offer(ctx, d.Program, d.backup(o.machine), o.epoch)
	if err != nil {
		return err
	}
	d.report.OldSharesRefused++
	d.Show.Event("  the share of replica %d of epoch %d, from a backup: the %s refuses, %v", o.machine.ID, o.epoch, refusal.Device, refusal.Reason)
	return nil
}
