package wholesim

import (
	"context"
	"slices"
	"time"
)

// chaos carries out the plan.
func (c *cluster) chaos(ctx context.Context) {
	start := time.Now()
	backups, stop := context.WithCancel(ctx)
	defer stop()
	for _, id := range c.plan.spare {
		if slices.ContainsFunc(c.plan.events, func(e event) bool { return e.kind == "put-back" }) {
			go c.backUp(backups, c.machine(id))
		}
	}
	for _, e := range c.plan.events {
		if pause(ctx, time.Until(start.Add(e.at))) != nil {
			return
		}
		c.note(nil, "fault: %v", e)
		c.begin(e)
		timer := time.AfterFunc(e.lasts, func() {
			c.end(e)
		})
		defer timer.Stop()
	}
	_ = pause(ctx, time.Until(start.Add(c.plan.chaos)))
}

func (c *cluster) begin(e event) {
	switch e.kind {
	case "crash":
		for _, id := range e.who {
			c.machine(id).kill(nil, 100, e.lasts)
		}
	case "power":
		for _, id := range e.who {
			m := c.machine(id)
			m.disk.arm(1+int(e.amount), func() {
				c.note(m, "the power goes at a sync")
				m.kill(nil, int(e.amount)%3*50, e.lasts)
			})
		}
	case "blackout":
		for _, m := range c.machines {
			m.kill(nil, 0, c.pick(0, time.Duration(c.profile.timeouts.View)))
		}
	case "handoff-cut":
		for _, id := range e.who {
			m := c.machine(id)
			m.mu.Lock()
			m.cutOn = []string{"seal", "advance ", "advanced"}[e.amount]
			m.mu.Unlock()
		}
	case "full":
		for _, id := range e.who {
			c.machine(id).disk.fill(fullness(1 + e.amount))
		}
	case "put-back":
		for _, id := range e.who {
			m := c.machine(id)
			m.kill(nil, 100, e.lasts)
			if len(m.copies) == 0 {
				continue
			}
			if err := m.disk.putBack(m.copies[int(e.amount/2)%len(m.copies)], e.amount%2 == 0); err != nil {
				c.judge.fault("the simulator cannot put a disk back: %v", err)
			}
		}
	case "new-disk":
		for _, id := range e.who {
			m := c.machine(id)
			m.kill(nil, 100, e.lasts)
			m.disk.replace()
		}
	case "flipped-bit":
		for _, id := range e.who {
			m := c.machine(id)
			m.kill(nil, 100, e.lasts)
			m.spoil(func() (string, error) { return m.disk.flip(e.amount) })
		}
	case "lost-logs":
		for _, id := range e.who {
			m := c.machine(id)
			m.kill(nil, 100, e.lasts)
			m.spoil(m.disk.loseLogs)
		}
	case "partition":
		c.cut(e, true, true)
	case "one-way":
		c.cut(e, true, false)
	case "delay":
		c.net.update(func() { c.net.spread = time.Duration(e.amount) })
	case "clock":
		for _, id := range e.who {
			c.machine(id).skew.Store(e.amount)
		}
	}
}

// end takes a fault back.
func (c *cluster) end(e event) {
	switch e.kind {
	case "partition", "one-way":
		c.cut(e, false, e.kind == "partition")
	case "full":
		for _, id := range e.who {
			c.machine(id).disk.fill(roomy)
		}
	case "delay":
		c.net.update(func() { c.net.spread = time.Millisecond })
	case "clock":
		for _, id := range e.who {
			c.machine(id).skew.Store(0)
		}
	}
}

// cut separates those named from the others, in one direction or in both.
func (c *cluster) cut(e event, on, both bool) {
	inside := make(map[uint16]bool)
	for _, id := range e.who {
		inside[uint16(id)] = true
	}
	c.net.update(func() {
		for _, a := range c.machines {
			for _, b := range c.machines {
				if !a.correct() || !b.correct() {
					continue // Byzantine replicas stand on both sides
				}
				if inside[uint16(a.id)] && !inside[uint16(b.id)] || both && inside[uint16(b.id)] && !inside[uint16(a.id)] {
					c.net.cuts[arrow{a.id, b.id}] = on
				}
			}
		}
	})
}

// heal ends all faults.
func (c *cluster) heal() {
	c.net.update(func() {
		clear(c.net.cuts)
		c.net.spread = time.Millisecond
	})
	for _, m := range c.machines {
		m.skew.Store(0)
		m.disk.fill(roomy)
		m.disk.arm(0, nil)
		m.mu.Lock()
		m.cutOn, m.downTil = "", time.Now()
		m.mu.Unlock()
		signal(m.wake)
	}
}

// backUp copies a machine's disk now and then.
func (c *cluster) backUp(ctx context.Context, m *machine) {
	for len(m.copies) < 5 && pause(ctx, c.plan.chaos/12) == nil {
		m.copies = append(m.copies, m.disk.copy())
	}
}
