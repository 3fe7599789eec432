package wholesim

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/scheme"
	"github.com/reseal-bft/reseal/threshold"
)

// client submits one operation after the other, each until a reply proves it.
type client struct {
	c   *cluster
	id  uint32
	key ed25519.PrivateKey
	rng *rand.Rand

	sequence uint64

	mu    sync.Mutex
	acked []name
}

func (c *cluster) newClient(id uint32, seed uint64) (*client, error) {
	_, key, err := ed25519.GenerateKey(nil)
	return &client{c: c, id: id, key: key, rng: rand.New(rand.NewPCG(seed, 100+uint64(id)))}, err
}

// run submits operations until ctx ends.
func (k *client) run(ctx context.Context) {
	for pause(ctx, time.Duration(k.rng.Int64N(int64(2*k.c.profile.think)))) == nil {
		_ = k.write(ctx)
	}
}

// patience is how long a client waits for one replica.
func (k *client) patience() time.Duration { return 2 * time.Duration(k.c.genesis.Timeouts.View) }

// write submits the next operation to one replica after the other until one proves that it was executed.
func (k *client) write(ctx context.Context) error {
	k.sequence++
	n := name{k.id, uint32(k.sequence)}
	carried := make([]byte, k.c.plan.carried(k.rng))
	operation := n.operation(carried)
	req, err := request.New(k.c.genesis.ClusterID(), k.key, k.sequence, request.Application, [][]byte{operation})
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		to := bft.ReplicaID(k.rng.IntN(len(k.c.machines)) + 1)
		results, err := k.submit(ctx, to, req)
		if err == nil {
			if len(results) != 1 || !bytes.Equal(results[0], resultOf(operation)) {
				k.c.judge.fault("a proven reply to operation %v is wrong", n)
			}
			k.mu.Lock()
			k.acked = append(k.acked, n)
			k.mu.Unlock()
			return nil
		}
		if pause(ctx, k.patience()/8) != nil {
			break
		}
	}
	return ctx.Err()
}

var errNoKey = errors.New("there is no group key yet")

// submit gives a request to one replica and verifies the reply under the group key.
func (k *client) submit(ctx context.Context, to bft.ReplicaID, req *request.Request) ([][]byte, error) {
	key, err := k.c.verifier()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, k.patience())
	defer cancel()
	raw, err := k.c.net.callAsClient(ctx, to, replica.MethodSubmit, req.Raw())
	if err != nil {
		return nil, err
	}
	reply, err := request.ParseReply(raw)
	if err != nil {
		return nil, err
	}
	if err := reply.Verify(k.c.genesis.ClusterID(), key, req.Client, req.Sequence); err != nil {
		return nil, err
	}
	return reply.Results, nil
}

func (k *client) acknowledged() []name {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]name(nil), k.acked...)
}

// groupVerifier verifies under the group key, as clients do.
type groupVerifier struct{ scheme.Group }

func (g groupVerifier) Verify(message, signature []byte) error {
	if !g.Group.Verify([][]byte{message}, [][]byte{signature})[0] {
		return errors.New("not signed under the group key")
	}
	return nil
}

// verifier returns the group key that the first replica to know it named; the judge holds all
// others against it.
func (c *cluster) verifier() (groupVerifier, error) {
	c.judge.mu.Lock()
	defer c.judge.mu.Unlock()
	key := c.judge.groupKey
	if key != "" && c.judge.verifier != nil {
		return *c.judge.verifier, nil
	}
	if key == "" {
		return groupVerifier{}, errNoKey
	}
	raw, err := hex.DecodeString(key)
	if err != nil {
		return groupVerifier{}, err
	}
	public, err := threshold.ParsePublicKey(raw)
	if err != nil {
		return groupVerifier{}, err
	}
	c.judge.verifier = &groupVerifier{scheme.Verifier(public)}
	return *c.judge.verifier, nil
}
