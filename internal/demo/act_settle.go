package demo

import (
	"context"
)

// settle ends the load, reads every acknowledged write back, and closes the account.
func (d *demo) settle(ctx context.Context) error {
	d.load.meter.stop()
	d.stopLoad()
	if err := d.loads.Wait(); err != nil {
		return err
	}
	var readers []store
	for _, c := range d.clients {
		readers = append(readers, c)
	}
	total := d.load.ledger.count()
	d.show.Event("reading back %d acknowledged writes", total)
	lost, err := d.load.readBack(ctx, readers, func(read int) { d.show.Bar(read, total, "read back") })
	if err != nil {
		return err
	}
	view, err := d.await(ctx, "the cluster tells its state", func(v *sight) bool { return v.GroupKey != "" })
	if err != nil {
		return err
	}
	r := &d.report
	r.Acknowledged, r.Lost, r.GroupKeyAfter, r.Epochs = total, lost, view.GroupKey, int(view.Epoch)
	r.UnverifiedReplies = int(d.control.witness.refused.Load())
	r.OperationsPerSecond, r.OperationsPerSecondDuringRecovery = d.quiet.perSecond(), d.healing.perSecond()
	r.LongestGapMS = d.load.meter.longestGap().Milliseconds()
	d.show.Event("lost: %d; replies that did not verify: %d; the group key is %s", lost, r.UnverifiedReplies,
		yes(r.GroupKeyBefore == r.GroupKeyAfter, "the same as at the start", "ANOTHER"))
	return nil
}
