package demo

import (
	"context"

	"github.com/reseal-bft/reseal/internal/stage"
)

// settle ends the load, reads every acknowledged write back, and closes the account. At last it
// resets the machines, each in its approved state, to show that not even then a TPM opens a share
// that is over.
func (d *demo) settle(ctx context.Context) error {
	total, lost, err := d.StopLoad(ctx)
	if err != nil {
		return err
	}
	view, err := d.Await(ctx, "the cluster tells its state", func(v *stage.Sight) bool { return v.GroupKey != "" })
	if err != nil {
		return err
	}
	r := &d.report
	r.Acknowledged, r.Lost, r.GroupKeyAfter, r.Epochs = total, lost, view.GroupKey, int(view.Epoch)
	r.UnverifiedReplies = int(d.Control.Witness.Refused.Load())
	r.OperationsPerSecond, r.OperationsPerSecondDuringRecovery = d.quiet.PerSecond(), d.healing.PerSecond()
	r.LongestGapMS = d.Load.Meter.LongestGap().Milliseconds()
	d.Show.Event("lost: %d; replies that did not verify: %d; the group key is %s", lost, r.UnverifiedReplies,
		yes(r.GroupKeyBefore == r.GroupKeyAfter, "the same as at the start", "ANOTHER"))
	for _, o := range d.offers {
		if err := o.play(ctx, d); err != nil {
			return err
		}
	}
	return nil
}
