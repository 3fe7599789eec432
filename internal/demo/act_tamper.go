package demo

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// tamperOne boots a replica that is due with a tampered binary, shows that it gets no share, and then restores it.
func (d *demo) tamperOne(ctx context.Context) error {
	before, err := d.openRound(ctx)
	if err != nil {
		return err
	}
	due := d.machinesOf(before.Due)
	for _, m := range due {
		m.crash()
	}
	m := due[0]
	tampered := filepath.Join(d.scratch, "tampered")
	if err := tamper(d.program, tampered); err != nil {
		return err
	}
	if err := d.rebootWith(m, tampered); err != nil {
		return err
	}
	if err := d.reboot(due[1:]...); err != nil {
		return err
	}
	d.show.Event("replica %d reboots with a binary that somebody changed by one byte", m.id)
	from := d.load.meter.mark()
	after, err := d.awaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return err
	}
	now := after.Member(m.id)
	d.report.Tampered = Tampered{Replica: m.id, Admitted: now.HoldsShare, Reason: now.Status}
	if now.HoldsShare {
		return fmt.Errorf("replica %d was given a share of epoch %d with a tampered binary", m.id, after.Epoch)
	}
	d.step("tampered replica refused")
	d.show.Event("epoch %d has begun without it: %s", after.Epoch, now.Status)
	if to := d.load.meter.mark(); to.operations == from.operations {
		return fmt.Errorf("the service stood still while replica %d was refused", m.id)
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
	if err := d.reboot(m); err != nil {
		return err
	}
	after, err := d.awaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return err
	}
	if err := d.awaitBack(ctx, m, after); err != nil {
		return err
	}
	d.report.Restored = true
	d.step("restored replica admitted")
	d.show.Event("restored, it attests and is admitted to epoch %d, in %.1f s", after.Epoch, time.Since(began).Seconds())
	return nil
}
