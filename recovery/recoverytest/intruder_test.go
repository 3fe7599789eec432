package recoverytest_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/recoverytest"
	"github.com/reseal-bft/reseal/recovery/recoverytest/devices"
)

var (
	kind  = flag.String("keystore", "file", "the intruder plays on "+devices.Kinds)
	seeds = flag.Uint64("seeds", 4, "how many seeds the intruder plays")
	first = flag.Uint64("seed", 1, "the first seed")
	at    = flag.Int("at-once", 4, "how many seeds are played at a time: a seed waits more than it works")
)

func TestIntruderGetsNothingThatOutlivesItsEpoch(t *testing.T) {
	maker, err := devices.New(t.Context(), *kind, t.TempDir(), *at)
	require.NoError(t, err)
	p := &progress{start: time.Now(), told: time.Now()}
	fails := func(plan recoverytest.Plan, err error) {
		t.Errorf("%v\n%vreplay: make intruder KEYSTORE=%s SEED=%d SEEDS=1", err, plan, *kind, plan.Seed)
	}
	var mu sync.Mutex
	var again []recoverytest.Plan // what came to no end, many at a time on a busy machine, is played alone
	var group errgroup.Group
	group.SetLimit(*at)
	for seed := *first; seed < *first+*seeds; seed++ {
		group.Go(func() error {
			plan := recoverytest.NewPlan(seed)
			report, err := play(t.Context(), maker, plan)
			switch {
			case err != nil:
				t.Logf("%v\n%vseed %d is played again", err, plan, plan.Seed)
				mu.Lock()
				defer mu.Unlock()
				again = append(again, plan)
			case len(report.Findings) > 0:
				fails(plan, errors.New(strings.Join(report.Findings, "\n")))
			default:
				p.done(report.Taken)
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	for _, plan := range again {
		report, err := play(t.Context(), maker, plan)
		if err == nil && len(report.Findings) > 0 {
			err = errors.New(strings.Join(report.Findings, "\n"))
		}
		if err != nil {
			fails(plan, err)
			continue
		}
		p.done(report.Taken)
	}
	took := time.Since(p.start)
	t.Logf("%d of %d seeds on %s held in %.0f s: %.0f seeds an hour", p.played, *seeds, *kind, took.Seconds(), float64(*seeds)/took.Hours())
}

// A machine that boots more slowly than a round waits makes rounds fail, not the judge: three in a
// row do, when two of four replicas are due and neither comes in time. When only the one is late
// that holds a share, there are enough to receive one, and too few to certify what is dealt.
func TestASlowMachineMakesNoFinding(t *testing.T) {
	for name, times := range map[string]int{"both late": 5, "a holder late": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			maker, err := devices.New(t.Context(), "file", t.TempDir(), 1)
			require.NoError(t, err)
			fleet, err := maker.Fleet()
			require.NoError(t, err)
			plan := recoverytest.Plan{F: 1, Turns: []recoverytest.Turn{{Mishap: recoverytest.MissesDeadline, Whom: 2}, {Recovers: 3}}}
			slow := &slowFleet{Fleet: fleet, times: times}
			report, err := recoverytest.Run(t.Context(), plan, slow, nil)
			require.NoError(t, err)
			require.Empty(t, report.Findings)
			require.Zero(t, slow.times, "the test has its effect")
		})
	}
}

// slowFleet has machines of which every second boot takes longer than the shortest deadline of
// rounds, so many times.
type slowFleet struct {
	recoverytest.Fleet
	times int
}

func (f *slowFleet) Reboot(ctx context.Context, id bft.ReplicaID) (keystore.Keystore, error) {
	if f.times > 0 {
		if f.times--; f.times%2 == 0 {
			select {
			case <-time.After(3500 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
	return f.Fleet.Reboot(ctx, id)
}

// play plays a plan on a new fleet.
func play(ctx context.Context, maker devices.Maker, plan recoverytest.Plan) (*recoverytest.Report, error) {
	fleet, err := maker.Fleet()
	if err != nil {
		return nil, err
	}
	return recoverytest.Run(ctx, plan, fleet, nil)
}

// progress is a line now and then for who waits.
type progress struct {
	mu            sync.Mutex
	start, told   time.Time
	played, taken int
}

func (p *progress) done(taken int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.played++
	if p.taken += taken; time.Since(p.told) < 5*time.Second {
		return
	}
	p.told = time.Now()
	fmt.Fprintf(os.Stderr, "%6.0f s: %d of %d seeds, %d shares and parts taken, none of worth\n", time.Since(p.start).Seconds(), p.played, *seeds, p.taken)
}
