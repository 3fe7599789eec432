package drill

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/load"
)

// Soak is a drill of a length that is chosen: a cluster at four fifths of what it bears, with a
// client of each bad kind beside it, kills and recovery rounds; in the end memory, disk, handles
// and goroutines are where they were. It is none of those that [All] lists.
func Soak(duration time.Duration) Drill {
	return Drill{
		Name: "soak", keystore: cluster.File, size: bft.Size{F: 1, C: 1}, untraced: true,
		Summary: fmt.Sprintf("%v under load, with kills, rounds and a client of each bad kind: nothing grows", duration),
		play:    func(ctx context.Context, r *Rehearsal) error { return r.soak(ctx, duration) },
	}
}

// How often things happen in a soak: often enough for ten minutes to have some of each.
const (
	sampleEvery = 5 * time.Second
	killEvery   = time.Minute
	downFor     = 10 * time.Second
	roundEvery  = 4 * time.Minute
)

// soaked is the load of a soak: a state that does not grow.
var soaked = load.Plan{Clients: 8, Reads: 0.5, Values: load.Range{From: 64, To: 4 << 10}, Envelope: load.Exactly(8), Keys: 5000, Timeout: 2 * time.Minute}

func (r *Rehearsal) soak(ctx context.Context, duration time.Duration) error {
	stores, closeStores, err := r.strangers(soaked.Clients)
	if err != nil {
		return err
	}
	defer closeStores()
	plan := soaked
	plan.Duration = 20 * time.Second
	best, err := load.Run(ctx, load.Options{Plan: plan, Stores: stores, Show: r.Show})
	if err := errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	plan.Rate = 0.8 * (best.Reads.PerSecond + best.Writes.PerSecond)
	plan.Duration = duration
	r.Show.Event("at best %.0f operations a second: %.0f of them for %v", best.Reads.PerSecond+best.Writes.PerSecond, plan.Rate, duration)

	working, stop := context.WithCancel(ctx)
	defer stop()
	var group errgroup.Group
	for _, bad := range []func(context.Context, *Rehearsal) error{greed, silence, hugeReads, oneShots} {
		group.Go(func() error { return bad(working, r) })
	}
	var report *load.Report
	done := make(chan struct{})
	group.Go(func() (err error) {
		defer close(done)
		report, err = load.Run(working, load.Options{Plan: plan, Stores: stores, Show: r.Show})
		return err
	})
	series, err := r.disturb(working, done)
	stop()
	if err := errors.Join(err, group.Wait()); err != nil {
		return err
	}
	r.Check(report.Reads.Failed+report.Writes.Failed == 0, "every operation of the well-behaved clients was answered", "%s%s", inWords(report), failure(report))
	return r.flat(ctx, series)
}

// disturb kills replicas in turn and orders rounds until the load is done, and takes samples.
func (r *Rehearsal) disturb(ctx context.Context, done <-chan struct{}) (series []sample, err error) {
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	killed, rounds := time.Now(), time.Now()
	for next := 0; ; {
		select {
		case <-done:
			return series, nil
		case <-ctx.Done():
			return series, ctx.Err()
		case <-ticker.C:
		}
		switch {
		case time.Since(rounds) >= roundEvery:
			rounds, killed = time.Now(), time.Now()
			before, after, err := r.recover(ctx, r.Machines[next%len(r.Machines)].ID)
			if err != nil {
				return series, err
			}
			next++
			r.Show.Event("epoch %d after %d", after.Epoch, before.Epoch)
		case time.Since(killed) >= killEvery:
			killed = time.Now()
			m := r.Machines[next%len(r.Machines)]
			next++
			m.Crash()
			if err := r.Pass(ctx, downFor); err != nil {
				return series, err
			}
			if err := m.Boot(r.Program, r.Program); err != nil {
				return series, err
			}
			if _, err := r.Await(ctx, "every replica votes", r.everybody); err != nil {
				return series, err
			}
		default:
			s, err := r.sample(ctx)
			if err != nil {
				return series, err
			}
			series = append(series, s)
		}
	}
}

// sample is what the replicas take: of each measure the most that one of them does.
type sample struct{ memoryMiB, diskMiB, handles, goroutines int64 }

func (r *Rehearsal) sample(ctx context.Context) (s sample, err error) {
	seen, err := r.Control.Look(ctx)
	if err != nil {
		return s, nil //nolint:nilerr // too busy to say: the next sample tells more
	}
	for _, m := range r.Machines {
		pid, err := processOf(m.Dir)
		if err != nil {
			return s, err
		}
		memory, err := memoryMiB(pid, "VmRSS:")
		if err != nil {
			return s, err
		}
		handles, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return s, err
		}
		disk, err := sizeMiB(m.Dir.Store())
		if err != nil {
			return s, err
		}
		s.memoryMiB, s.diskMiB, s.handles = max(s.memoryMiB, memory), max(s.diskMiB, disk), max(s.handles, int64(len(handles)))
		if info := seen.Replicas[m.ID-1].Info; info != nil {
			s.goroutines = max(s.goroutines, int64(info.Goroutines))
		}
	}
	return s, nil
}

// sizeMiB is the size of a directory's files. Files come and go meanwhile.
func sizeMiB(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = e.Info(); err == nil {
				total += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	})
	return total >> 20, err
}

// crowd is how many connections of clients and handshakes a replica has at most. Bad clients make as
// many as they get in, now more and now less of them: a leak shows when they are gone.
const crowd = 1024 + 256

// flat compares the last third of a series with the middle one: in the first one caches fill.
func (r *Rehearsal) flat(ctx context.Context, series []sample) error {
	third := len(series) / 3
	if third == 0 {
		return errors.New("the soak was too short to say what grows")
	}
	was, is := most(series[third:2*third]), most(series[2*third:])
	limit := cluster.DefaultConfig.MemoryLimitMiB
	r.Check(is.memoryMiB <= min(limit, was.memoryMiB*5/4+64), "memory is flat", "%d MiB, before that %d, of %d", is.memoryMiB, was.memoryMiB, limit)
	r.Check(is.diskMiB <= was.diskMiB*5/4+64, "the disk is flat", "%d MiB, before that %d", is.diskMiB, was.diskMiB)
	r.Check(is.handles <= max(was.handles*5/4+50, crowd+300), "handles are flat", "%d, before that %d", is.handles, was.handles)
	r.Check(is.goroutines <= max(was.goroutines*5/4+200, 2*crowd), "goroutines are flat", "%d, before that %d", is.goroutines, was.goroutines)
	if err := r.Pass(ctx, 30*time.Second); err != nil {
		return err
	}
	rest, err := r.sample(ctx)
	r.Check(rest.goroutines < 1000 && rest.handles < 300, "what bad clients held is let go", "%d goroutines and %d handles half a minute after them", rest.goroutines, rest.handles)
	return err
}

func most(series []sample) (s sample) {
	for _, x := range series {
		s.memoryMiB, s.diskMiB = max(s.memoryMiB, x.memoryMiB), max(s.diskMiB, x.diskMiB)
		s.handles, s.goroutines = max(s.handles, x.handles), max(s.goroutines, x.goroutines)
	}
	return s
}
