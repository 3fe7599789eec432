package recoverytest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/recovery/handoff"
)

// The deadlines of rounds: short where somebody is to miss it; longer for TPMs, whose machines boot
// slowly, and which a round awaits that did not show yet that they refuse what was revoked.
const (
	deadline         = 10 * time.Second
	deadlineMissed   = 3 * time.Second
	deadlineAttested = 10 * time.Second
)

// storeDir is where a replica's store is on its disk.
const storeDir = "/store"

// cluster is real nodes in this process, on loopback.
type cluster struct {
	genesis   *governance.Genesis
	operator  ed25519.PrivateKey
	client    ed25519.PrivateKey
	log       *slog.Logger
	fleet     Fleet
	keystores []keystore.Keystore
	disks     []*vfs.MemFS
	nodes     []*recovery.Node // nil for one that is down
	orders    uint64           // so far
	requests  uint64
	patience  time.Duration
	// skews are how far clocks are off, and cut whom the network brings nothing; by replica.
	skews []atomic.Int64
	cut   []atomic.Bool
	// taken are those where the intruder is; behind is one that is cut off for several epochs, and
	// hears there what it said itself.
	taken  []atomic.Bool
	behind bft.ReplicaID
	echo   atomic.Pointer[echo]
}

func newCluster(ctx context.Context, plan Plan, fleet Fleet, log *slog.Logger) (*cluster, error) {
	public, operator, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	_, own, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	n := bft.Size{F: plan.F, C: plan.C}.N()
	ms := func(n int) governance.Duration { return governance.Duration(time.Duration(n) * time.Millisecond) }
	c := &cluster{patience: plan.patience(), operator: operator, client: own, log: log, fleet: fleet, skews: make([]atomic.Int64, n), cut: make([]atomic.Bool, n), taken: make([]atomic.Bool, n), genesis: &governance.Genesis{
		Name: "intruder", Created: time.Now().UTC().Truncate(time.Second), F: plan.F, C: plan.C,
		Operators: []ed25519.PublicKey{public}, OperatorQuorum: 1, RoundDeadline: governance.Duration(deadline), Window: 4,
		Timeouts: governance.Timeouts{View: ms(800), ViewMax: ms(1600), Finalize: ms(50), Idle: ms(100), Resend: ms(300), Ahead: ms(10000)},
	}}
	addresses, err := freeAddresses(n)
	if err != nil {
		return nil, err
	}
	for i := range n {
		ks, err := fleet.Init(ctx, bft.ReplicaID(i+1))
		if err != nil {
			return c, err
		}
		c.keystores = append(c.keystores, ks)
		c.disks = append(c.disks, vfs.NewCrashableMem())
		key, err := handoff.SealGenesisKey(ks)
		if err != nil {
			return c, err
		}
		identity, err := x509.MarshalPKIXPublicKey(ks.Identity().Public())
		if err != nil {
			return c, err
		}
		c.genesis.Members = append(c.genesis.Members, governance.GenesisMember{
			ID: bft.ReplicaID(i + 1), Address: addresses[i], Identity: identity, EpochKey: key,
		})
	}
	c.nodes = make([]*recovery.Node, n)
	if err := fleet.Found(c.genesis); err != nil {
		return c, err
	}
	if c.genesis.Attestation.Required {
		c.genesis.RoundDeadline = governance.Duration(deadlineAttested)
	} else if slices.ContainsFunc(plan.Turns, func(t Turn) bool { return t.Mishap == MissesDeadline }) {
		c.genesis.RoundDeadline = governance.Duration(deadlineMissed)
	}
	for id := range c.ids() {
		if err := c.start(ctx, id); err != nil {
			return c, err
		}
	}
	return c, c.settle(ctx, 1)
}

// clusters counts those of this process.
var clusters atomic.Uint32

// freeAddresses are different ones: each is held until all are found. Where the system has all of
// 127/8, a cluster has an address for itself, so that no connection of another takes a port while a
// replica is down.
func freeAddresses(count int) ([]string, error) {
	n := clusters.Add(1)
	host := fmt.Sprintf("127.%d.%d.%d", 1+os.Getpid()%250, n/250%250, 1+n%250)
	var out []string
	for range count {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			l, err = net.Listen("tcp", "127.0.0.1:0")
		}
		if err != nil {
			return nil, err
		}
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out, nil
}

// ids goes over the replicas.
func (c *cluster) ids() func(func(bft.ReplicaID) bool) {
	return func(yield func(bft.ReplicaID) bool) {
		for i := range c.genesis.Members {
			if !yield(bft.ReplicaID(i + 1)) {
				return
			}
		}
	}
}

// peers are the replicas, for one who connects to them as another.
func (c *cluster) peers(but bft.ReplicaID) ([]transport.Peer, error) {
	var out []transport.Peer
	for _, m := range c.genesis.Members {
		identity, err := attest.ParseIdentity(m.Identity)
		if err != nil {
			return nil, err
		}
		if m.ID != but {
			out = append(out, transport.Peer{ID: m.ID, Address: m.Address, Identity: identity})
		}
	}
	return out, nil
}

// submit has an operation ordered, and returns its result as one replica says it: what came of it,
// the judge sees in the replicas' state. Retries carry the same request, which is executed once.
func (c *cluster) submit(ctx context.Context, space request.Space, operation []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	c.requests++
	req, err := request.New(c.genesis.ClusterID(), c.client, c.requests, space, [][]byte{operation})
	if err != nil {
		return nil, err
	}
	peers, err := c.peers(0)
	if err != nil {
		return nil, err
	}
	for ctx.Err() == nil {
		for _, p := range peers {
			if c.nodes[p.ID-1] == nil || c.cut[p.ID-1].Load() {
				continue
			}
			var result []byte
			if result, err = c.submitTo(ctx, p, req); err == nil {
				return result, nil
			}
		}
	}
	return nil, fmt.Errorf("nobody executes an operation: %w%s", err, c.describe())
}

// askedFor is how long one replica may take for an operation, before another one is asked.
const askedFor = 3 * time.Second

func (c *cluster) submitTo(ctx context.Context, p transport.Peer, req *request.Request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askedFor)
	defer cancel()
	conn, err := transport.Dial(c.genesis.ClusterID(), p)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	raw, err := conn.Call(ctx, replica.MethodSubmit, req.Raw())
	if err != nil {
		return nil, err
	}
	reply, err := request.ParseReply(raw)
	if err != nil {
		return nil, err
	}
	if len(reply.Results) != 1 {
		return nil, fmt.Errorf("%d results of one operation", len(reply.Results))
	}
	return reply.Results[0], nil
}

func (c *cluster) start(ctx context.Context, id bft.ReplicaID) error {
	node, err := recovery.Start(context.WithoutCancel(ctx), recovery.NodeConfig{
		Genesis: c.genesis, Self: id, Dir: storeDir, FS: c.disks[id-1], Keystore: c.keystores[id-1], Application: kv.New(), Log: c.log.With("replica", id),
		Network: func(cfg transport.Config) (recovery.Network, error) {
			t, err := transport.New(cfg)
			return line{t, c, id}, err
		},
		Clock: func() time.Time { return time.Now().Add(time.Duration(c.skews[id-1].Load())) },
	})
	if err != nil {
		return fmt.Errorf("replica %d does not start: %w", id, err)
	}
	c.nodes[id-1] = node
	return nil
}

func (c *cluster) stop(id bft.ReplicaID) error {
	node := c.nodes[id-1]
	if node == nil {
		return nil
	}
	c.nodes[id-1] = nil
	return node.Close()
}

// reboot resets a replica's machine. Its disk holds what was synced, if it crashes. Between is what
// happens while the machine is off; it may be nil.
func (c *cluster) reboot(ctx context.Context, id bft.ReplicaID, crash bool, between func() error) error {
	disk := c.disks[id-1]
	if crash { // what it says after that, nobody hears
		cut := c.cut[id-1].Swap(true)
		defer c.cut[id-1].Store(cut)
		disk = disk.CrashClone(vfs.CrashCloneCfg{})
	}
	if err := c.stop(id); err != nil {
		return err
	}
	c.disks[id-1] = disk
	if err := c.keystores[id-1].Close(); err != nil {
		return err
	}
	if between != nil {
		if err := between(); err != nil {
			return err
		}
	}
	ks, err := c.fleet.Reboot(ctx, id)
	if err != nil {
		return fmt.Errorf("replica %d does not boot: %w", id, err)
	}
	c.keystores[id-1] = ks
	c.skews[id-1].Store(0)
	return c.start(ctx, id)
}

func (c *cluster) close() {
	for id := range c.ids() {
		if err := c.stop(id); err != nil {
			c.log.Error("a node does not close", "replica", id, "error", err)
		}
	}
	for _, ks := range c.keystores {
		ks.Close()
	}
}

// line is a replica's connection with the others, which the intruder may cut.
type line struct {
	*transport.Transport
	c    *cluster
	self bft.ReplicaID
}

func (l line) down(to bft.ReplicaID) bool { return l.c.cut[l.self-1].Load() || l.c.cut[to-1].Load() }

// Send implements [recovery.Network].
func (l line) Send(to bft.ReplicaID, frame []byte) {
	if !l.down(to) {
		l.Transport.Send(to, frame)
	}
}

// Broadcast implements [recovery.Network].
func (l line) Broadcast(frame []byte) {
	for id := range l.c.ids() {
		if id != l.self {
			l.Send(id, frame)
		}
	}
}

var errCut = transport.Unreachable(errors.New("the intruder has the network"))

// Call implements [recovery.Network].
func (l line) Call(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	if l.down(to) {
		return nil, errCut
	}
	return l.Transport.Call(ctx, to, method, request)
}

// CallUnder implements [recovery.Network].
func (l line) CallUnder(ctx context.Context, as tls.Certificate, to bft.ReplicaID, method string, request []byte) ([]byte, error) {
	if l.down(to) {
		return nil, errCut
	}
	return l.Transport.CallUnder(ctx, as, to, method, request)
}

// CallVouched implements [recovery.Network].
func (l line) CallVouched(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, ed25519.PublicKey, error) {
	if l.down(to) {
		return l.c.says(l.self, to, method)
	}
	return l.Transport.CallVouched(ctx, to, method, request)
}

// await waits until something is so.
func (c *cluster) await(ctx context.Context, what string, is func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for !is() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w: %s", what, ctx.Err(), c.describe())
		}
	}
	return nil
}

// describe says where every node stands.
func (c *cluster) describe() string {
	var out []byte
	for id := range c.ids() {
		if node := c.nodes[id-1]; node != nil {
			info := node.Info()
			out = fmt.Appendf(out, "\n  replica %d: epoch %d, view %d, height %d, votes: %v, holds %+v, phase %v of round %d, %s", id, info.Status.Epoch, info.Status.View,
				info.Status.Height, info.Status.Voter, info.Holds, info.View.Phase, info.View.Round, info.View.Member(id).Status)
		} else {
			out = fmt.Appendf(out, "\n  replica %d: down", id)
		}
	}
	return string(out)
}

// settle waits until every replica that is up has learned an epoch, which has signed, and has its
// share if it is to have one.
func (c *cluster) settle(ctx context.Context, epoch bft.Epoch) error {
	return c.await(ctx, fmt.Sprintf("epoch %d has begun everywhere", epoch), func() bool {
		for id := range c.ids() {
			if node := c.nodes[id-1]; node != nil && id != c.behind {
				info := node.Info()
				h := info.Holds
				if h.Epoch != epoch || h.Waiting || h.Sealed != epoch || info.View.Epoch != epoch || h.Share != info.View.Member(id).HoldsShare {
					return false
				}
			}
		}
		return true
	})
}

// view returns the state as some replica that is up knows it.
func (c *cluster) view() *governance.View {
	var newest *governance.View
	for _, node := range c.nodes {
		if node != nil {
			if v := node.State(); newest == nil || v.Epoch > newest.Epoch || v.Epoch == newest.Epoch && v.Round > newest.Round {
				newest = v
			}
		}
	}
	return newest
}

// order has the operator order something.
func (c *cluster) order(ctx context.Context, body governance.OrderBody) error {
	c.orders++
	o := &governance.Order{Sequence: c.orders, Body: body}
	if err := o.Sign(c.genesis, c.operator); err != nil {
		return err
	}
	raw, err := governance.Encode(o)
	if err != nil {
		return err
	}
	said, err := c.submit(ctx, request.System, raw)
	if err != nil {
		return fmt.Errorf("order %T: %w", body, err)
	}
	result, err := governance.ParseResult(said)
	if err == nil && result.Refusal != nil {
		err = fmt.Errorf("the order %T was refused: %v", body, result.Refusal)
	}
	return err
}

// put has a value written, so that the epoch signs.
func (c *cluster) put(ctx context.Context, name string) error {
	operation, err := kv.Put([]byte(name), []byte("written"))
	if err != nil {
		return err
	}
	_, err = c.submit(ctx, request.Application, operation)
	return err
}

// lacking are the replicas without a share that may have one again.
func (c *cluster) lacking() []bft.ReplicaID {
	var out []bft.ReplicaID
	for _, m := range c.view().Members {
		if !m.HoldsShare && !m.Quarantined {
			out = append(out, m.ID)
		}
	}
	return slices.Clip(out)
}
