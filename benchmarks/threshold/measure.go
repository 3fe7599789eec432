package threshold

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// How long the operations of one row are measured.
const (
	minRounds  = 3
	maxRounds  = 100
	enough     = 2 * time.Second      // of processor time for a row, once it has minRounds
	slice      = 2 * time.Millisecond // of an operation in one round: quick ones are repeated
	maxRepeats = 10                   // in one round
)

// meter measures the operations of one row in rounds: every operation in every round. So they meet the
// same neighbours on a shared machine, and their ratios can be trusted more than the numbers.
type meter struct{ tasks []*task }

type task struct {
	into  *float64
	op    func() error
	times []time.Duration
}

// time registers an operation; run writes the median of its processor time, in microseconds, to into.
func (m *meter) time(into *float64, op func() error) {
	m.tasks = append(m.tasks, &task{into: into, op: op})
}

// run measures what was registered. It returns the error of an operation, or of the context.
func (m *meter) run(ctx context.Context) error {
	begin := cpuTime()
	for round := range maxRounds {
		if round >= minRounds && cpuTime()-begin > enough {
			break
		}
		for _, t := range m.tasks {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := t.round(); err != nil {
				return err
			}
		}
	}
	for _, t := range m.tasks {
		slices.Sort(t.times)
		*t.into = microseconds(t.times[len(t.times)/2])
	}
	return nil
}

// round runs the operation once without and then with the clock, quick ones several times.
func (t *task) round() error {
	if err := t.op(); err != nil { // brings code and data back into the caches
		return err
	}
	var total time.Duration
	for n := 0; n < maxRepeats && total < slice; n++ {
		start := cpuTime()
		if err := t.op(); err != nil {
			return err
		}
		elapsed := cpuTime() - start
		t.times = append(t.times, elapsed)
		total += elapsed
	}
	return nil
}

// cpuTime is the processor time that the process has used. Unlike the time of day it does not count what
// other processes take on a shared machine.
func cpuTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic(err) // every Linux has this clock
	}
	return time.Duration(t.Nano())
}

func microseconds(d time.Duration) float64 {
	return float64(d.Round(100*time.Nanosecond)) / float64(time.Microsecond)
}
