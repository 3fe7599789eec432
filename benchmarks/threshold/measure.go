package threshold

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of the repetitions of one measurement.
const (
	minRepetitions = 3
	maxRepetitions = 101
	enough         = 300 * time.Millisecond // spent on one measurement, once it has minRepetitions
)

// cpuTime is the processor time that the process has used. Unlike the time of day it does not count what
// other processes take on a shared machine.
func cpuTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic(err) // every Linux has this clock
	}
	return time.Duration(t.Nano())
}

// meter measures operations until its context ends or one of them fails.
type meter struct {
	ctx context.Context
	err error
}

// median returns the median processor time of op in microseconds.
func (m *meter) median(op func() error) float64 {
	if m.err != nil {
		return 0
	}
	if m.err = op(); m.err != nil { // warms caches
		return 0
	}
	var times []time.Duration
	var total time.Duration
	for len(times) < minRepetitions || total < enough && len(times) < maxRepetitions {
		if m.err = m.ctx.Err(); m.err != nil {
			return 0
		}
		start := cpuTime()
		err := op()
		elapsed := cpuTime() - start
		if m.err = err; err != nil {
			return 0
		}
		times = append(times, elapsed)
		total += elapsed
	}
	slices.Sort(times)
	return microseconds(times[len(times)/2])
}

func microseconds(d time.Duration) float64 {
	return float64(d.Round(100*time.Nanosecond)) / float64(time.Microsecond)
}
