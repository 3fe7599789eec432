package drill

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/internal/actor"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/stage"
)

// crashes are the drills of processes that are killed where it hurts.
var crashes = []Drill{
	{
		Name: "crash-at-every-step", keystore: cluster.SWTPM, actors: true, play: crashAtEveryStep, deadline: twoBoots,
		Summary: "a replica is killed before every step of a handoff in turn, first as one of the others, then as the one that is due: the epoch changes, and it votes in the next",
	},
}

// twoBoots is a deadline by which who is due may be killed and boot once more, also on a machine
// with much else to do.
const twoBoots = 80 * time.Second

// mostSteps bounds the steps of a handoff that are played: there are fewer.
const mostSteps = 100

func crashAtEveryStep(ctx context.Context, r *Rehearsal) error {
	m := r.Machines[1]
	m.MayDie = true
	for _, due := range []*stage.Machine{r.Machines[0], m} {
		as := "as one of the others"
		if due == m {
			as = "as the one that is due"
		}
		steps := 0
		for ; steps < mostSteps; steps++ {
			died, err := r.crashBefore(ctx, steps+1, m, due, as)
			if err != nil {
				return fmt.Errorf("step %d, %s: %w", steps+1, as, err)
			}
			if !died {
				break
			}
		}
		r.Check(0 < steps && steps < mostSteps, "every step was played "+as, "a handoff has %d", steps)
	}
	return nil
}

// crashBefore plays a round in which a replica is killed before a step. It reports whether the
// round had so many.
func (r *Rehearsal) crashBefore(ctx context.Context, step int, m, due *stage.Machine, as string) (died bool, err error) {
	before, err := r.OpenRound(ctx, due.ID)
	if err != nil {
		return false, err
	}
	if err := r.direct(m.ID, actor.Conduct{DiesBefore: step}); err != nil {
		return false, err
	}
	if due == m {
		err = r.actAgain(m)
	} else {
		if err := r.Pass(ctx, 100*time.Millisecond); err != nil { // it has heard
			return false, err
		}
		due.Crash()
		err = r.Reboot(due)
	}
	if err != nil {
		return false, err
	}
	words, died, err := r.awaitDeath(ctx, m, before)
	if err != nil {
		return false, err
	}
	if err := r.direct(m.ID, actor.Conduct{}); err != nil || !died {
		return false, err
	}
	if err := r.actAgain(m); err != nil {
		return true, err
	}
	after, err := r.AwaitEpoch(ctx, before.Epoch+1)
	if err != nil {
		return true, err
	}
	now := after.Member(m.ID)
	if !now.HoldsShare {
		r.Check(false, words+", "+as, "it has no share of epoch %d: %s", after.Epoch, now.Status)
		return true, nil
	}
	if err := r.AwaitBack(ctx, m, after); err != nil {
		return true, err
	}
	r.Check(after.GroupKey == before.GroupKey, words+", "+as, "it votes in epoch %d, with a share of the same key", after.Epoch)
	_, err = r.Await(ctx, "every replica votes", r.everybody)
	return true, err
}

// actAgain reboots a machine into its actor.
func (r *Rehearsal) actAgain(m *stage.Machine) error {
	m.Crash()
	if err := m.PowerCycle(); err != nil {
		return err
	}
	return m.Act(r.Program, r.conduct(m.ID))
}

// lastSteps is how long a replica that votes in the new epoch has for what is left to do of the handoff.
const lastSteps = 2 * time.Second

// awaitDeath waits until a replica is killed; or until it has the handoff behind it.
func (r *Rehearsal) awaitDeath(ctx context.Context, m *stage.Machine, before *stage.Sight) (words string, died bool, err error) {
	dead := func() bool {
		if !died {
			words, died = m.Stopped()
		}
		return died
	}
	_, err = r.Await(ctx, "the handoff is over, or the replica is killed", func(v *stage.Sight) bool {
		return dead() || v.Votes(m.ID, before.Epoch+1)
	})
	for end := time.Now().Add(lastSteps); err == nil && !dead() && time.Now().Before(end); {
		err = r.Pass(ctx, lastSteps/10)
	}
	if at := strings.LastIndex(words, "step "); at >= 0 {
		words = "killed at " + words[at:]
	}
	return words, died, err
}
