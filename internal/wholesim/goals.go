package wholesim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// goals are what must come to pass when the faults have stopped. It returns the first that does not.
func (c *cluster) goals(ctx context.Context) string {
	if stuck := c.dismiss(ctx); stuck != "" {
		return stuck
	}
	if stuck := c.aWrite(ctx, "a write"); stuck != "" {
		return stuck
	}
	epoch := c.highestEpoch()
	if stuck := c.settle(ctx, "two recovery rounds", c.ahead()+2*c.roundBound(), c.allVote(epoch+2)); stuck != "" {
		return stuck
	}
	if stuck := c.settle(ctx, "what was acknowledged", c.viewBound(), c.allExecuted); stuck != "" {
		return stuck
	}
	if stuck := c.settle(ctx, "old secrets", c.viewBound(), c.oldSecrets); stuck != "" {
		return stuck
	}
	return c.leads(ctx)
}

// dismiss switches those off that stay away in the end, as soon as the bounds allow it. A correct
// replica that lost its share, or its votes, in the faults (it was cut off when an epoch began, or
// its disk was put back) is one of the c that may be away, until a round has brought it back: with
// another one switched off the epoch would stand still for ever, as docs/protocol.md says (Bounds),
// and that is no failure.
func (c *cluster) dismiss(ctx context.Context) string {
	if stuck := c.settle(ctx, "a cluster", c.viewBound(), c.allRun); stuck != "" {
		return stuck
	}
	if len(c.plan.away) > 0 {
		// A round that the faults have met may end without a replica that votes until then.
		if stuck := c.settle(ctx, "a round that is over", c.ahead()+2*c.roundBound(), c.calm); stuck != "" {
			return stuck
		}
	}
	missing := c.silent()
	c.barred = len(missing)
	for _, id := range c.plan.away {
		if !slices.Contains(missing, id) {
			missing = append(missing, id)
		}
	}
	if len(c.plan.away) > 0 && len(missing) > c.options.C {
		// Each round takes max(c, 1), and the f Byzantine replicas, which may let theirs lapse,
		// have their turns too.
		rounds := time.Duration(len(missing) + c.options.F + 1)
		if stuck := c.settle(ctx, "those whom the faults left without a vote", c.ahead()+rounds*c.roundBound(), c.allVote(0)); stuck != "" {
			return stuck
		}
	}
	for _, id := range c.plan.away {
		c.machine(id).switchOff()
	}
	return ""
}

// allRun says which correct replica does not run yet, or not yet in the epoch in force.
func (c *cluster) allRun() string {
	epoch := c.highestEpoch()
	for _, m := range c.machines {
		if _, node := m.running(); m.counts() && (node == nil || node.Info().Epoch < epoch) {
			return fmt.Sprintf("replica %d does not run in epoch %d", m.id, epoch)
		}
	}
	return ""
}

// calm says which correct replica knows of a recovery round that is not over.
func (c *cluster) calm() string {
	for _, m := range c.machines {
		if _, node := m.running(); m.counts() && node != nil {
			if v := node.State(); v.Phase != governance.PhaseIdle {
				return fmt.Sprintf("replica %d is in round %d, %v", m.id, v.Round, v.Phase)
			}
		}
	}
	return ""
}

// silent returns the correct replicas that do not vote in the epoch in force.
func (c *cluster) silent() []bft.ReplicaID {
	epoch := c.highestEpoch()
	var ids []bft.ReplicaID
	for _, m := range c.machines {
		if !m.counts() {
			continue
		}
		_, node := m.running()
		if node == nil {
			ids = append(ids, m.id)
		} else if s := node.Info(); s.Epoch < epoch || !s.Voter {
			ids = append(ids, m.id)
		}
	}
	return ids
}

// ahead is by how much the time of the log is ahead of the clocks, which more than f replicas with
// fast clocks can bring about: no deadline is reached before.
func (c *cluster) ahead() time.Duration {
	c.judge.mu.Lock()
	defer c.judge.mu.Unlock()
	return max(0, time.Until(time.UnixMilli(c.judge.blocks[c.judge.highest].time)))
}

// aWrite lets a fresh client write.
func (c *cluster) aWrite(ctx context.Context, what string) string {
	k, err := c.newClient(uint32(len(c.clients)+1), c.seed)
	if err != nil {
		return err.Error()
	}
	c.clients = append(c.clients, k)
	ctx, cancel := context.WithTimeout(ctx, c.viewBound())
	defer cancel()
	if k.write(ctx) != nil {
		return fmt.Sprintf("%s: not executed within %v", what, c.viewBound())
	}
	return ""
}

func (c *cluster) highestEpoch() bft.Epoch {
	epoch := bft.Epoch(0)
	for _, m := range c.machines {
		if _, node := m.running(); node != nil && m.counts() {
			epoch = max(epoch, node.Info().Epoch)
		}
	}
	return epoch
}

// allExecuted says which acknowledged operation a correct replica lacks.
func (c *cluster) allExecuted() string {
	for _, k := range c.clients {
		for _, n := range k.acknowledged() {
			for _, m := range c.machines {
				if p, _ := m.running(); m.counts() && (p == nil || !p.app.has(n)) {
					return fmt.Sprintf("replica %d has not executed operation %v, which was acknowledged", m.id, n)
				}
			}
		}
	}
	return ""
}

// oldSecrets says which correct replica can still unseal a secret of an epoch that is over.
func (c *cluster) oldSecrets() string {
	for _, m := range c.machines {
		_, node := m.running()
		if node == nil || !m.counts() {
			continue
		}
		v := node.State()
		if epoch, oldest := m.device.held(); bft.Epoch(oldest) < v.Epoch && v.Member(m.id).HoldsShare {
			return fmt.Sprintf("replica %d holds secrets from epoch %d on, its device is in epoch %d, and the cluster in epoch %d", m.id, oldest, epoch, v.Epoch)
		}
	}
	return ""
}

// leads says which correct leader made no block in two rotations.
func (c *cluster) leads(ctx context.Context) string {
	c.judge.mu.Lock()
	clear(c.judge.led)
	before := len(c.judge.views)
	c.judge.mu.Unlock()
	rotations := 3 * c.genesis.Size().N() * c.genesis.Window // two, and what is left of the present one
	epoch := c.highestEpoch()
	var leaders []bft.ReplicaID
	for _, m := range c.machines {
		if _, node := m.running(); node != nil && m.counts() {
			leaders = node.State().Leaders
			break
		}
	}
	stuck := c.settle(ctx, "views", c.viewBound()+c.profile.chaosHigh, func() string {
		c.judge.mu.Lock()
		defer c.judge.mu.Unlock()
		if n := len(c.judge.views) - before; n < rotations {
			return fmt.Sprintf("%d of %d", n, rotations)
		}
		return ""
	})
	if stuck != "" || c.highestEpoch() != epoch {
		return stuck
	}
	c.judge.mu.Lock()
	defer c.judge.mu.Unlock()
	for _, id := range leaders {
		if c.machine(id).counts() && c.judge.led[id] == 0 && slices.Contains(leaders, id) {
			return fmt.Sprintf("leader %d made no block in %d views", id, rotations)
		}
	}
	return ""
}
