package replica_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/monitor"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/scheme"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/threshold"
	"github.com/reseal-bft/reseal/threshold/thresholdtest"
)

// fixed is a system whose membership never changes, in epoch 1.
type fixed struct{ membership *replica.Membership }

func (f fixed) Apply(_ replica.BlockInfo, operations []bft.Operation) [][]byte {
	return make([][]byte, len(operations))
}
func (f fixed) HandoffReady() bool              { return false }
func (f fixed) EndEpoch(replica.BlockInfo)      {}
func (f fixed) Membership() *replica.Membership { return f.membership }
func (f fixed) Root() bft.Digest                { return bft.Digest{1} }
func (f fixed) Snapshot() []byte                { return []byte("fixed") }
func (f fixed) Restore([]byte) error            { return nil }

// cluster is a group of replicas in this process, over real connections on loopback and real
// stores. A monitor judges all that they do.
type cluster struct {
	t          testing.TB
	id         bft.ClusterID
	dir        string
	membership *replica.Membership
	identities []*ecdsa.PrivateKey
	epochKeys  []ed25519.PrivateKey
	sharing    *threshold.Sharing
	shares     []*threshold.Share
	nodes      []*node
	// prepare is called with each replica before it runs; it may be nil.
	prepare func(*replica.Replica)
	// ahead is by how much each replica's wall clock is ahead.
	ahead []atomic.Int64
	// lost is told of each peer that a replica's core is told to be lost; it may be nil.
	lost chan bft.ReplicaID
}

// node is one running replica; nil fields when it is down.
type node struct {
	replica   *replica.Replica
	transport *transport.Transport
	store     *store.Store
	cancel    context.CancelFunc
	done      chan struct{}
}

func newCluster(t testing.TB, size bft.Size) *cluster {
	c := &cluster{t: t, id: bft.Digest{7}, dir: t.TempDir(), nodes: make([]*node, size.N()), ahead: make([]atomic.Int64, size.N())}
	c.sharing, c.shares = deal(t, size)
	c.membership = &replica.Membership{
		Epoch: 1, Size: size, Base: bft.Base{Digest: c.id, Time: 1}, GroupKey: c.sharing.GroupKey().Bytes(),
	}
	for i := range size.N() {
		identity, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		public, private, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		c.identities, c.epochKeys = append(c.identities, identity), append(c.epochKeys, private)
		id := bft.ReplicaID(i + 1)
		c.membership.Members = append(c.membership.Members, replica.Member{
			ID: id, Address: freeAddress(t), Identity: &identity.PublicKey, EpochKey: public,
		})
		c.membership.Leaders = append(c.membership.Leaders, id)
	}
	t.Cleanup(func() {
		for id := range c.nodes {
			c.stop(id)
		}
	})
	return c
}

// deal makes a sharing by dealings among the receivers, without a network.
func deal(t testing.TB, size bft.Size) (*threshold.Sharing, []*threshold.Share) {
	sharing, shares, err := thresholdtest.Sharing(threshold.Params{N: size.N(), T: size.Quorum(), F: size.F})
	require.NoError(t, err)
	return sharing, shares
}

func freeAddress(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func (c *cluster) start(i int) { require.NoError(c.t, c.tryStart(i)) }

// tryStart starts a replica and returns why it refused to.
func (c *cluster) tryStart(i int) error {
	t, id := c.t, bft.ReplicaID(i+1)
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})).With("replica", id)
	n := &node{done: make(chan struct{})}
	var err error
	n.store, err = store.Open(filepath.Join(c.dir, fmt.Sprint(id)), c.id, store.Options{})
	require.NoError(t, err)
	credential, err := transport.Credential(c.identities[i], c.id, id, transport.Term{}, c.epochKeys[i])
	require.NoError(t, err)
	var running atomic.Pointer[replica.Replica]
	n.transport, err = transport.New(transport.Config{
		Cluster: c.id, Self: id, Listen: c.membership.Members[i].Address, Certificate: credential, Identity: c.identities[i], Log: log,
		Handler: func(from transport.Sender, frame []byte) {
			if r := running.Load(); r != nil {
				r.Receive(from, frame)
			}
		},
		OnLost: func(id bft.ReplicaID) {
			if r := running.Load(); r != nil {
				r.Lost(id)
			}
		},
	})
	require.NoError(t, err)
	n.replica, err = replica.New(replica.Config{
		Cluster: c.id, Self: id, Store: n.store, Network: n.transport, Application: kv.New(), System: fixed{c.membership},
		Keys: func(context.Context, *replica.Membership) (replica.EpochKeys, error) {
			s := scheme.Threshold(c.sharing, c.shares[i])
			return replica.EpochKeys{Scheme: s, Signer: s, BlockKey: c.epochKeys[i]}, nil
		},
		Verifier: func(*replica.Membership) (bft.Scheme, error) { return scheme.Verifier(c.sharing.GroupKey()), nil },
		Window:   4, Timeouts: testTimeouts, Log: log,
		Clock:   func() time.Time { return time.Now().Add(time.Duration(c.ahead[i].Load())) },
		Observe: c.observe,
	})
	if err != nil {
		n.transport.Close()
		require.NoError(t, n.store.Close())
		return err
	}
	running.Store(n.replica)
	if c.prepare != nil {
		c.prepare(n.replica)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() {
		defer close(n.done)
		if err := n.replica.Run(ctx); err != nil {
			t.Errorf("replica %d: %v", id, err)
		}
	}()
	c.nodes[i] = n
	return nil
}

// observe judges what a replica's core does, and takes note of what it is told.
func (c *cluster) observe(cfg bft.Config, restored bft.Restored) func(bft.Now, bft.Event, []bft.Effect) {
	judge := monitor.Observe(func(cfg bft.Config, sentence string) { c.t.Errorf("replica %d %s", cfg.Self, sentence) })(cfg, restored)
	return func(now bft.Now, event bft.Event, effects []bft.Effect) {
		judge(now, event, effects)
		if lost, ok := event.(bft.Lost); ok && c.lost != nil {
			select {
			case c.lost <- lost.Replica:
			default:
			}
		}
	}
}

var testTimeouts = bft.Timeouts{
	View: 500 * time.Millisecond, ViewMax: 4 * time.Second, Finalize: 50 * time.Millisecond,
	Idle: 50 * time.Millisecond, Resend: 300 * time.Millisecond, Ahead: 10 * time.Second,
}

func (c *cluster) stop(i int) {
	n := c.nodes[i]
	if n == nil {
		return
	}
	n.cancel()
	<-n.done
	n.transport.Close()
	require.NoError(c.t, n.store.Close())
	c.nodes[i] = nil
}

// put orders a write through one replica and verifies the reply under the group key alone.
func (c *cluster) put(through int, key ed25519.PrivateKey, sequence uint64, name, value string) {
	operation, err := kv.Put([]byte(name), []byte(value))
	require.NoError(c.t, err)
	results := c.submit(through, key, sequence, operation)
	result, err := kv.ParseResult(results[0])
	require.NoError(c.t, err)
	require.Equal(c.t, kv.OK, result.Status)
}

func (c *cluster) submit(through int, key ed25519.PrivateKey, sequence uint64, operations ...[]byte) [][]byte {
	req, err := request.New(c.id, key, sequence, request.Application, operations)
	require.NoError(c.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	reply, err := c.nodes[through].replica.Submit(ctx, req)
	require.NoError(c.t, err)
	require.NoError(c.t, reply.Verify(c.id, groupKey{c.sharing.GroupKey()}, key.Public().(ed25519.PublicKey), sequence))
	require.Len(c.t, reply.Certificate.Signature, 48)
	return reply.Results
}

// groupKey verifies replies under the group key.
type groupKey struct{ key *threshold.PublicKey }

func (g groupKey) Verify(message, signature []byte) error {
	return g.key.Verify(message, threshold.Signature(signature))
}

// await waits until a replica has executed a height.
func (c *cluster) await(i int, height bft.Height) {
	require.Eventually(c.t, func() bool { return c.nodes[i].replica.Status().Height >= height }, time.Minute, 5*time.Millisecond)
}

func newClient(t testing.TB) ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return key
}
