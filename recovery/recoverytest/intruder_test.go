//go:build !race

// The intruder reads a process's memory while the process goes on: what he sees may be half written, and the race detector rightly says so.

package recoverytest_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/reseal-bft/reseal/recovery/recoverytest"
	"github.com/reseal-bft/reseal/recovery/recoverytest/devices"
)

var (
	kind  = flag.String("keystore", "file", "the intruder plays on "+devices.Kinds)
	seeds = flag.Uint64("seeds", 4, "how many seeds the intruder plays")
	first = flag.Uint64("seed", 1, "the first seed")
	at    = flag.Int("at-once", 4, "how many seeds are played at a time: a seed waits more than it works")
)

// replay says how to see a seed again.
func replay(plan recoverytest.Plan) string {
	return fmt.Sprintf("%vreplay: make intruder KEYSTORE=%s SEED=%d SEEDS=1", plan, *kind, plan.Seed)
}

func TestIntruderGetsNothingThatOutlivesItsEpoch(t *testing.T) {
	maker, err := devices.New(t.Context(), *kind, t.TempDir())
	require.NoError(t, err)
	play, start, played := newProgress(t), time.Now(), atomic.Uint64{}
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(*at)
	for seed := *first; seed < *first+*seeds && ctx.Err() == nil; seed++ {
		group.Go(func() error {
			fleet, err := maker.Fleet()
			if err != nil {
				return err
			}
			plan := recoverytest.NewPlan(seed)
			report, err := recoverytest.Run(ctx, plan, fleet, nil)
			if err != nil {
				return fmt.Errorf("%w\n%s", err, replay(plan))
			}
			if len(report.Findings) > 0 {
				return fmt.Errorf("%s\n%s", strings.Join(report.Findings, "\n"), replay(plan))
			}
			play.done(played.Add(1), report.Taken)
			return nil
		})
	}
	err = group.Wait()
	t.Logf("%d seeds on %s in %.0f s: %.0f an hour", played.Load(), *kind, time.Since(start).Seconds(), float64(played.Load())/time.Since(start).Hours())
	require.NoError(t, err)
}

// progress is a line now and then for who waits.
type progress struct {
	mu    sync.Mutex
	start time.Time
	told  time.Time
	taken int
}

func newProgress(*testing.T) *progress { now := time.Now(); return &progress{start: now, told: now} }

func (p *progress) done(played uint64, taken int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken += taken; time.Since(p.told) < 5*time.Second {
		return
	}
	p.told = time.Now()
	fmt.Fprintf(os.Stderr, "%6.0f s: %d of %d seeds, %d shares and parts taken, none of worth\n", time.Since(p.start).Seconds(), played, *seeds, p.taken)
}
