package demo

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/client"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/recovery"
)

// witness stands between the clients and the verification of certificates, and keeps account of it. Safe for concurrent use.
type witness struct {
	request.GroupKey
	refused atomic.Int64
	bytes   atomic.Int64
}

// Verify verifies a certificate.
func (w *witness) Verify(message, signature []byte) error {
	err := w.GroupKey.Verify(message, signature)
	if err != nil {
		w.refused.Add(1)
		return err
	}
	w.bytes.Store(int64(len(signature)))
	return nil
}

// storeClient is a client of the replicated key-value store. It returns nothing that was not verified.
type storeClient struct{ *client.Client }

// Put sets keys, all in one request.
func (s storeClient) Put(ctx context.Context, pairs []pair) error {
	operations := make([][]byte, len(pairs))
	for i, p := range pairs {
		var err error
		if operations[i], err = kv.Put([]byte(p.key), p.value); err != nil {
			return fmt.Errorf("%s: %w", p.key, err)
		}
	}
	results, err := s.execute(ctx, operations)
	if err != nil {
		return err
	}
	for i, result := range results {
		if result.Status != kv.OK {
			return fmt.Errorf("%s: %v", pairs[i].key, result.Status)
		}
	}
	return nil
}

// Get reads keys in the order of all operations, all in one request.
func (s storeClient) Get(ctx context.Context, keys []string) ([][]byte, error) {
	operations := make([][]byte, len(keys))
	for i, key := range keys {
		var err error
		if operations[i], err = kv.Get([]byte(key)); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	results, err := s.execute(ctx, operations)
	if err != nil {
		return nil, err
	}
	values := make([][]byte, len(keys))
	for i, result := range results {
		if result.Status == kv.OK {
			values[i] = append([]byte{}, result.Value...)
		}
	}
	return values, nil
}

func (s storeClient) execute(ctx context.Context, operations [][]byte) ([]kv.Result, error) {
	raw, err := s.Submit(ctx, operations...)
	if err != nil {
		return nil, err
	}
	results := make([]kv.Result, len(raw))
	for i := range raw {
		if results[i], err = kv.ParseResult(raw[i]); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// control watches the cluster and gives orders. Used by one goroutine.
type control struct {
	access  *cluster.Access
	witness *witness
	orders  *client.Client
}

// connect waits until the replicas have generated the group key.
func connect(ctx context.Context, dir cluster.Dir) (*control, error) {
	access, err := cluster.Connect(ctx, dir)
	if err != nil {
		return nil, err
	}
	c := &control{access: access, witness: &witness{GroupKey: access.Verifier}}
	access.Verifier = c.witness
	if c.orders, err = access.NewClient(rand.Reader); err != nil {
		access.Close()
		return nil, err
	}
	return c, nil
}

func (c *control) close() {
	_ = c.orders.Close() // nothing is in flight
	c.access.Close()
}

// lookPatience bounds how long a look at the cluster waits for replicas that do not answer.
const lookPatience = 2 * time.Second

// sight is what a look at the cluster shows: the state that f + 1 replicas agree on, and what each replica says of itself.
type sight struct {
	*cluster.State
	replicas []cluster.Member
}

// votes reports whether a replica says that it votes in an epoch, or a later one.
func (s *sight) votes(id bft.ReplicaID, epoch bft.Epoch) bool {
	info := s.replicas[id-1].Info
	return info != nil && info.Voter && info.Epoch >= epoch
}

func (c *control) look(ctx context.Context) (*sight, error) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	replicas := c.access.Members.Ask(ctx)
	state, err := c.access.Members.Agreed(replicas)
	return &sight{state, replicas}, err
}

// order has an operator's order executed.
func (c *control) order(ctx context.Context, body recovery.OrderBody) error {
	return c.access.Order(ctx, c.orders, body)
}

func (c *control) newClient() (storeClient, error) {
	user, err := c.access.NewClient(rand.Reader)
	return storeClient{user}, err
}
