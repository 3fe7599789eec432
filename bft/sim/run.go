package sim

import (
	"time"
)

// Result is what one seed came to.
type Result struct {
	Seed       uint64
	Violations []string
	// Stuck says what did not happen within the bound after the faults stopped; empty when the run
	// became live.
	Stuck  string
	Views  int
	Blocks int
	Epochs int
	Steps  int
	// Fast and Slow count the blocks announced by correct replicas that the fast path made final,
	// and the others.
	Fast, Slow int
	// Recovered is how long it took, after the faults stopped, until all was executed everywhere.
	Recovered time.Duration
	Hash      uint64
}

// Run simulates one seed, once.
func Run(seed uint64, o Options) (Result, error) {
	o, err := o.complete()
	if err != nil {
		return Result{}, err
	}
	plant(o.Mutant)
	return run(seed, o), nil
}

func run(seed uint64, o Options) Result {
	c := newCluster(seed, o)
	for _, r := range c.replicas {
		r.start()
	}
	for _, k := range c.clients {
		k.run()
	}
	c.chaos()
	broken := func() bool { return len(c.check.violations) > 0 }
	c.world.run(o.Chaos, broken)
	result := Result{Seed: seed}
	if !broken() {
		c.heal()
		goal := c.goal()
		c.world.run(o.Chaos+o.bound(), func() bool { return broken() || goal.reached() })
		result.Recovered = c.world.now - o.Chaos
		if !broken() && !goal.reached() {
			result.Stuck = goal.missing()
			c.note(nil, "STUCK: %s", result.Stuck)
		}
		if turns := c.turns(); !broken() && result.Stuck == "" {
			c.world.run(c.world.now+o.bound(), func() bool { return broken() || turns.over() })
			turns.judge()
			if !broken() && !turns.over() {
				result.Stuck = "two rotations of leaders do not come to an end"
				c.note(nil, "STUCK: %s", result.Stuck)
			}
		}
	}
	c.summarize(&result)
	return result
}

func (c *cluster) summarize(r *Result) {
	r.Violations = c.check.violations
	r.Blocks = len(c.check.roots)
	r.Epochs = len(c.check.ends) + 1
	r.Steps, r.Hash = c.steps, c.hash
	r.Fast, r.Slow = c.counted.fast, c.counted.slow
	r.Views = c.check.views()
}
