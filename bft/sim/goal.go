package sim

import (
	"fmt"

	"github.com/reseal-bft/reseal/bft"
)

// goal is what a cluster must reach after the faults stopped: each client's operation executed, a
// good many blocks more, and a further epoch begun, at every correct machine that is up.
type goal struct {
	c       *cluster
	numbers []uint32
	height  bft.Height
	epoch   bft.Epoch
}

func (c *cluster) goal() goal {
	g := goal{c: c, epoch: c.newestEpoch() + 1}
	for _, k := range c.clients {
		g.numbers = append(g.numbers, k.number)
	}
	for h := range c.check.blocks {
		g.height = max(g.height, h)
	}
	g.height += 10
	return g
}

func (g goal) reached() bool { return g.missing() == "" }

// missing says what is not reached yet.
func (g goal) missing() string {
	for _, r := range g.c.replicas {
		if r.evil != nil || g.c.down[r] {
			continue
		}
		switch {
		case r.state.height < g.height:
			return fmt.Sprintf("replica %d is at height %d, not %d", r.id, r.state.height, g.height)
		case r.epoch < g.epoch:
			return fmt.Sprintf("replica %d is in epoch %d, not %d", r.id, r.epoch, g.epoch)
		}
		for client, number := range g.numbers {
			if r.state.executed[uint32(client)] < number {
				return fmt.Sprintf("replica %d has not executed operation %d of client %d", r.id, number, client)
			}
		}
	}
	return ""
}

// turns is what is asked of leaders once all is well: of two turns in a row of a correct replica
// that is up, one at least brings a final block.
type turns struct {
	c     *cluster
	epoch bft.Epoch
	view  bft.View // turns that begin after it count
	until int      // so many views
}

// turn is the window of views that a leader serves, by its first view.
type turn struct {
	epoch bft.Epoch
	first bft.View
}

// turns begins with all the views to come, and ends after two rotations.
func (c *cluster) turns() turns {
	epoch := c.newestEpoch()
	t := turns{c: c, epoch: epoch, view: c.check.reached[epoch]}
	t.until = t.passed() + 2*c.size.N()*c.options.Window
	return t
}

func (t turns) over() bool { return t.passed() >= t.until }

// passed counts the views from the first of the first epoch on.
func (t turns) passed() (views int) {
	for epoch := t.epoch; epoch <= t.c.newestEpoch(); epoch++ {
		views += int(t.c.check.reached[epoch])
	}
	return views
}

// judge looks at the turns that are over.
func (t turns) judge() {
	check, window := t.c.check, bft.View(t.c.options.Window)
	missed := make(map[bft.ReplicaID]int)
	for epoch := t.epoch; epoch <= t.c.newestEpoch(); epoch++ {
		leaders := t.c.config(epoch, 1)
		for first := bft.View(1); first+window <= check.reached[epoch]; first += window {
			r := t.c.byID(leaders.LeaderOf(first))
			switch {
			case epoch == t.epoch && first <= t.view, r.evil != nil, t.c.down[r], r.barred > epoch:
			case check.turns[turn{epoch, first}]:
				missed[r.id] = 0
			default:
				if missed[r.id]++; missed[r.id] == 2 {
					check.fail(r, "replica %d is up, and no block of two of its turns in a row became final, the last from view %d of epoch %d on", r.id, first, epoch)
				}
			}
		}
	}
}
