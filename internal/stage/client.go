package stage

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/client"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/load"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
)

// Control watches the cluster and gives orders. Used by one goroutine.
type Control struct {
	access  *cluster.Access
	members interface { // access.Members
		Ask(context.Context) []cluster.Member
		Agreed([]cluster.Member) (*cluster.State, error)
	}
	Witness *load.Witness
	orders  *client.Client
	latest  cluster.State // of all looks
}

// Connect waits until the replicas have generated the group key.
func Connect(ctx context.Context, dir cluster.Dir) (*Control, error) {
	access, err := cluster.Connect(ctx, dir)
	if err != nil {
		return nil, err
	}
	c := &Control{access: access, members: access.Members, Witness: &load.Witness{GroupKey: access.Verifier}}
	access.Verifier = c.Witness
	if c.orders, err = access.NewClient(rand.Reader); err != nil {
		access.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connections.
func (c *Control) Close() {
	_ = c.orders.Close() // nothing is in flight
	c.access.Close()
}

// lookPatience bounds how long a look at the cluster waits for replicas that do not answer.
const lookPatience = 2 * time.Second

// Sight is what a look at the cluster shows: the state that f + 1 replicas agree on, and what each
// replica says of itself.
type Sight struct {
	cluster.State
	Replicas []cluster.Member
}

// String tells it in a line, for whoever waits for something else.
func (s *Sight) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d, round %d, phase %s, due %v", s.Epoch, s.Round, s.Phase, s.Due)
	if s.Note != "" {
		fmt.Fprintf(&b, " (%s)", s.Note)
	}
	for i, r := range s.Replicas {
		fmt.Fprintf(&b, "; replica %d (%s) ", r.ID, s.Members[i].Status)
		if r.Info == nil {
			fmt.Fprintf(&b, "says nothing: %s", r.Err)
			continue
		}
		fmt.Fprintf(&b, "is at height %d in view %d of epoch %d, voter: %v", r.Info.Height, r.Info.View, r.Info.Epoch, r.Info.Voter)
		if r.Info.Amnesia {
			fmt.Fprintf(&b, ", it has forgotten votes: %s", r.Info.AmnesiaReason)
		}
	}
	return b.String()
}

// opened says whether the round that was ordered after a state waits for reboots, and everybody
// may. It is an error when it does not wait any more.
func (s *Sight) opened(before *cluster.State) (bool, error) {
	switch {
	case s.Round == before.Round:
		return false, nil // it is not ordered yet
	case s.Epoch > before.Epoch || s.Phase != cluster.PhaseAttesting:
		return false, fmt.Errorf("the round that was ordered in epoch %d was over before the reboots that it is for: its deadline is too short for this machine now", before.Epoch)
	}
	return s.mayReboot(), nil
}

// mayReboot says whether all due replicas that are up and have a TPM have shown the boot that they
// are in.
func (s *Sight) mayReboot() bool {
	for _, id := range s.Due {
		if m := s.Member(id); m.Device != nil && !m.Awaited.Shown && s.Replicas[id-1].Info != nil {
			return false
		}
	}
	return true
}

// Votes reports whether a replica says that it votes in an epoch, or a later one.
func (s *Sight) Votes(id bft.ReplicaID, epoch bft.Epoch) bool {
	info := s.Replicas[id-1].Info
	return info != nil && info.Voter && info.Epoch >= epoch
}

// Look asks all replicas. What it returns never goes back: when only those answer that have not
// come as far as others before, it is an error.
func (c *Control) Look(ctx context.Context) (*Sight, error) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	replicas := c.members.Ask(ctx)
	state, err := c.members.Agreed(replicas)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, answers(replicas))
	}
	if c.latest.LaterThan(state) {
		return nil, fmt.Errorf("those that answer are in epoch %d, round %d, and epoch %d, round %d was seen before: %s",
			state.Epoch, state.Round, c.latest.Epoch, c.latest.Round, answers(replicas))
	}
	c.latest = *state
	return &Sight{*state, replicas}, nil
}

// answers says who answered a look, and why others did not.
func answers(replicas []cluster.Member) string {
	said := make([]string, len(replicas))
	for i, r := range replicas {
		said[i] = fmt.Sprintf("replica %d: %s", r.ID, r.Err)
		if r.Info != nil {
			said[i] = fmt.Sprintf("replica %d: in epoch %d at height %d", r.ID, r.Info.Epoch, r.Info.Height)
		}
	}
	return strings.Join(said, "; ")
}

// Order has an operator's order executed.
func (c *Control) Order(ctx context.Context, body governance.OrderBody) error {
	return c.access.Order(ctx, c.orders, body)
}

// Submit has a system operation executed, as anybody may submit one. What the log refuses is an error.
func (c *Control) Submit(ctx context.Context, op governance.Operation) error {
	raw, err := governance.Encode(op)
	if err != nil {
		return err
	}
	results, err := c.orders.SubmitSystem(ctx, raw)
	if err != nil {
		return err
	}
	result, err := governance.ParseResult(results[0])
	if err == nil && result.Refusal != nil {
		err = result.Refusal
	}
	return err
}

// Evidence returns the evidence by which a replica was last admitted.
func (c *Control) Evidence(ctx context.Context, id bft.ReplicaID) (*attest.Evidence, error) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	return c.access.Members.Evidence(ctx, id)
}

// NewClient makes a client with a key of its own.
func (c *Control) NewClient() (load.Client, error) {
	user, err := c.access.NewClient(rand.Reader)
	return load.Client{Client: user, Ordered: true}, err
}

// Holders counts the members with a share.
func (s *Sight) Holders() int {
	count := 0
	for _, m := range s.Members {
		if m.HoldsShare {
			count++
		}
	}
	return count
}
