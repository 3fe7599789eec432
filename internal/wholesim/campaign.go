package wholesim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/reseal-bft/reseal/bft/sim"
)

// Report is what a campaign came to: the simulator's report, and some figures of whole nodes.
type Report struct {
	sim.Report
	// Beyond counts the seeds whose faults left more than c correct replicas without a vote, and
	// that were not live again.
	Beyond       int     `json:"beyond"`
	Writes       int     `json:"writes"`
	VirtualHours float64 `json:"virtual_hours"`
	ViewsPerSec  float64 `json:"views_per_second"`
	SeedsPerHour float64 `json:"seeds_per_hour"`
	// Replayed says that the first seed, played once more, gave the same hash.
	Replayed bool `json:"replayed"`
}

// Binary is a built test binary of this package, which runs seeds.
type Binary struct {
	path    string
	dir     string
	patched bool // see patches
}

// Build builds the binary from the source tree at root; with planted bugs if asked for. Close
// removes it.
func Build(ctx context.Context, root string, mutants bool) (*Binary, error) {
	dir, err := os.MkdirTemp("", "reseal-sim-")
	if err != nil {
		return nil, err
	}
	b := &Binary{path: filepath.Join(dir, "wholesim.test"), dir: dir, patched: true}
	tags := "checksums"
	if mutants {
		tags += ",mutants"
	}
	patched, err := overlay(dir)
	if err != nil {
		b.Close()
		return nil, err
	}
	build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", tags, "-overlay", patched, "-o", b.path, "./internal/wholesim")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		b.Close()
		return nil, fmt.Errorf("build the simulator of whole nodes: %w: %s", err, bytes.TrimSpace(out))
	}
	return b, nil
}

// Close removes what [Build] made.
func (b *Binary) Close() {
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}

// task is what a process of the binary is told to do, in the environment.
type task struct {
	Seed    uint64  `json:"seed"`
	Options Options `json:"options"`
	Trace   bool    `json:"trace"`
}

const (
	taskVariable = "RESEAL_WHOLESIM"
	resultPrefix = "RESULT "
)

// seedTimeout is the real time that a seed may take, on a machine that has other things to do: a
// run that takes longer hangs.
const seedTimeout = 15 * time.Minute

// run runs a seed in a process of its own. A process that crashes or hangs is a violation.
func (b *Binary) run(ctx context.Context, seed uint64, o Options) Result {
	t, err := json.Marshal(task{seed, o, o.Trace != nil})
	if err != nil {
		return Result{Seed: seed, Violations: []string{err.Error()}}
	}
	ctx, cancel := context.WithTimeout(ctx, seedTimeout)
	defer cancel()
	process := exec.CommandContext(ctx, b.path, "-test.run", "^TestSeed$", "-test.timeout", "0")
	process.Env = append(environment(seed), taskVariable+"="+string(t))              // and nothing of this process's: where things lie in memory is to be the same each time
	process.Cancel = func() error { return process.Process.Signal(syscall.SIGQUIT) } // it prints what hangs
	process.WaitDelay = 10 * time.Second
	var out, errors bytes.Buffer
	process.Stdout, process.Stderr = &out, &errors
	if o.Trace != nil {
		process.Stderr = lineWriter{o.Trace, &errors}
	}
	start := time.Now()
	failed := process.Run()
	for line := range strings.Lines(out.String()) {
		if data, ok := strings.CutPrefix(line, resultPrefix); ok {
			var r Result
			if err := json.Unmarshal([]byte(data), &r); err == nil {
				r.Seconds = time.Since(start).Seconds()
				return r
			}
		}
	}
	what := "the process ended without a result"
	if ctx.Err() != nil {
		what = fmt.Sprintf("the process hangs: no result after %v", seedTimeout)
	}
	return Result{Seed: seed, Violations: []string{fmt.Sprintf("%s: %v: %s", what, failed, tail(out.String()+errors.String()))}}
}

// lineWriter hands on each line.
type lineWriter struct {
	line func(string)
	all  *bytes.Buffer
}

func (w lineWriter) Write(p []byte) (int, error) {
	w.all.Write(p)
	for {
		line, err := w.all.ReadString('\n')
		if err != nil {
			w.all.WriteString(line)
			return len(p), nil
		}
		w.line(strings.TrimSuffix(line, "\n"))
	}
}

func tail(s string) string {
	const most = 6000
	return s[max(0, len(s)-most):]
}

// maxFailures bounds the failures that a report holds.
const maxFailures = 10

// Campaign runs count seeds from the first on, on all processors. It ends early when the context
// does, and, with a planted bug, at the first seed that finds it. done is called after each seed,
// in any order. The first seed is played once more in the end: did it give the same hash?
func Campaign(ctx context.Context, b *Binary, first uint64, count int, o Options, done func(Result)) (Report, error) {
	o, err := o.complete()
	if err != nil {
		return Report{}, err
	}
	start := time.Now()
	report := Report{Report: sim.Report{Mutant: o.Mutant}}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	hashes := make(map[uint64]string)
	var workers sync.WaitGroup
	seeds := make(chan uint64)
	for range max(1, min(runtime.NumCPU(), count)) {
		workers.Go(func() {
			for seed := range seeds {
				result := b.run(ctx, seed, o)
				mu.Lock()
				if ctx.Err() == nil {
					report.add(result)
					hashes[seed] = result.Hash
					if done != nil {
						done(result)
					}
					if o.Mutant != "" && result.Failure() != "" {
						cancel()
					}
				}
				mu.Unlock()
			}
		})
	}
	for k := range count {
		select {
		case seeds <- first + uint64(k):
		case <-ctx.Done():
		}
	}
	close(seeds)
	workers.Wait()
	if sum := hashes[first]; sum != "" && o.Mutant == "" && b.patched {
		report.Replayed = b.run(ctx, first, o).Hash == sum
	}
	all := sha256.New()
	for _, seed := range slices.Sorted(maps.Keys(hashes)) {
		fmt.Fprintln(all, seed, hashes[seed])
	}
	report.Hash = hex.EncodeToString(all.Sum(nil)[:8])
	report.Seconds = time.Since(start).Seconds()
	report.ViewsPerSec = float64(report.Views) / report.Seconds
	report.SeedsPerHour = float64(report.Seeds) / report.Seconds * 3600
	return report, nil
}

func (r *Report) add(result Result) {
	r.Seeds++
	r.Views += result.Views
	r.Blocks += result.Blocks
	r.Epochs += result.Epochs
	r.Writes += result.Writes
	r.VirtualHours += result.Lived.Hours()
	r.SlowestMS = max(r.SlowestMS, result.Recovered.Milliseconds())
	if len(result.Violations) > 0 {
		r.Violations++
	} else if result.Stuck != "" {
		r.Stuck++
	} else if result.Beyond != "" {
		r.Beyond++
	}
	if reason := result.Failure(); reason != "" && len(r.Failures) < maxFailures {
		r.Failures = append(r.Failures, sim.Failure{Seed: result.Seed, Reason: reason})
	}
}
