package demo

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// tamperOne boots the replica that is due with a tampered binary, shows that it gets no share, and then restores it.
func (d *demo) tamperOne(ctx context.Context) error {
	before, err := d.openRound(ctx)
	if err != nil {
		return err
	}
	id := before.Due[0]
	m := d.machines[id-1]
	m.crash()
	tampered := filepath.Join(d.scratch, "tampered")
	if err := tamper(d.program, tampered); err != nil {
		return err
	}
	if err := d.reboot(m, tampered); err != nil {
		return err
	}
	d.show.Event("replica %d reboots with a binary that somebody changed by one byte", id)
	from := d.load.meter.mark()
	after, err := d.awaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return err
	}
	now := after.Member(id)
	d.report.Tampered = Tampered{Replica: id, Admitted: now.HoldsShare, Reason: now.Status}
	if now.HoldsShare {
		return fmt.Errorf("replica %d was given a share of epoch %d with a tampered binary", id, after.Epoch)
	}
	d.step("tampered replica refused")
	d.show.Event("epoch %d has begun without it: %s", after.Epoch, now.Status)
	if to := d.load.meter.mark(); to.operations == from.operations {
		return fmt.Errorf("the service stood still while replica %d was refused", id)
	}
	return d.restore(ctx, m)
}

// restore boots the replica as it should be, and waits until it is admitted.
func (d *demo) restore(ctx context.Context, m *machine) error {
	began := time.Now()
	m.crash()
	before, err := d.openRound(ctx, m.id)
	if err != nil {
		return err
	}
	if err := d.reboot(m, d.program); err != nil {
		return err
	}
	after, err := d.awaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return err
	}
	now := after.Member(m.id)
	if !now.HoldsShare {
		return fmt.Errorf("replica %d was not admitted after it was restored: %s", m.id, now.Status)
	}
	if err := d.awaitVotes(ctx, m, after.Epoch); err != nil {
		return err
	}
	d.report.Restored = true
	d.step("restored replica admitted")
	d.show.Event("restored, it attests and is admitted to epoch %d, in %.1f s", after.Epoch, time.Since(began).Seconds())
	return nil
}

// crashDuringRecovery crashes a replica without warning while another one is in recovery: f + c away, no more is promised. Both come back.
func (d *demo) crashDuringRecovery(ctx context.Context) error {
	before, err := d.openRound(ctx)
	if err != nil {
		return err
	}
	due := d.machines[before.Due[0]-1]
	other := d.machines[d.anotherLeader(before, due.id)-1]
	due.crash()
	other.crash()
	d.show.Event("replica %d is down for its recovery, and replica %d crashes: %d of %d are left, a quorum is %d",
		due.id, other.id, d.options.Size.N()-2, d.options.Size.N(), d.options.Size.Quorum())
	from := d.load.meter.mark()
	if err := d.pass(ctx, 3*time.Second); err != nil {
		return err
	}
	var away rate
	away.add(from, d.load.meter.mark())
	if away.operations == 0 {
		return fmt.Errorf("the service stood still while replicas %d and %d were down", due.id, other.id)
	}
	d.report.SurvivedCrash = true
	d.step("two replicas down")
	d.show.Event("the service goes on: %.0f operations a second", away.perSecond())

	for _, m := range []*machine{other, due} {
		if err := d.reboot(m, d.program); err != nil {
			return err
		}
	}
	after, err := d.awaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return err
	}
	for _, m := range []*machine{due, other} {
		if now := after.Member(m.id); !now.HoldsShare {
			return fmt.Errorf("replica %d did not come back: %s", m.id, now.Status)
		}
		if err := d.awaitVotes(ctx, m, after.Epoch); err != nil {
			return err
		}
	}
	d.show.Event("both are back in epoch %d", after.Epoch)
	return nil
}

// anotherLeader names a replica that leads in this epoch: its crash is the one that hurts most.
func (d *demo) anotherLeader(v *sight, not bft.ReplicaID) bft.ReplicaID {
	for _, id := range v.Leaders {
		if id != not {
			return id
		}
	}
	return not%bft.ReplicaID(d.options.Size.N()) + 1
}
