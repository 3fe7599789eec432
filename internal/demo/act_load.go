package demo

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// startLoad puts the input, and leaves clients behind that write and read until the last act.
func (d *demo) startLoad(ctx context.Context) error {
	for i := range d.options.Clients {
		c, err := d.control.newClient()
		if err != nil {
			return fmt.Errorf("client %d: %w", i+1, err)
		}
		d.clients = append(d.clients, c)
	}
	if err := d.load.putInput(ctx, d.clients[0], d.input); err != nil {
		return err
	}
	d.show.Event("put %d files of %s", len(d.input), d.source)
	d.report.CertificateBytes = int(d.control.witness.bytes.Load())
	d.show.Event("each reply is checked under the group key alone: a certificate of %d bytes, the state root, the Merkle path", d.report.CertificateBytes)

	loading, stop := context.WithCancel(ctx)
	d.loads, d.loading = errgroup.WithContext(loading)
	d.stopLoad = stop
	d.load.meter.start()
	for i, c := range d.clients {
		d.loads.Go(func() error { return d.load.work(d.loading, fmt.Sprint(i+1), c) })
	}
	d.step("measuring undisturbed")
	from := d.load.meter.mark()
	if err := d.pass(ctx, d.options.Duration); err != nil {
		return err
	}
	d.quiet.add(from, d.load.meter.mark())
	d.show.Event("%d clients: %.0f operations a second, written or read back, undisturbed", len(d.clients), d.quiet.perSecond())
	return nil
}

// pass lets time pass, while the load runs.
func (d *demo) pass(ctx context.Context, span time.Duration) error {
	end := time.After(span)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-end:
			return nil
		case <-ticker.C:
			d.refresh()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
