package sim

import (
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// chaos injects the faults of the first phase.
func (c *cluster) chaos() {
	o := c.options
	if o.has("clock") {
		for _, r := range c.replicas {
			r.skew = c.world.between(-2*time.Second, 2*time.Second)
		}
	}
	if o.has("duplicate") {
		c.net.twice = 0.05
	}
	c.net.fifo = !o.has("reorder")
	c.misfortune()
}

// misfortune is one fault after the other, at random moments.
func (c *cluster) misfortune() {
	if c.world.now >= c.options.Chaos {
		return
	}
	if faults := c.options.Faults; len(faults) > 0 {
		c.strike(faults[c.world.rng.IntN(len(faults))])
	}
	c.world.after(c.world.between(5*time.Millisecond, 150*time.Millisecond), c.misfortune)
}

func (c *cluster) strike(fault string) {
	w := c.world
	victim := c.replicas[w.rng.IntN(len(c.replicas))]
	switch fault {
	case "crash":
		c.restartLater(victim, false)
	case "amnesia":
		if c.mayForget(victim) {
			c.restartLater(victim, true)
		}
	case "recovery":
		if r := c.dueNow(); r != nil && c.mayForget(r) {
			c.restartLater(r, true)
		}
	case "partition":
		c.note(nil, "the network is partitioned")
		for _, r := range c.replicas {
			c.net.group[r] = w.rng.IntN(2)
		}
		c.notice(victim) // wrongly
		w.after(w.between(10*time.Millisecond, 600*time.Millisecond), func() {
			c.note(nil, "the network is whole")
			clear(c.net.group)
		})
	case "delay":
		c.net.high = w.between(5*time.Millisecond, 250*time.Millisecond)
		c.net.loss = []float64{0, 0.01, 0.1, 0.3}[w.rng.IntN(4)]
	case "slow-disk":
		victim.slowness = time.Duration(1 + w.rng.IntN(100))
	}
}

// restartLater crashes a machine and starts it again after a while.
func (c *cluster) restartLater(r *replica, amnesia bool) {
	if !r.up {
		return
	}
	r.crash(amnesia)
	c.world.after(c.world.between(0, 800*time.Millisecond), func() {
		if !r.up && !c.down[r] {
			r.start()
		}
	})
}

// notice tells the others that a machine has ended; some do not notice, or when it is back.
func (c *cluster) notice(lost *replica) {
	for _, r := range c.replicas {
		if w := c.world; r != lost && w.rng.IntN(4) > 0 {
			w.after(w.between(0, 100*time.Millisecond), func() {
				if r.up && r.core != nil {
					r.step(bft.Lost{Replica: lost.id})
				}
			})
		}
	}
}

// mayForget reports whether a machine may lose its disk: it and the Byzantine ones and those that
// already wait for a new share must be no more than f + c, or the epoch is lost (docs/protocol.md,
// Bounds).
func (c *cluster) mayForget(victim *replica) bool {
	if victim.evil != nil || !victim.up || victim.barred > victim.epoch {
		return false
	}
	out := 1
	epoch := c.newestEpoch()
	for id := 1; id <= c.size.N(); id++ {
		if r := c.replicas[id-1]; r.evil != nil || r.barred > min(epoch, r.epoch) || r.barred >= epoch && r.barred > 0 {
			out++
		}
	}
	return out <= c.size.F+c.size.C
}

func (c *cluster) newestEpoch() bft.Epoch {
	newest := bft.Epoch(0)
	for _, r := range c.replicas {
		newest = max(newest, r.epoch)
	}
	return newest
}

// dueNow returns a replica that is due for recovery in its epoch.
func (c *cluster) dueNow() *replica {
	for _, r := range c.replicas {
		if c.due(r.epoch, r.id) {
			return r
		}
	}
	return nil
}

// heal begins the second phase: no faults beyond f + c. Some machines are taken down for good, so
// that it counts.
func (c *cluster) heal() {
	c.note(nil, "the faults stop")
	c.net.calm()
	c.net.twice = 0.01
	out := 0
	for id := 1; id <= c.size.N(); id++ {
		if r := c.replicas[id-1]; r.evil != nil || r.barred > 0 && r.barred+1 > c.newestEpoch() {
			out++
		}
	}
	for _, r := range c.replicas {
		r.skew, r.slowness = c.world.between(-100*time.Millisecond, 100*time.Millisecond), 1
		if r.evil == nil && r.barred == 0 && out < c.size.F+c.size.C && c.world.chance(0.3) {
			out++
			c.down[r] = true
		}
	}
	for _, r := range c.replicas {
		switch {
		case c.down[r] && r.up:
			r.crash(false)
		case !c.down[r] && !r.up:
			r.start()
		}
	}
}
