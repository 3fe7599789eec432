package demo

import (
	"context"
	"time"

	"github.com/reseal-bft/reseal/internal/cluster"
)

// startCluster makes the keystores and the genesis, starts every replica as a process of its own,
// and waits until they have generated the group key among themselves.
func (d *demo) startCluster(ctx context.Context) error {
	size := d.options.Size
	d.Show.Event("n=%d replicas: f=%d may be Byzantine while c=%d more are down; a quorum is %d", size.N(), size.F, size.C, size.Quorum())
	d.step("making keystores")
	if err := d.Create(ctx); err != nil {
		return err
	}
	switch d.options.Keystore {
	case cluster.SWTPM:
		d.Show.Event("made %d software TPMs with certified endorsement keys; identity and attestation keys are in them", size.N())
	case cluster.SoftHSM:
		d.Show.Event("keys are in %d SoftHSM tokens; nothing can be attested: a recovery proves possession of the identity key alone", size.N())
	case cluster.File:
		d.Show.Event("keys are in passphrase files: no hardware protects them, and nothing can be attested")
	}
	if err := d.Boot(); err != nil {
		return err
	}
	d.Show.Event("started %d processes%s; mutual TLS under their identities", len(d.Machines),
		yes(d.hasTPMs(), ", each measured into PCR 14 of its TPM before it ran", ""))
	d.step("generating the group key")
	return d.awaitGroupKey(ctx)
}

// awaitGroupKey waits for epoch 1, whose certificates are under the generated group key.
func (d *demo) awaitGroupKey(ctx context.Context) error {
	began := time.Now()
	seen, err := d.AwaitGroupKey(ctx)
	if err != nil {
		return err
	}
	d.report.GroupKeyBefore = seen.GroupKey
	d.Show.Event("group key %s... generated in %.1f s; no dealer, and nobody has ever held its secret", seen.GroupKey[:16], time.Since(began).Seconds())
	return nil
}
