package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/reseal-bft/reseal/internal/stage"
)

// outage is how long the replicas stay away.
const outage = 3 * time.Second

// crashDuringRecovery crashes f replicas without warning while c others are in recovery: no more
// are promised to be borne. All come back.
func (d *demo) crashDuringRecovery(ctx context.Context) error {
	before, err := d.OpenRound(ctx)
	if err != nil {
		return err
	}
	due := d.MachinesOf(before.Due)
	leaders := stage.LeadersBut(before.Leaders, before.Due)
	crashed := d.MachinesOf(leaders[:min(len(leaders), d.options.Size.F)])
	away := slices.Concat(crashed, due)
	for _, m := range away {
		m.Crash()
	}
	d.Show.Event("%s down for recovery, and %s: %d of %d are left, a quorum is %d", names(due, "is", "are"), names(crashed, "crashes", "crash"),
		d.options.Size.N()-len(away), d.options.Size.N(), d.options.Size.Quorum())
	if err := d.bearOutage(ctx); err != nil {
		return err
	}
	d.report.SurvivedCrash = true
	d.step(fmt.Sprintf("%d replicas down", len(away)))

	if err := d.Reboot(away...); err != nil {
		return err
	}
	after, err := d.AwaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return err
	}
	for _, m := range away {
		if err := d.AwaitBack(ctx, m, after); err != nil {
			return err
		}
	}
	d.Show.Event("all are back in epoch %d", after.Epoch)
	return nil
}

// bearOutage demands that operations are acknowledged while replicas are away.
func (d *demo) bearOutage(ctx context.Context) error {
	from := d.Load.Meter.Mark()
	if err := d.Pass(ctx, outage); err != nil {
		return err
	}
	var meanwhile stage.Rate
	meanwhile.Add(from, d.Load.Meter.Mark())
	if meanwhile.Operations == 0 {
		return errors.New("the service stood still while replicas were down")
	}
	d.Show.Event("the service goes on: %.0f operations a second", meanwhile.PerSecond())
	return nil
}

// names lists machines with the verb that fits their number.
func names(machines []*stage.Machine, one, more string) string {
	text, verb := "replica ", one
	if len(machines) > 1 {
		text, verb = "replicas ", more
	}
	for i, m := range machines {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprint(m.ID)
	}
	return text + " " + verb
}
