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

// recoverAll recovers every replica in turn, one to an epoch.
func (d *demo) recoverAll(ctx context.Context) error {
	from := d.load.meter.mark()
	recovered := map[bft.ReplicaID]bool{}
	for len(recovered) < d.options.Size.N() {
		recovery, err := d.recoverNext(ctx)
		if err != nil {
			return err
		}
		recovered[recovery.Replica] = true
		if len(d.report.Recoveries) > 2*d.options.Size.N() {
			return fmt.Errorf("after %d recoveries it still was not every replica's turn", len(d.report.Recoveries))
		}
	}
	d.healing.add(from, d.load.meter.mark())
	d.show.Event("all %d replicas rebooted; %.0f operations a second meanwhile", len(recovered), d.healing.perSecond())
	return nil
}

// recoverNext orders a round and recovers the replica that is due in it: it does not lead in this epoch, so its reboot costs no timeout.
func (d *demo) recoverNext(ctx context.Context) (*Recovery, error) {
	began := time.Now()
	before, err := d.openRound(ctx)
	if err != nil {
		return nil, err
	}
	due := before.Member(before.Due[0])
	m := d.machines[due.ID-1]
	m.crash()
	backup := filepath.Join(d.scratch, "backup")
	if err := m.backUp(backup); err != nil {
		return nil, err
	}
	if err := d.reboot(m, d.program); err != nil {
		return nil, err
	}
	after, err := d.awaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return nil, err
	}
	now := after.Member(due.ID)
	if !now.HoldsShare {
		return nil, fmt.Errorf("replica %d was not admitted: %s", due.ID, now.Status)
	}
	if err := d.awaitVotes(ctx, m, after.Epoch); err != nil {
		return nil, err
	}
	r := Recovery{
		Replica: due.ID, Seconds: time.Since(began).Seconds(), Attested: now.Attested && now.RecoveredEpoch == after.Epoch,
		ResetCountBefore: due.ResetCount, ResetCountAfter: now.ResetCount,
	}
	d.report.Recoveries = append(d.report.Recoveries, r)
	d.step(fmt.Sprintf("epoch %d", after.Epoch))
	d.show.Event("replica %d rebooted and is back in epoch %d: %s", r.Replica, after.Epoch, r)
	return &r, d.offerOldShare(ctx, m, backup, before.Epoch)
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

// awaitVotes waits until a replica has its share of an epoch, and votes with it.
func (d *demo) awaitVotes(ctx context.Context, m *machine, epoch bft.Epoch) error {
	_, err := d.await(ctx, fmt.Sprintf("replica %d votes in epoch %d", m.id, epoch), func(v *sight) bool { return v.votes(m.id, epoch) })
	return err
}

// reboot power-cycles a machine that has crashed, and boots it.
func (d *demo) reboot(m *machine, program string) error {
	if err := m.powerCycle(); err != nil {
		return err
	}
	return m.boot(d.program, program)
}

// offerOldShare shows that the share of a past epoch is gone for good, also from a copy of the disk.
func (d *demo) offerOldShare(ctx context.Context, m *machine, backup string, epoch bft.Epoch) error {
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
	refusal, err := m.offer(ctx, backup, epoch)
	if err != nil {
		return err
	}
	d.report.OldSharesRefused++
	d.show.Event("  its share of epoch %d, from a backup: %v", epoch, refusal)
	return nil
}
