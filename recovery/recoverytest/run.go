package recoverytest

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/file"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// Report is what came of a plan.
type Report struct {
	Plan Plan
	// Findings are what the intruder achieved, sorted: none in a correct cluster.
	Findings []string
	// Taken counts what it took: shares, and parts of dealings.
	Taken int
}

// Run plays a plan on devices, one for each replica. An error says that the cluster did not do what the plan asks of it. A nil log discards.
func Run(ctx context.Context, plan Plan, devices []Device, log *slog.Logger) (*Report, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c, err := newCluster(ctx, plan, devices, log)
	if c != nil {
		defer c.close()
	}
	if err != nil {
		return nil, fmt.Errorf("the cluster does not begin: %w", err)
	}
	x := newIntruder(c)
	report := &Report{Plan: plan}
	for _, t := range plan.Turns {
		if err := x.turn(ctx, t); err != nil {
			return nil, fmt.Errorf("epoch %d: %w", c.view().Epoch, err)
		}
		if report.Findings = x.found(); len(report.Findings) > 0 {
			break
		}
	}
	slices.Sort(report.Findings)
	report.Taken = len(x.loot.shares) + len(x.loot.parts)
	return report, nil
}

// turn plays one epoch and the handoff that ends it.
func (x *intruder) turn(ctx context.Context, t Turn) error {
	c := x.c
	epoch := c.view().Epoch
	due := c.lacking()
	if err := x.remember(); err != nil {
		return err
	}
	if t.Enter != 0 {
		if err := x.enter(t.Enter, t.Plants); err != nil {
			return err
		}
	}
	if err := x.prepare(ctx, t); err != nil {
		return err
	}
	if !slices.Contains(due, t.Recovers) {
		due = append(due, t.Recovers)
	}
	reboot := slices.Clone(due)
	if t.Mishap == MissesDeadline && !slices.Contains(due, t.Whom) {
		due = append(due, t.Whom)
	}
	slices.Sort(due)
	if err := c.order(ctx, &governance.StartRound{Due: due}); err != nil {
		return err
	}
	if err := c.rebootAll(ctx, reboot); err != nil {
		return err
	}
	if !t.Stays {
		x.at = 0
	}
	if t.Mishap == CrashesInHandoff {
		if err := x.crash(ctx, t.Whom, epoch); err != nil {
			return err
		}
	}
	raid, stop := context.WithTimeout(ctx, patience)
	defer stop()
	x.raid(raid, epoch)
	return x.judgeEpoch(ctx, t, epoch+1)
}

// prepare does what befalls others before the round.
func (x *intruder) prepare(ctx context.Context, t Turn) error {
	for _, m := range x.c.view().Members {
		if m.Quarantined {
			if err := x.c.order(ctx, &governance.Release{Replica: m.ID}); err != nil {
				return err
			}
		}
	}
	switch t.Mishap {
	case Quarantined:
		return x.c.order(ctx, &governance.Quarantine{Replica: t.Whom, Reason: "the plan"})
	case ComesBackLate:
		return x.c.stop(t.Whom)
	}
	return nil
}

// crash lets a replica crash while dealings are made.
func (x *intruder) crash(ctx context.Context, id bft.ReplicaID, epoch bft.Epoch) error {
	err := x.c.await(ctx, "dealings are made", func() bool {
		v := x.c.view()
		return v.Epoch > epoch || v.Phase == governance.PhaseDealing || v.Phase == governance.PhaseReady
	})
	if err != nil {
		return err
	}
	return x.c.reboot(ctx, id, true)
}

// judgeEpoch waits until an epoch has begun everywhere, and has the intruder try.
func (x *intruder) judgeEpoch(ctx context.Context, t Turn, epoch bft.Epoch) error {
	c := x.c
	if err := c.put(ctx, fmt.Sprint("in epoch ", epoch)); err != nil {
		return err
	}
	if err := c.settle(ctx, epoch); err != nil && !Mutated() {
		return err
	}
	if t.Mishap == ComesBackLate {
		if err := c.start(ctx, t.Whom); err != nil {
			return err
		}
		if err := c.settle(ctx, epoch); err != nil && !Mutated() {
			return err
		}
	}
	if err := x.remember(); err != nil {
		return err
	}
	if err := x.follow(epoch); err != nil {
		return err
	}
	x.probe(ctx)
	return nil
}

func (c *cluster) rebootAll(ctx context.Context, ids []bft.ReplicaID) error {
	for _, id := range ids {
		if err := c.reboot(ctx, id, false); err != nil {
			return err
		}
	}
	return nil
}

// Files returns devices that are directories of files: what they hold ends with nothing but their deletion.
func Files(dir string, n int) []Device {
	var out []Device
	for i := range n {
		out = append(out, files{filepath.Join(dir, fmt.Sprint("keystore", i+1))})
	}
	return out
}

type files struct{ dir string }

func (f files) options() keystore.Options {
	return keystore.NewOptions(keystore.WithPassphrase(keystore.NewSecret([]byte("correct horse"))), keystore.WithWorkFactor(8))
}

func (f files) Init(ctx context.Context) (keystore.Keystore, error) {
	return file.Init(ctx, "file:"+f.dir, f.options())
}

func (f files) Reboot(ctx context.Context) (keystore.Keystore, error) {
	return file.Open(ctx, "file:"+f.dir, f.options())
}
