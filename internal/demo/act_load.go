package demo

import (
	"context"
)

// startLoad puts the input, and leaves clients behind that write and read until the last act.
func (d *demo) startLoad(ctx context.Context) error {
	if err := d.Recruit(d.options.Clients); err != nil {
		return err
	}
	if err := d.Load.PutInput(ctx, d.Clients[0], d.input); err != nil {
		return err
	}
	d.Show.Event("put %d files of %s", len(d.input), d.source)
	d.report.CertificateBytes = int(d.Control.Witness.Bytes.Load())
	d.Show.Event("each reply is checked under the group key alone: a certificate of %d bytes, the state root, the Merkle path", d.report.CertificateBytes)

	d.StartLoad(ctx)
	d.step("measuring undisturbed")
	from := d.Load.Meter.Mark()
	if err := d.Pass(ctx, d.options.Duration); err != nil {
		return err
	}
	d.quiet.Add(from, d.Load.Meter.Mark())
	d.Show.Event("%d clients: %.0f operations a second, written or read back, undisturbed", len(d.Clients), d.quiet.PerSecond())
	return nil
}
