package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/client"
	"github.com/reseal-bft/reseal/internal/cluster"
)

// startCluster makes the keystores and the genesis, starts every replica as a process of its own, and waits until they have generated the
// group key among themselves.
func (d *demo) startCluster(ctx context.Context) error {
	size := d.options.Size
	d.show.Event("n=%d replicas: f=%d may be Byzantine while c=%d more are down; a quorum is %d", size.N(), size.F, size.C, size.Quorum())
	d.step("making keystores")
	if err := d.makeCluster(ctx); err != nil {
		return err
	}
	for id := bft.ReplicaID(1); int(id) <= size.N(); id++ {
		m, err := plugIn(ctx, &d.group, id, d.dir.Replica(id))
		if m != nil {
			d.machines = append(d.machines, m)
		}
		if err != nil {
			return err
		}
	}
	for _, m := range d.machines {
		if err := m.boot(d.program, d.program); err != nil {
			return err
		}
	}
	d.show.Event("started %d processes%s; mutual TLS under their identities", len(d.machines),
		yes(d.hasTPMs(), ", each measured into PCR 14 of its TPM before it ran", ""))
	d.step("generating the group key")
	return d.awaitGroupKey(ctx)
}

// makeCluster copies the program, so that what is measured stays what runs, and makes the cluster for it.
func (d *demo) makeCluster(ctx context.Context) (err error) {
	d.program = filepath.Join(d.scratch, "reseal")
	text, err := os.ReadFile(d.options.Program)
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.program, text, 0o700); err != nil {
		return err
	}
	_, err = cluster.Create(ctx, cluster.Plan{
		Dir: d.dir, Size: d.options.Size, Keystore: d.options.Keystore, Binary: d.program, Config: cluster.DefaultConfig, Rand: rand.Reader,
		RoundDeadline: roundDeadline,
	})
	if err != nil {
		return err
	}
	switch d.options.Keystore {
	case cluster.SWTPM:
		d.show.Event("made %d software TPMs with certified endorsement keys; identity and attestation keys are in them", d.options.Size.N())
	case cluster.SoftHSM:
		d.show.Event("keys are in %d SoftHSM tokens; nothing can be attested: a recovery proves possession of the identity key alone", d.options.Size.N())
	case cluster.File:
		d.show.Event("keys are in passphrase files: no hardware protects them, and nothing can be attested")
	}
	return nil
}

// awaitGroupKey waits for epoch 1, whose certificates are under the generated group key.
func (d *demo) awaitGroupKey(ctx context.Context) error {
	began := time.Now()
	err := d.until(ctx, "the replicas answer", func(ctx context.Context) (done bool, err error) {
		d.control, err = connect(ctx, d.dir)
		if errors.Is(err, client.ErrNoGroupKey) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return err
	}
	seen, err := d.await(ctx, "the replicas generate the group key", func(v *sight) bool {
		return v.Epoch >= 1 && v.GroupKey != "" && holders(v) >= d.options.Size.Quorum()
	})
	if err != nil {
		return err
	}
	d.report.GroupKeyBefore = seen.GroupKey
	d.show.Event("group key %s... generated in %.1f s; no dealer, and nobody has ever held its secret", seen.GroupKey[:16], time.Since(began).Seconds())
	return nil
}

// holders counts the members with a share.
func holders(v *sight) int {
	count := 0
	for _, m := range v.Members {
		if m.HoldsShare {
			count++
		}
	}
	return count
}

// roundDeadline is the time that a replica has to reboot and attest: on this machine it takes a second.
const roundDeadline = 30 * time.Second

// patience bounds every wait of the demonstration.
const patience = 90 * time.Second

// await waits until the state that f + 1 replicas agree on is as wanted.
func (d *demo) await(ctx context.Context, what string, wanted func(*sight) bool) (seen *sight, err error) {
	err = d.until(ctx, what, func(ctx context.Context) (bool, error) {
		var blind error // nothing to see yet
		seen, blind = d.control.look(ctx)
		return blind == nil && wanted(seen), nil
	})
	return seen, err
}

// until tries something until it is done, has failed, or time is up. It ends early when a replica that should run dies.
func (d *demo) until(ctx context.Context, what string, try func(context.Context) (done bool, err error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("waited in vain until "+what))
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		if done, err := try(ctx); done || err != nil {
			return err
		}
		for _, m := range d.machines {
			if m.died() != nil {
				return errDied
			}
		}
		select {
		case <-ticker.C:
			d.refresh()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
