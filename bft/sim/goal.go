package sim

import (
	"fmt"

	"github.com/reseal-bft/reseal/bft"
)

// goal is what a cluster must reach after the faults stopped: each client's operation executed, a good many blocks more, and a further epoch
// begun, at every correct machine that is up.
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
