package recovery

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
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
	// Network connects the node with its peers and clients. FS is the file system of the node's store. Clock is the wall clock, by which blocks
	// get their time; durations are not measured by it.
	Network func(transport.Config) (Network, error)
	FS      vfs.FS
	Clock   func() time.Time
}

// Network is what a node needs of [transport.Transport].
type Network interface {
	replica.Network
	SetCertificate(tls.Certificate)
	CallUnder(ctx context.Context, certificate tls.Certificate, to bft.ReplicaID, method string, request []byte) ([]byte, error)
	Close() error
}

func connect(cfg transport.Config) (Network, error) { return transport.New(cfg) }

// Node is a replica that takes part in recovery rounds: it runs consensus, attests after a reboot, deals and receives shares, and hands over
// from epoch to epoch. Safe for concurrent use.
type Node struct {
	cfg       NodeConfig
	cluster   bft.ClusterID
	log       *slog.Logger
	started   time.Time
	store     *store.Store
	transport Network
	state     *governance.State
	replica   atomic.Pointer[replica.Replica]
	client    *submitter
	// keystoreKind is what the keystore said at the start: clients who ask must not keep the device busy.
	keystoreKind string
	// device is nil without a TPM.
	device *tpmDriver
	// refused: the device holds a secret that it did not unseal in this boot. It must not be overwritten.
	refused bool

	cancel  context.CancelFunc
	done    chan struct{}
	failure error
	changed chan struct{}
	working sync.WaitGroup // handoffs and submissions in the background

	mu sync.Mutex
	// epoch is that of secret and sharing; held are the dealings that made them, for replicas that missed some.
	epoch   bft.Epoch
	secret  *epochSecret
	sharing *threshold.Sharing
	held    map[bft.Digest]heldDealing
	// nextKey is the fresh epoch key that this replica attests; sealedKey is the one that was sealed.
	nextKey, sealedKey ed25519.PrivateKey
	wearing            ed25519.PublicKey // the key of the present TLS credential
	handoff            *handoff
	stopping           context.CancelFunc // ends the handoff

	live atomic.Bool // the epoch's core runs: the state is not one of long ago

	// attested is the round for which evidence was last submitted, and when; the driver's alone.
	attested   governance.Round
	attestedAt time.Time
	// rebooted: this process was started after its replica became due, and the recovery is not over yet.
	rebooted atomic.Bool
}

// credentialValidity is how long a TLS credential may be used. It hardly matters: a key counts only while the log names it.
const credentialValidity = 10 * 365 * 24 * time.Hour

// Start starts a node. It returns when the node is listening and has restored its state from disk; everything else goes on in the background until
// Close, or until the node fails (see Wait).
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
	n := &Node{
		cfg: cfg, cluster: cfg.Genesis.ClusterID(), log: cfg.Log, started: cfg.Clock(),
		done: make(chan struct{}), changed: make(chan struct{}, 1),
	}
	if err := n.checkIdentity(); err != nil {
		return nil, err
	}
	var err error
	if n.state, err = governance.New(cfg.Genesis); err != nil {
		return nil, err
	}
	if n.store, err = store.Open(filepath.Clean(cfg.Dir), n.cluster, store.Options{FS: cfg.FS}); err != nil {
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
	if err := n.unseal(ctx); err != nil {
		return err
	}
	if err := n.listen(); err != nil {
		return err
	}
	var r *replica.Replica
	if n.client, err = newSubmitter(n); err == nil {
		r, err = replica.New(replica.Config{
			Cluster: n.cluster, Self: n.cfg.Self, Store: n.store, Network: n.transport,
			Application: n.cfg.Application, System: n.state,
			Keys: n.keys, Verifier: n.verifier,
			Window: n.cfg.Genesis.Window, Timeouts: n.cfg.Genesis.Timeouts.Bounds(), Log: n.log, Clock: n.cfg.Clock,
			OnExecuted: func(replica.BlockInfo) { n.wake() }, OnEvidence: n.accuse,
		})
	}
	if err != nil {
		n.transport.Close()
		return err
	}
	n.replica.Store(r)
	n.transport.HandleClient(methodEvidence, n.serveEvidence)
	n.transport.HandleClient(methodApprovals, n.serveApprovals)
	if err := n.obey(n.state.View()); err != nil { // before anything else: the log on the disk may know of a revocation
		n.log.Error("approvals and revocations are carried out again", "error", err)
	}
	n.serve()
	ctx, n.cancel = context.WithCancel(ctx)
	go n.run(ctx)
	return nil
}

// unseal takes the secret of the keystore's epoch. That there is none, or that the device refuses it, is no reason to stop: the replica follows
// without a share until it is given one.
func (n *Node) unseal(ctx context.Context) error {
	status, err := n.cfg.Keystore.Status()
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	n.epoch, n.keystoreKind = bft.Epoch(status.Epoch), status.Kind
	secret, err := unseal(n.cfg.Keystore, n.epoch)
	if errors.Is(err, keystore.ErrNotApproved) && n.learnApprovals(ctx) {
		secret, err = unseal(n.cfg.Keystore, n.epoch)
	}
	var refused *keystore.RefusedError
	switch {
	case err == nil:
		n.nextKey = secret.nextKey
		if secret.epochKey != nil {
			n.secret, n.sharing = secret, n.loadSharing(n.epoch)
		}
	case errors.Is(err, keystore.ErrNotApproved), errors.As(err, &refused):
		n.refused = true
		fallthrough
	case keystore.Lost(err):
		n.log.Error("no secret for this epoch: the replica follows without a share until it has attested", "epoch", n.epoch, "error", err)
	default:
		return fmt.Errorf("keystore: %w", err)
	}
	// What is sealed is open: from here on nothing opens in this boot any more, and the identity key answers to this process alone.
	err = n.cfg.Keystore.Claim()
	if errors.Is(err, keystore.ErrNotApproved) && n.learnApprovals(ctx) {
		err = n.cfg.Keystore.Claim()
	}
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	return nil
}

// listen starts the transport under the epoch key, or, without one, under the fresh key that will be attested.
func (n *Node) listen() error {
	key, err := n.tlsKey()
	if err != nil {
		return err
	}
	credential, err := n.certify(key)
	if err != nil {
		return err
	}
	n.wearing = key.Public().(ed25519.PublicKey)
	listen := n.cfg.Listen
	if listen == "" {
		listen = n.cfg.Genesis.Members[n.cfg.Self-1].Address
	}
	n.transport, err = n.cfg.Network(transport.Config{
		Cluster: n.cluster, Self: n.cfg.Self, Listen: listen, Certificate: credential, Log: n.log,
		Handler: n.receive,
	})
	return err
}

// receive hands what peers send to the replica, once it is there.
func (n *Node) receive(from transport.Sender, frame []byte) {
	if r := n.replica.Load(); r != nil {
		r.Receive(from, frame)
	}
}

func (n *Node) tlsKey() (ed25519.PrivateKey, error) {
	if n.secret != nil {
		return n.secret.epochKey, nil
	}
	return n.freshKey()
}

// freshKey returns the key that this replica attests in its recovery, made on first use.
func (n *Node) freshKey() (ed25519.PrivateKey, error) {
	if n.nextKey == nil {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		n.nextKey = key
	}
	return n.nextKey, nil
}

// sealFreshKey makes the key that will be attested survive a restart, together with what is sealed for the present epoch.
func (n *Node) sealFreshKey() (ed25519.PrivateKey, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key, err := n.freshKey()
	if err != nil || n.sealedKey.Equal(key) || n.refused {
		return key, err
	}
	secret := epochSecret{nextKey: key}
	if n.secret != nil {
		secret = *n.secret
		secret.nextKey = key
	}
	if err := secret.seal(n.cfg.Keystore, n.epoch); err != nil {
		return nil, fmt.Errorf("keystore: seal the fresh key: %w", err)
	}
	n.sealedKey = key
	return key, nil
}

func (n *Node) run(ctx context.Context) {
	defer close(n.done)
	defer n.cancel()
	driven := make(chan struct{})
	go func() { defer close(driven); n.drive(ctx) }()
	if err := n.replica.Load().Run(ctx); err != nil && ctx.Err() == nil {
		n.log.Error("the replica stops", "error", err)
		n.failure = err
	}
	n.cancel()
	<-driven
}

// Wait waits until the node has stopped, and returns why it failed, if it did.
func (n *Node) Wait() error {
	<-n.done
	return n.failure
}

// Close stops the node and releases its directory.
func (n *Node) Close() error {
	n.cancel()
	<-n.done
	n.working.Wait()
	n.transport.Close()
	err := n.store.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.secret.wipe()
	for _, d := range n.held {
		d.part.Wipe()
	}
	if n.handoff != nil {
		n.handoff.discard()
	}
	clear(n.nextKey)
	return err
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
