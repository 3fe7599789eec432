package wholesim

import (
	"context"
	"encoding/hex"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// Result is what one seed came to.
type Result struct {
	Seed       uint64   `json:"seed"`
	Violations []string `json:"violations,omitempty"`
	// Stuck says what did not happen within its bound after the faults stopped; empty when the
	// cluster became live.
	Stuck string `json:"stuck,omitempty"`
	// Beyond says the same where the faults had left more than c correct replicas without a vote in
	// the epoch: then nothing is promised but safety.
	Beyond string `json:"beyond,omitempty"`
	Views  int    `json:"views"`
	Blocks int    `json:"blocks"`
	Epochs int    `json:"epochs"`
	Writes int    `json:"writes"`
	// Recovered is how long it took after the faults stopped, and Lived all of virtual time.
	Recovered time.Duration `json:"recovered"`
	Lived     time.Duration `json:"lived"`
	Seconds   float64       `json:"seconds"` // of real time
	// Hash is of all that happened. It is the seed's with a binary of [Build].
	Hash  string   `json:"hash"`
	Plan  string   `json:"plan,omitempty"`
	Trace []string `json:"trace,omitempty"` // the last lines, of a run that failed
}

// Failure says why a seed failed, or nothing.
func (r *Result) Failure() string {
	if len(r.Violations) > 0 {
		return r.Violations[0]
	}
	return r.Stuck
}

// epochOf2026 is where the simulated clocks start: a bubble's time begins in the year 2000, before
// any genesis.
const untilToday = 26 * 365 * 24 * time.Hour

// simulate runs one seed. It must be called in a bubble of testing/synctest, and returns when all
// goroutines that it started have ended, or cannot.
func simulate(seed uint64, o Options) Result {
	result := Result{Seed: seed}
	time.Sleep(untilToday)
	o, err := o.complete()
	if err == nil {
		plantBug(o.Mutant)
		var c *cluster
		if c, err = newCluster(seed, o); err == nil {
			c.run(&result)
		}
	}
	if err != nil {
		result.Violations = append(result.Violations, err.Error())
	}
	return result
}

func (c *cluster) run(result *Result) {
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	for _, m := range c.machines {
		working.Go(func() { m.run(ctx) })
	}
	for _, k := range c.clients {
		working.Go(func() { k.run(ctx) })
	}
	working.Go(func() { c.watch(ctx) })
	working.Go(func() { c.collect(ctx) })
	result.Stuck = c.phases(ctx, result)
	if result.Stuck != "" {
		c.note(nil, "STUCK: %s", result.Stuck)
		c.describe()
	}
	cancel()
	working.Wait()
	closed := make(chan struct{})
	go func() { c.closing.Wait(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(time.Hour): // a database whose disk was full never ends
	}
	time.Sleep(time.Minute) // what was told to end has ended
	c.summarize(result)
}

// collect collects garbage at moments of virtual time, because the collector's own moments are not
// the seed's.
func (c *cluster) collect(ctx context.Context) {
	for pause(ctx, 4*time.Duration(c.profile.timeouts.View)) == nil {
		runtime.GC()
	}
}

// phases runs the key generation in peace, then the plan, then what must follow when the faults
// have stopped.
func (c *cluster) phases(ctx context.Context, result *Result) string {
	if stuck := c.settle(ctx, "the first epoch", c.roundBound(), c.allVote(1)); stuck != "" {
		return stuck
	}
	c.note(nil, "the faults begin")
	c.chaotic.Store(true)
	c.chaos(ctx)
	c.chaotic.Store(false)
	if c.judge.broken() {
		return ""
	}
	c.note(nil, "the faults end")
	c.heal()
	healed := time.Now()
	stuck := c.goals(ctx)
	result.Recovered = time.Since(healed)
	if stuck != "" && c.barred > c.options.C {
		c.note(nil, "beyond the bounds, %d correct replicas had no vote: %s", c.barred, stuck)
		result.Beyond, stuck = stuck, ""
	}
	return stuck
}

// settle waits until something is true, for the given virtual time at most. It returns what is missing.
func (c *cluster) settle(ctx context.Context, what string, bound time.Duration, missing func() string) string {
	start := time.Now()
	for {
		lacks := missing()
		if lacks == "" || c.judge.broken() {
			return ""
		}
		if time.Since(start) > bound {
			return fmt.Sprintf("%s: %s, %v later", what, lacks, bound)
		}
		_ = pause(ctx, time.Duration(c.profile.timeouts.View)/10)
	}
}

// viewBound is the virtual time within which correct leaders make progress on a good network: every
// leader fails once at the longest timeout, twice over.
func (c *cluster) viewBound() time.Duration {
	return 2*time.Duration(c.options.F+c.options.C+1)*time.Duration(c.profile.timeouts.ViewMax) + 30*time.Second
}

// roundBound is the virtual time within which a recovery round is over: its deadlines, some of them
// doubled.
func (c *cluster) roundBound() time.Duration {
	return c.viewBound() + c.profile.interval + 8*c.profile.deadline
}

func (c *cluster) summarize(r *Result) {
	j := c.judge
	j.mu.Lock()
	defer j.mu.Unlock()
	r.Violations = append(r.Violations, j.violations...)
	r.Blocks, r.Epochs, r.Views = int(j.highest), int(j.epochs), len(j.views)
	for _, k := range c.clients {
		r.Writes += len(k.acknowledged())
	}
	r.Lived = time.Since(c.started)
	c.mu.Lock()
	r.Hash = hex.EncodeToString(c.sum.Sum(nil)[:8])
	c.mu.Unlock()
	filled := slices.ContainsFunc(c.plan.events, func(e event) bool { return e.kind == "full" })
	if left := bubbleGoroutines(); len(left) > 0 && !filled {
		r.Violations = append(r.Violations, fmt.Sprintf("%d goroutines have not ended; the first: %s", len(left), left[0]))
	}
	if r.Failure() != "" {
		c.mu.Lock()
		r.Plan, r.Trace = c.plan.String(), append([]string(nil), c.lines...)
		c.mu.Unlock()
	}
}

// bubbleGoroutines returns the stacks of the goroutines in this bubble, but for those that run the test.
func bubbleGoroutines() []string {
	buffer := make([]byte, 4<<20)
	buffer = buffer[:runtime.Stack(buffer, true)]
	var left []string
	for i, stack := range strings.Split(string(buffer), "\n\n") {
		head, _, _ := strings.Cut(stack, "\n")
		if i > 0 && strings.Contains(head, "synctest bubble") && !strings.Contains(stack, "testing/synctest.") && !strings.Contains(stack, "internal/synctest.Run") {
			left = append(left, stack)
		}
	}
	return left
}

// allVote says which correct replica does not vote yet in an epoch from the given one on.
func (c *cluster) allVote(epoch bft.Epoch) func() string {
	return func() string {
		for _, m := range c.machines {
			if !m.counts() {
				continue
			}
			_, node := m.running()
			if node == nil {
				m.mu.Lock()
				failed := m.failed
				m.mu.Unlock()
				return fmt.Sprintf("replica %d does not run (%s)", m.id, failed)
			}
			if s := node.Info(); s.Epoch < epoch || !s.Voter {
				return fmt.Sprintf("replica %d does not vote in epoch %d: it is in epoch %d, height %d, voter: %t", m.id, epoch, s.Epoch, s.Height, s.Voter)
			}
		}
		return ""
	}
}
