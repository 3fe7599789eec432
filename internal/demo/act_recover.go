package demo

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/recovery"
)

// recoverAll recovers every replica in turn, up to c in an epoch.
func (d *demo) recoverAll(ctx context.Context) error {
	from := d.load.meter.mark()
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
	d.healing.add(from, d.load.meter.mark())
	d.show.Event("all %d replicas rebooted; %.0f operations a second meanwhile", len(recovered), d.healing.perSecond())
	return nil
}

// recoverDue orders a round and recovers the replicas that are due in it: they do not lead in this epoch, so that their reboot costs no timeout.
func (d *demo) recoverDue(ctx context.Context) ([]Recovery, error) {
	began := time.Now()
	before, err := d.openRound(ctx)
	if err != nil {
		return nil, err
	}
	due := d.machinesOf(before.Due)
	for _, m := range due {
		m.crash()
		if err := m.backUp(d.backup(m)); err != nil {
			return nil, err
		}
	}
	if err := d.reboot(due...); err != nil {
		return nil, err
	}
	after, err := d.awaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return nil, err
	}
	var recoveries []Recovery
	for _, m := range due {
		if err := d.awaitBack(ctx, m, after); err != nil {
			return nil, err
		}
		now := after.Member(m.id)
		r := Recovery{
			Replica: m.id, Seconds: time.Since(began).Seconds(), Attested: now.Attested && now.RecoveredEpoch == after.Epoch,
			ResetCountBefore: before.Member(m.id).ResetCount, ResetCountAfter: now.ResetCount,
		}
		recoveries = append(recoveries, r)
		d.step(fmt.Sprintf("epoch %d", after.Epoch))
		d.show.Event("replica %d rebooted and is back in epoch %d: %s", r.Replica, after.Epoch, r)
		if err := d.offerOldShare(ctx, m, before.Epoch); err != nil {
			return nil, err
		}
	}
	return recoveries, nil
}

func (d *demo) machinesOf(ids []bft.ReplicaID) []*machine {
	var machines []*machine
	for _, id := range ids {
		machines = append(machines, d.machines[id-1])
	}
	return machines
}

// backup is where the sealed secrets of a machine are copied to.
func (d *demo) backup(m *machine) string {
	return filepath.Join(d.scratch, fmt.Sprintf("backup-%d", m.id))
}

// openRound orders a recovery round and waits until it is known who is due.
func (d *demo) openRound(ctx context.Context, due ...bft.ReplicaID) (*sight, error) {
	before, err := d.control.look(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.control.order(ctx, &recovery.StartRound{Due: due}); err != nil {
		return nil, err
	}
	return d.await(ctx, "the round opens", func(v *sight) bool {
		return v.Epoch == before.Epoch && v.Phase == cluster.PhaseAttesting && len(v.Due) > 0
	})
}

// awaitEpoch waits until an epoch has begun.
func (d *demo) awaitEpoch(ctx context.Context, epoch bft.Epoch) (*sight, error) {
	return d.await(ctx, fmt.Sprintf("epoch %d begins", epoch), func(v *sight) bool { return v.Epoch >= epoch })
}

// awaitBack checks that the new epoch has a share for a replica, and waits until it votes with it.
func (d *demo) awaitBack(ctx context.Context, m *machine, after *sight) error {
	if now := after.Member(m.id); !now.HoldsShare {
		return fmt.Errorf("replica %d has no share of epoch %d: %s", m.id, after.Epoch, now.Status)
	}
	_, err := d.await(ctx, fmt.Sprintf("replica %d votes in epoch %d", m.id, after.Epoch), func(v *sight) bool { return v.votes(m.id, after.Epoch) })
	return err
}

// reboot power-cycles machines that have crashed, and boots them.
func (d *demo) reboot(machines ...*machine) error {
	for _, m := range machines {
		if err := d.rebootWith(m, d.program); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) rebootWith(m *machine, program string) error {
	if err := m.powerCycle(); err != nil {
		return err
	}
	return m.boot(d.program, program)
}

// offerOldShare shows that the share of a past epoch is gone for good, also from a copy of the disk.
func (d *demo) offerOldShare(ctx context.Context, m *machine, epoch bft.Epoch) error {
	if d.options.Keystore == cluster.File {
		return nil // files cannot refuse a copy of themselves
	}
	err := d.until(ctx, fmt.Sprintf("the keystore of replica %d moves on from epoch %d", m.id, epoch), func(ctx context.Context) (bool, error) {
		now, err := m.sealedEpoch(ctx)
		return now > epoch, err
	})
	if err != nil {
		return err
	}
	refusal, err := m.offer(ctx, d.backup(m), epoch)
	if err != nil {
		return err
	}
	d.report.OldSharesRefused++
	d.show.Event("  its share of epoch %d, from a backup: the %s refuses, %v", epoch, refusal.Device, refusal.Reason)
	return nil
}
