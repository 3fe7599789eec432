package demo

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/reseal-bft/reseal/internal/stage"
)

// tamperOne boots a replica that is due with a tampered binary, shows that its own TPM refuses it
// the keys, so that it neither attests nor gets a share, and then restores it.
func (d *demo) tamperOne(ctx context.Context) error {
	before, err := d.OpenRound(ctx)
	if err != nil {
		return err
	}
	due := d.MachinesOf(before.Due)
	for _, m := range due {
		m.Crash()
	}
	m := due[0]
	tampered := filepath.Join(d.Scratch, "tampered")
	if err := stage.Tamper(d.Program, tampered); err != nil {
		return err
	}
	if err := d.RebootWith(m, tampered); err != nil {
		return err
	}
	if err := d.Reboot(due[1:]...); err != nil {
		return err
	}
	d.Show.Event("replica %d reboots with a binary that somebody changed by one byte", m.ID)
	from := d.Load.Meter.Mark()
	lastWords, err := m.AwaitStop(ctx)
	if err != nil {
		return err
	}
	d.Show.Event("its own TPM refuses it the keys, and it stops; the others wait for its evidence until the deadline")
	after, err := d.AwaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return err
	}
	now := after.Member(m.ID)
	d.report.Tampered = Tampered{Replica: m.ID, Admitted: now.HoldsShare, Reason: lastWords}
	if now.HoldsShare {
		return fmt.Errorf("replica %d was given a share of epoch %d with a tampered binary", m.ID, after.Epoch)
	}
	d.step("tampered replica refused")
	d.Show.Event("epoch %d has begun without it: %s", after.Epoch, now.Status)
	if to := d.Load.Meter.Mark(); to.Operations == from.Operations {
		return fmt.Errorf("the service stood still while replica %d was refused", m.ID)
	}
	return d.restore(ctx, m)
}

// restore boots the replica as it should be, and waits until it is admitted, when it has proven
// that it was rebooted once more: whoever changed its binary may have been in this boot too.
func (d *demo) restore(ctx context.Context, m *stage.Machine) error {
	began := time.Now()
	m.Crash()
	if err := d.Reboot(m); err != nil {
		return err
	}
	_, err := d.Await(ctx, fmt.Sprintf("replica %d follows the log again", m.ID), func(v *stage.Sight) bool {
		info := v.Replicas[m.ID-1].Info
		return info != nil && info.Epoch == v.Epoch && info.View > 0 // in a view: it has caught up
	})
	if err != nil {
		return err
	}
	before, err := d.OpenRound(ctx, m.ID)
	if err != nil {
		return err
	}
	m.Crash()
	if err := d.Reboot(m); err != nil {
		return err
	}
	after, err := d.AwaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return err
	}
	if err := d.AwaitBack(ctx, m, after); err != nil {
		return err
	}
	d.report.Restored = true
	d.step("restored replica admitted")
	d.Show.Event("restored, it attests and is admitted to epoch %d, in %.1f s", after.Epoch, time.Since(began).Seconds())
	return nil
}
