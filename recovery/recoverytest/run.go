package recoverytest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/reseal-bft/reseal/bft"
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

// Run plays a plan on a fleet, which it closes. An error says that the cluster did not do what the
// plan asks of it. A nil log discards.
func Run(ctx context.Context, plan Plan, fleet Fleet, log *slog.Logger) (report *Report, err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c, err := newCluster(ctx, plan, fleet, log)
	defer func() {
		if c != nil {
			c.close()
		}
		if closed := fleet.Close(); err == nil && closed != nil {
			err = closed
		}
	}()
	if err != nil {
		return nil, fmt.Errorf("the cluster does not begin: %w", err)
	}
	x := newIntruder(c)
	report = &Report{Plan: plan}
	for _, t := range plan.Turns {
		failed := x.turn(ctx, t)
		if report.Findings = x.found(); len(report.Findings) > 0 {
			break // whatever else came of it
		}
		if failed != nil {
			return nil, errors.Join(fmt.Errorf("epoch %d: %w", c.view().Epoch, failed), x.unsettled)
		}
	}
	if x.unsettled != nil && len(report.Findings) == 0 {
		return nil, x.unsettled
	}
	report.Taken = len(x.loot.shares) + len(x.loot.parts)
	return report, nil
}

// turn plays one epoch and the handoff that ends it.
func (x *intruder) turn(ctx context.Context, t Turn) error {
	c := x.c
	epoch := c.view().Epoch
	if lapsed := c.lacking(); len(lapsed) > 0 && t.Mishap != CrashesInHandoff {
		t.Mishap = NoMishap // one that the plan does not know of, as a deadline was missed: a second one would leave a small cluster without a quorum
	}
	if err := x.remember(); err != nil {
		return err
	}
	for _, id := range t.Enter {
		if err := x.enter(ctx, id, t.Plants); err != nil {
			return err
		}
	}
	for id := range x.at {
		c.skews[id-1].Store(int64(t.Skew))
	}
	if err := x.meet(ctx, t); err != nil {
		return err
	}
	if err := x.prepare(ctx, t); err != nil {
		return err
	}
	due := c.lacking()
	if t.Recovers != 0 && !slices.Contains(due, t.Recovers) {
		due = append(due, t.Recovers)
	}
	reboot := slices.Clone(due)
	if t.Mishap == MissesDeadline && !slices.Contains(due, t.Whom) {
		due = append(due, t.Whom)
	}
	slices.Sort(due)
	for start := time.Now(); ; {
		if err := x.handoff(ctx, t, due, reboot); err != nil {
			return err
		}
		if c.view().Epoch > epoch {
			return x.judgeEpoch(ctx, t, epoch+1)
		}
		if time.Since(start) > c.patience {
			return fmt.Errorf("rounds led nowhere for %s, the last one: %s%s", time.Since(start).Round(time.Second), c.view().Note, c.describe())
		}
		// A busy machine may miss a short deadline, again and again: a round tells then of the
		// machine, and only the time tells of the cluster.
		t.Mishap = NoMishap
		c.cut[max(t.Whom, 1)-1].Store(false)
		t.Behind = 0
		c.reunite()
	}
}

// handoff has the due replicas recovered, and the intruder leave those that reboot; or the round is
// given up.
func (x *intruder) handoff(ctx context.Context, t Turn, due, reboot []bft.ReplicaID) error {
	c := x.c
	before := c.view()
	if err := c.order(ctx, &governance.StartRound{Due: due}); err != nil {
		return err
	}
	for _, id := range reboot {
		if err := x.leave(ctx, id); err != nil {
			return err
		}
	}
	if t.HasDealt && t.Behind != 0 {
		if err := x.leaveBehindInDealing(ctx, t.Behind, before); err != nil {
			return err
		}
	}
	if t.Mishap == CrashesInHandoff || t.Mishap == RestartsPlanted {
		if err := x.crash(ctx, t, before); err != nil {
			return err
		}
	}
	raid, stop := context.WithTimeout(ctx, c.patience)
	defer stop()
	x.raid(raid, before)
	return nil
}

// prepare does what befalls others before the round.
func (x *intruder) prepare(ctx context.Context, t Turn) error {
	c := x.c
	for _, m := range c.view().Members {
		if m.Quarantined {
			if err := c.order(ctx, &governance.Release{Replica: m.ID}); err != nil {
				return err
			}
		}
	}
	if t.Revokes {
		order, err := c.fleet.Revocation(c.view())
		if err != nil || order == nil {
			return err
		}
		x.revoked = true
		if err := c.order(ctx, order); err != nil {
			return err
		}
	}
	switch t.Mishap {
	case Quarantined:
		return c.order(ctx, &governance.Quarantine{Replica: t.Whom, Reason: "the plan"})
	case ComesBackLate:
		return c.stop(t.Whom)
	case CutOff:
		c.cut[t.Whom-1].Store(true)
	}
	if t.Behind != 0 && !t.HasDealt {
		return x.leaveBehind(ctx, t.Behind)
	}
	return nil
}

// leave drives the intruder out of a replica that is due, if it is there.
func (x *intruder) leave(ctx context.Context, id bft.ReplicaID) error {
	c := x.c
	if c.view().Member(id).Device != nil { // who restarts at once shows first which boot it was in when it became due
		err := c.await(ctx, fmt.Sprintf("replica %d has shown its boot", id), func() bool {
			m := c.view().Member(id)
			return m.Awaited.Shown && m.Device.RevocationReached
		})
		if err != nil && !c.view().Member(id).Awaited.Shown {
			return err // else its TPM does not refuse what was revoked, which the intruder finds out
		}
	}
	off := func() error {
		c.taken[id-1].Store(false)
		return x.misboot(ctx, id)
	}
	if err := c.reboot(ctx, id, false, off); err != nil {
		return err
	}
	delete(x.at, id)
	return nil
}

// crash lets a replica crash while dealings are made. It does not when the round was given up before.
func (x *intruder) crash(ctx context.Context, t Turn, before *governance.View) error {
	err := x.c.await(ctx, "dealings are made", func() bool {
		v := x.c.view()
		return over(v, before) || v.Phase == governance.PhaseDealing || v.Phase == governance.PhaseReady
	})
	if v := x.c.view(); err != nil || over(v, before) && v.Epoch == before.Epoch {
		return err
	}
	if t.Mishap == CrashesInHandoff {
		return x.c.reboot(ctx, t.Whom, true, nil)
	}
	return x.c.reboot(ctx, t.Whom, false, func() error { return x.plantShare(t.Whom, before.Epoch) })
}

// judgeEpoch waits until an epoch has begun everywhere, and has the intruder try.
func (x *intruder) judgeEpoch(ctx context.Context, t Turn, epoch bft.Epoch) error {
	c := x.c
	if err := c.put(ctx, fmt.Sprint("in epoch ", epoch)); err != nil {
		return err
	}
	c.cut[max(t.Whom, 1)-1].Store(false)
	// Where an epoch does not begin as it should, the intruder goes on, and tries all the more.
	x.unsettled = errors.Join(x.unsettled, c.settle(ctx, epoch))
	if t.Mishap == ComesBackLate {
		if err := c.reboot(ctx, t.Whom, false, nil); err != nil {
			return err
		}
		x.unsettled = errors.Join(x.unsettled, c.settle(ctx, epoch))
	}
	if err := x.remember(); err != nil {
		return err
	}
	if err := x.follow(epoch); err != nil {
		return err
	}
	x.probe(ctx)
	return x.tryDevices(ctx)
}
