package sim

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// Report is what a campaign came to. Violations and Stuck count seeds and must be 0, except with a
// planted bug.
type Report struct {
	Seeds      int     `json:"seeds"`
	Views      int     `json:"views"`
	Blocks     int     `json:"blocks"`
	Epochs     int     `json:"epochs"`
	Steps      int     `json:"steps"`
	Violations int     `json:"violations"`
	Stuck      int     `json:"stuck"`
	FastRatio  float64 `json:"fast_path_ratio"`
	// SlowestMS is the longest virtual time, in milliseconds, from the end of the faults until all
	// was executed.
	SlowestMS int64   `json:"slowest_recovery_ms"`
	Hash      string  `json:"hash"`
	Seconds   float64 `json:"seconds"`
	Mutant    string  `json:"mutant,omitempty"`
	// Failures are the first few seeds that failed, in order.
	Failures []Failure `json:"failures,omitempty"`
}

// Failure is a seed that failed.
type Failure struct {
	Seed   uint64 `json:"seed"`
	Reason string `json:"reason"`
}

// maxFailures bounds the failures that a report holds.
const maxFailures = 10

// Campaign runs count seeds from the first on, each twice, on all processors. It ends early when
// the context does, and, with a planted bug, at the first seed that finds it. done is called after
// each seed, in order.
func Campaign(ctx context.Context, first uint64, count int, o Options, done func(Result)) (Report, error) {
	o, err := o.complete()
	if err != nil {
		return Report{}, err
	}
	plant(o.Mutant)
	start := time.Now()
	report := Report{Mutant: o.Mutant}
	hash, fast, slow := uint64(0), 0, 0
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for result := range inOrder(ctx, first, count, func(seed uint64) Result { return twice(seed, o) }) {
		report.add(result)
		hash = mix(hash ^ result.Hash)
		fast, slow = fast+result.Fast, slow+result.Slow
		if done != nil {
			done(result)
		}
		if o.Mutant != "" && result.failure() != "" {
			break
		}
	}
	report.Hash = fmt.Sprintf("%016x", hash)
	report.FastRatio = float64(fast) / float64(max(1, fast+slow))
	report.Seconds = time.Since(start).Seconds()
	return report, nil
}

// twice runs a seed two times. A run that is no function of its seed is a violation.
func twice(seed uint64, o Options) Result {
	result := run(seed, o)
	o.Trace = nil
	if again := run(seed, o); again.Hash != result.Hash {
		result.Violations = append(result.Violations, "two runs of the seed differ")
	}
	return result
}

func (r *Report) add(result Result) {
	r.Seeds++
	r.Views += result.Views
	r.Blocks += result.Blocks
	r.Epochs += result.Epochs
	r.Steps += result.Steps
	r.SlowestMS = max(r.SlowestMS, result.Recovered.Milliseconds())
	if len(result.Violations) > 0 {
		r.Violations++
	} else if result.Stuck != "" {
		r.Stuck++
	}
	if reason := result.failure(); reason != "" && len(r.Failures) < maxFailures {
		r.Failures = append(r.Failures, Failure{result.Seed, reason})
	}
}

// failure says why a seed failed, or nothing.
func (r *Result) failure() string {
	if len(r.Violations) > 0 {
		return r.Violations[0]
	}
	return r.Stuck
}

// inOrder computes the results of seeds in parallel and yields them in the order of the seeds.
func inOrder(ctx context.Context, first uint64, count int, run func(uint64) Result) func(func(Result) bool) {
	return func(yield func(Result) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var workers sync.WaitGroup
		defer workers.Wait()
		defer cancel()
		n := max(1, min(runtime.GOMAXPROCS(0), count))
		lanes := make([]chan Result, n)
		for i := range lanes {
			lanes[i] = make(chan Result, 4)
			workers.Go(func() {
				defer close(lanes[i])
				for k := i; k < count && ctx.Err() == nil; k += n {
					select {
					case lanes[i] <- run(first + uint64(k)):
					case <-ctx.Done():
					}
				}
			})
		}
		for k := range count {
			result, ok := <-lanes[k%n]
			if !ok || !yield(result) {
				return
			}
		}
	}
}
