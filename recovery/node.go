package recovery

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/budget"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/recovery/handoff"
)

// NodeConfig is what a node is made of.
type NodeConfig struct {
	Genesis *governance.Genesis
	Self    bft.ReplicaID
	// Dir is the directory of the node's store. It is made if it does not exist.
	Dir string
	// Listen is the address to listen on; empty: the member's address in the genesis.
	Listen string
	// Keystore holds the node's identity and its sealed secrets. The caller closes it after the node.
	Keystore    keystore.Keystore
	Application bft.Application
	// Log may be nil.
	Log *slog.Logger

	// The surroundings of a node, which a simulator replaces. Each may be nil: the machine's own.
	//
	// Network connects the node with its peers and clients. FS is the file system of the node's
	// store. Clock is the wall clock, by which blocks get their time; durations are not measured by
	// it. Retention is how much of the log is kept.
	Network   func(transport.Config) (Network, error)
	FS        vfs.FS
	Clock     func() time.Time
	Retention replica.Retention

	// Memory has the budgets of what is kept in memory, but for what the application keeps; nil:
	// those of [budget.Default], or of the least that the cluster's size takes.
	Memory *budget.Table

	// Observe, if it is not nil, is shown what goes into the consensus core and what comes out, see
	// replica.Config.
	Observe func(bft.Config, bft.Restored) func(bft.Now, bft.Event, []bft.Effect)
}

// Network is what a node needs of [transport.Transport].
type Network interface {
	replica.Network
	SetCertificate(tls.Certificate)
	CallUnder(ctx context.Context, certificate tls.Certificate, to bft.ReplicaID, method string, request []byte) ([]byte, error)
	CallVouched(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, ed25519.PublicKey, error)
	// Twice are the replicas as which two processes run.
	Twice() []bft.ReplicaID
	Close() error
}

func connect(cfg transport.Config) (Network, error) { return transport.New(cfg) }

// Node is a replica that takes part in recovery rounds: it runs consensus, attests after a reboot,
// deals and receives shares, and hands over from epoch to epoch. Safe for concurrent use.
type Node struct {
	cfg       NodeConfig
	cluster   bft.ClusterID
	log       *slog.Logger
	started   time.Time // by the wall clock; began is for durations
	began     time.Time
	store     *store.Store
	transport Network
	state     *governance.State
	info      info
	replica   atomic.Pointer[replica.Replica]
	client    *submitter
	keeper    *handoff.Keeper
	party     *handoff.Party
	// keystoreKind is what the keystore said at the start: clients who ask must not keep the device
	// busy.
	keystoreKind string
	// device is nil without a TPM.
	device *tpmDriver

	cancel  context.CancelFunc
	done    chan struct{}
	failure error
	failing atomic.Pointer[error] // why the node ends itself
	serving atomic.Bool           // the state is there, and calls are served
	// broken is closed when the disk has failed beneath the store, after lost says why. Whoever is
	// just writing may then hang for ever.
	broken  chan struct{}
	lost    error
	changed chan struct{}
	working sync.WaitGroup // submissions in the background

	live atomic.Bool // the epoch's core runs: the state is not one of long ago
	// signed is the epoch, plus one, of the last final block that did not end its epoch: a quorum
	// of that epoch has signed.
	signed atomic.Uint64
	// moved is when the last block was executed, in nanoseconds since began.
	moved atomic.Int64

	worn credential // the driver's, and Start's before

	words *words

	// attested is the round for which evidence was last submitted, and when; the driver's alone.
	attested   governance.Round
	attestedAt time.Time
	// rebooted is the height at which its replica had become due (never 0) when this process was
	// started, as the log on its disk says.
	rebooted bft.Height
}

// Start starts a node. It returns when the node is listening and has restored its state from disk;
// everything else goes on in the background until Close, or until the node fails (see Wait).
func Start(ctx context.Context, cfg NodeConfig) (*Node, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Network == nil {
		cfg.Network = connect
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Memory == nil {
		var err error
		if cfg.Memory, err = budget.Of(0, cfg.Genesis.Size()); err != nil {
			return nil, err
		}
	}
	n := &Node{
		cfg: cfg, cluster: cfg.Genesis.ClusterID(), log: cfg.Log, started: cfg.Clock(), began: time.Now(),
		done: make(chan struct{}), broken: make(chan struct{}), changed: make(chan struct{}, 1), words: newWords(cfg.Genesis.Attestation.Required),
	}
	if err := n.checkIdentity(); err != nil {
		return nil, err
	}
	var err error
	if n.state, err = governance.New(cfg.Genesis); err != nil {
		return nil, err
	}
	if n.store, err = store.Open(filepath.Clean(cfg.Dir), n.cluster, store.Options{FS: cfg.FS, Log: cfg.Log, OnFailure: n.diskFailed}); err != nil {
		return nil, err
	}
	if err := n.start(ctx); err != nil {
		n.store.Close()
		return nil, err
	}
	return n, nil
}

// checkIdentity refuses a keystore of another member, before anything is touched.
func (n *Node) checkIdentity() error {
	members := n.cfg.Genesis.Members
	if n.cfg.Self < 1 || int(n.cfg.Self) > len(members) {
		return fmt.Errorf("replica %d is not in the genesis, which has members 1 to %d", n.cfg.Self, len(members))
	}
	identity, err := attest.ParseIdentity(members[n.cfg.Self-1].Identity)
	if err != nil {
		return err
	}
	if public, ok := n.cfg.Keystore.Identity().Public().(*ecdsa.PublicKey); !ok || !public.Equal(identity) {
		return fmt.Errorf("the keystore holds another identity than the genesis names for replica %d: give this replica its own keystore", n.cfg.Self)
	}
	return nil
}

func (n *Node) start(ctx context.Context) (err error) {
	if n.device, err = newTPMDriver(n.cfg.Keystore); err != nil {
		return err
	}
	if err := n.obey(n.state.View()); err != nil { // the founding approvals, for a keystore whose directory was made again
		n.log.Error("the founding approvals are carried out again", "error", err)
	}
	status, err := n.cfg.Keystore.Status()
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	n.keystoreKind = status.Kind
	if n.keeper, err = handoff.Open(n.cfg.Keystore, n.store, n.cfg.Self, func() bool { return n.learnApprovals(ctx) }, n.log); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			n.keeper.Close()
		}
	}()
	if err := n.listen(); err != nil {
		return err
	}
	founding := n.state.Membership()
	r, err := n.newReplica()
	if m := n.state.Membership(); err == nil && m.Epoch > 0 {
		err = n.keeper.CheckGroupKey(m.GroupKey)
	}
	if err == nil {
		// What was held of epochs that are over ends before anything else is done.
		err = n.keeper.Learn(n.state.Membership())
	}
	if err != nil {
		n.transport.Close()
		return err
	}
	if err := n.considerCredential(n.state.Membership()); err != nil {
		n.log.Error("changing the TLS key failed", "error", err)
	}
	if v := n.state.View(); v.Phase == governance.PhaseAttesting && v.Member(n.cfg.Self).Due {
		n.rebooted = v.Member(n.cfg.Self).Awaited.Height // whatever the clocks say: the log of before the start knows of it
	}
	if err := n.obey(n.state.View()); err != nil { // before anything else: the log on the disk may know of a revocation
		n.log.Error("approvals and revocations are carried out again", "error", err)
	}
	ctx, n.cancel = context.WithCancel(ctx)
	n.party = handoff.NewParty(handoff.Config{
		Cluster: n.cluster, Self: n.cfg.Self, Keeper: n.keeper, Network: n.transport, State: n.state, Founding: founding,
		Certify: n.certify, Present: n.present, Submit: n.order, Completed: r.Rekey, Log: n.log,
	})
	n.replica.Store(r)
	n.transport.HandleClient(methodInfo, n.serveInfo)
	n.transport.HandleClient(methodEpoch, n.serveEpoch)
	n.transport.HandleClient(methodEvidence, n.serveEvidence)
	n.transport.HandleClient(methodApprovals, n.serveApprovals)
	n.serving.Store(true)
	n.wake()
	for _, m := range n.cfg.Genesis.Members {
		if m.ID != n.cfg.Self {
			n.working.Go(func() { n.listenAhead(ctx, m.ID) })
		}
	}
	go n.run(ctx)
	return nil
}

// newReplica restores the state from disk.
func (n *Node) newReplica() (*replica.Replica, error) {
	var err error
	if n.client, err = newSubmitter(n); err != nil {
		return nil, err
	}
	return replica.New(replica.Config{
		Cluster: n.cluster, Self: n.cfg.Self, Store: n.store, Network: n.transport,
		Application: n.cfg.Application, System: n.state,
		Keys: n.keys, Verifier: n.verifier,
		Window: n.cfg.Genesis.Window, Timeouts: n.cfg.Genesis.Timeouts.Bounds(), Retention: n.cfg.Retention, Memory: n.cfg.Memory, Log: n.log, Clock: n.cfg.Clock,
		OnExecuted: n.executed, OnEvidence: n.accuse, Observe: n.cfg.Observe,
	})
}

// executed takes note of a final block.
func (n *Node) executed(block replica.BlockInfo) {
	n.moved.Store(int64(time.Since(n.began)))
	if block.Epoch == n.state.Membership().Epoch {
		n.signed.Store(uint64(block.Epoch) + 1)
	}
	n.wake()
}

// listen starts the transport under the epoch key, or, without one, under a fresh key.
func (n *Node) listen() error {
	key, err := n.keyToWear(n.state.Membership())
	if err != nil {
		return err
	}
	// The state is not restored yet. Under a key that the log names the term does not matter; under
	// another one it is put right when it is known.
	certificate, err := n.issue(transport.Term{Epoch: n.keeper.Epoch()}, key)
	if err != nil {
		return err
	}
	listen := n.cfg.Listen
	if listen == "" {
		listen = n.cfg.Genesis.Members[n.cfg.Self-1].Address
	}
	n.transport, err = n.cfg.Network(transport.Config{
		Cluster: n.cluster, Self: n.cfg.Self, Listen: listen, Certificate: certificate, Identity: n.cfg.Keystore.Identity(), Memory: n.cfg.Memory, Log: n.log, F: n.cfg.Genesis.F,
		Handler: n.receive, Admit: n.admit, Named: n.named, OnLost: n.miss, Starting: func() bool { return !n.serving.Load() },
	})
	return err
}

// receive hands what peers send to the replica, once it is there.
func (n *Node) receive(from transport.Sender, frame []byte) {
	if r := n.replica.Load(); r != nil && n.awaitBeginning() {
		r.Receive(from, frame)
	}
}

// miss tells the replica of a peer that has ended.
func (n *Node) miss(id bft.ReplicaID) {
	if r := n.replica.Load(); r != nil {
		r.Lost(id)
	}
}

func (n *Node) run(ctx context.Context) {
	defer close(n.done)
	defer n.cancel()
	driven := make(chan struct{})
	go func() { defer close(driven); n.drive(ctx) }()
	err := n.replica.Load().Run(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	if why := n.failing.Load(); why != nil {
		err = *why
	}
	if err != nil {
		n.log.Error("the replica stops", "error", err)
		n.failure = err
	}
	n.cancel()
	<-driven
}

// fail ends the node.
func (n *Node) fail(err error) {
	n.failing.CompareAndSwap(nil, &err)
	n.cancel()
}

// brokenPatience is how long Close waits for a node whose disk has failed.
const brokenPatience = 2 * time.Second

// diskFailed is told once that nothing can be written any more.
func (n *Node) diskFailed(err error) {
	n.lost = err
	close(n.broken)
}

// Wait waits until the node has stopped, and returns why it failed, if it did. A node whose disk
// has failed need not have stopped: the process should end.
func (n *Node) Wait() error {
	select {
	case <-n.done:
		return n.failure
	case <-n.broken:
		return n.lost
	}
}

// Close stops the node, releases its directory, and wipes what it held in memory. When the disk has
// failed, what is just writing may never end: then Close does not wait for it, and only the end of
// the process releases and wipes all.
func (n *Node) Close() error {
	n.cancel()
	select {
	case <-n.done:
	case <-n.broken:
		select {
		case <-n.done:
		case <-time.After(brokenPatience):
			return nil
		}
	}
	n.working.Wait()
	n.party.Close()
	n.transport.Close()
	n.keeper.Close()
	return n.store.Close()
}

// State returns the replicated state of the cluster, as this node knows it.
func (n *Node) State() *governance.View { return n.state.View() }

// wake lets the driver look at the state.
func (n *Node) wake() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// accuse submits proof that a leader equivocated.
func (n *Node) accuse(_ bft.ReplicaID, evidence bft.Evidence) {
	if err := n.order(&governance.Accuse{Evidence: evidence}); err != nil {
		n.log.Warn("submitting evidence failed", "error", err)
	}
}
