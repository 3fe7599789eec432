package load

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reseal-bft/reseal/internal/progress"
)

// judged is how long porcupine may take.
const judged = 2 * time.Minute

// Options are how a run is done.
type Options struct {
	Plan Plan
	// Stores are the clients, as many as the plan has.
	Stores []Store
	// Check has porcupine judge what the clients saw.
	Check bool
	// Show tells how the run gets on.
	Show *progress.Display
}

// Interval is the length of the samples of a run: a second, or more for a long one, so that no
// report has more than some hundreds.
func Interval(duration time.Duration) time.Duration {
	for _, interval := range []time.Duration{time.Second, 10 * time.Second, time.Minute} {
		if duration <= 600*interval {
			return interval
		}
	}
	return 10 * time.Minute
}

// Run does what the plan says and reports what came of it. The error is of the run itself: what the
// cluster failed at, [Report.Failed] tells.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.Plan.Validate(); err != nil {
		return nil, err
	}
	if o.Check && o.Plan.Values.From < numbered {
		return nil, fmt.Errorf("--check tells values apart by %d bytes of them: choose --values of at least that", numbered)
	}
	if o.Check && o.Plan.Keys == 0 {
		return nil, errors.New("--check judges keys that clients share: choose --keys")
	}
	working, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	meter := NewMeter(Interval(o.Plan.Duration))
	watch := meter.Note
	var history *History
	if o.Check {
		history = NewHistory(func() { stop(fmt.Errorf("the history is full at %d operations: the run ended early", maxHistory)) })
		watch = func(r *Request) { meter.Note(r); history.Note(r) }
	}
	g := &Generator{
		Plan: o.Plan, Stores: o.Stores, Prefix: "load/" + rand.Text()[:8] + "/",
		Watch: func(r *Request) {
			if r.Err != nil && working.Err() != nil {
				r.Err = working.Err() // it was given up
				if history != nil {
					history.Note(r)
				}
				return
			}
			watch(r)
		},
	}
	done := make(chan struct{})
	go func() { defer close(done); g.Run(working) }()
	tell(o.Show, meter, o.Plan.Duration, done)
	report := meter.Report()
	report.Plan = o.Plan
	if working.Err() != nil {
		report.Interrupted = context.Cause(working).Error()
		if ctx.Err() != nil {
			report.Interrupted = "interrupted before its time"
		}
	}
	if history != nil && ctx.Err() == nil {
		o.Show.Bar(1, 1, "reading back what was written")
		if err := readBack(ctx, g, history); err != nil {
			return nil, fmt.Errorf("read back what was written: %w", err)
		}
		o.Show.Bar(1, 1, "porcupine judges the history")
		verdict := history.Judge(judged)
		report.Check = &verdict
	}
	return report, nil
}

// tell shows how a run gets on until it is done.
func tell(show *progress.Display, meter *Meter, duration time.Duration, done <-chan struct{}) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	began := time.Now()
	for told := began; ; {
		select {
		case <-done:
			return
		case now := <-ticker.C:
			recent := meter.Lately(now)
			line := fmt.Sprintf("%.0f operations a second, p50 %.1f ms, p99 %.1f ms, %d failed", recent.PerSecond,
				float64(recent.Median.Microseconds())/1000, float64(recent.P99.Microseconds())/1000, recent.Failed)
			show.Bar(int(now.Sub(began).Seconds()), int(duration.Seconds()), "%s", line)
			if now.Sub(told) >= 10*time.Second {
				told = now
				show.Event("%s", line)
			}
		}
	}
}

// readBack reads every key that was written once more, so that the history shows whether a write
// was lost.
func readBack(ctx context.Context, g *Generator, history *History) error {
	keys := history.Keys()
	at := min(maxReadBack, max(1, maxReadBackBytes/max(1, g.Plan.Values.To)))
	work := make(chan []uint64)
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range g.clients {
		group.Go(func() error {
			for chunk := range work {
				if err := g.readAgain(ctx, c, chunk, history); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(work)
		for chunk := range slices.Chunk(keys, at) {
			select {
			case work <- chunk:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return group.Wait()
}

// Bounds of one request that reads back: keys, and the bytes of their values.
const (
	maxReadBack      = 256
	maxReadBackBytes = 4 << 20
)

func (g *Generator) readAgain(ctx context.Context, c *user, keys []uint64, history *History) error {
	r := &Request{Client: c.number, Sent: time.Now()}
	for _, key := range keys {
		r.Keys = append(r.Keys, g.key(key))
		r.touched = append(r.touched, touch{key: key})
	}
	var err error
	if r.Values, err = c.store.Get(ctx, r.Keys); err == nil {
		err = g.look(r)
	}
	r.Done = time.Now()
	if err == nil {
		history.Note(r)
	}
	return err
}
