package stage

import (
	"context"
	"crypto/rand"
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
	Witness *load.Witness
	orders  *client.Client
}

// Connect waits until the replicas have generated the group key.
func Connect(ctx context.Context, dir cluster.Dir) (*Control, error) {
	access, err := cluster.Connect(ctx, dir)
	if err != nil {
		return nil, err
	}
	c := &Control{access: access, Witness: &load.Witness{GroupKey: access.Verifier}}
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

// Sight is what a look at the cluster shows: the state that f + 1 replicas agree on, and what each replica says of itself.
type Sight struct {
	*cluster.State
	Replicas []cluster.Member
}

// mayReboot says whether all due replicas that are up and have a TPM have shown the boot that they are in.
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

// Look asks all replicas.
func (c *Control) Look(ctx context.Context) (*Sight, error) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	replicas := c.access.Members.Ask(ctx)
	state, err := c.access.Members.Agreed(replicas)
	return &Sight{state, replicas}, err
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
	return load.Client{Client: user}, err
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
