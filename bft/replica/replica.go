package replica

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/budget"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/bft/transport"
)

// Network is what a replica needs of [transport.Transport].
type Network interface {
	Send(to bft.ReplicaID, frame []byte)
	Broadcast(frame []byte)
	Call(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, error)
	Handle(method string, serve transport.Method)
	HandleClient(method string, serve transport.Method)
	SetPeers(peers []transport.Peer)
	Connected() []bft.ReplicaID
}

// EpochKeys are what a replica holds of one epoch's keys.
type EpochKeys struct {
	Scheme bft.Scheme
	// Signer makes partial signatures with the epoch's share; nil without one: the replica then
	// follows and says nothing.
	Signer bft.Signer
	// BlockKey is the epoch key of the replica; nil without one.
	BlockKey ed25519.PrivateKey
	// MarkKey authenticates the mark beside the store in this epoch. It is secret, and the same
	// after a restart; nil leaves a checksum.
	MarkKey []byte
}

// Config is what a replica is made of. All fields are needed but Retention, Memory, Clock, Observe
// and those that begin with On.
type Config struct {
	Cluster     bft.ClusterID
	Self        bft.ReplicaID
	Store       *store.Store
	Network     Network
	Application bft.Application
	System      System
	// Keys returns the keys for an epoch; it is called when the epoch begins, and again after
	// [Replica.Rekey]. It may take as long as it takes to unseal or to complete them.
	Keys func(context.Context, *Membership) (EpochKeys, error)
	// Verifier returns what verifies the certificates of an epoch and of all later ones but, in
	// epoch 0, of epoch 0 alone.
	Verifier func(*Membership) (bft.Scheme, error)
	Window   int
	Timeouts bft.Timeouts
	// Retention may be zero.
	Retention Retention
	// Memory has the budgets of what is kept in memory; nil stands for those of a cluster of six
	// under [budget.Default].
	Memory *budget.Table
	Log    *slog.Logger
	// Clock is the machine's wall clock, which may be wrong and may jump; nil stands for time.Now.
	// Durations are not measured by it.
	Clock func() time.Time
	// OnExecuted is called after each executed block, on the goroutine that executes: it must not block.
	OnExecuted func(BlockInfo)
	// OnEvidence is called with proof that a leader equivocated. It must not block.
	OnEvidence func(bft.ReplicaID, bft.Evidence)
	// Observe is called when the core of an epoch is made, with what it is made of, and what it
	// returns after every step of that core, before the effects are carried out: for judging and
	// replaying what a replica did. A nil event stands for the core's start. Both are called on one
	// goroutine at a time, must not block, and must neither change nor keep what they are shown,
	// which holds this replica's partial signatures.
	Observe func(bft.Config, bft.Restored) func(bft.Now, bft.Event, []bft.Effect)
}

// Replica runs the consensus core in the world: it carries the core's effects out, executes final
// blocks and answers clients.
type Replica struct {
	cfg    Config
	memory *budget.Table
	ledger *ledger
	keeper bft.Keeper // the application, if it is one
	pool   *pool
	log    *slog.Logger

	snapshots  snapshots
	early      early
	parsed     parsed
	merits     merits
	recall     recall
	clocks     clocks
	complaints complaints

	// found is the mark of the run before; asked says that peers were asked for this replica's
	// votes since it last caught up; live, that the epoch has begun in this process. They are of
	// the goroutine of Run.
	found   found
	asked   bool
	live    bool
	amnesia atomic.Pointer[amnesia]

	logShare, blockShare *share // what others fetch: log and snapshots; single blocks

	run    atomic.Pointer[epochRun] // the current epoch's; nil between epochs
	rekey  chan struct{}
	behind chan bft.ReplicaID
	jumped atomic.Int64 // by how much the wall clock last jumped, in nanoseconds
}

// errBehind ends an epoch's run when only a catch-up over the log can help.
var errBehind = errors.New("the cluster is ahead")

// errRekey ends an epoch's run when its keys have changed.
var errRekey = errors.New("the epoch's keys have changed")

// New prepares a replica from what is on its disk: it restores the last snapshot and executes the
// final blocks after it. It registers its methods with the network; [Replica.Run] runs it.
func New(cfg Config) (*Replica, error) {
	if cfg.Retention == (Retention{}) {
		cfg.Retention = Retention{Kept: keptBlocks, Leap: leapBlocks}
	}
	if cfg.Memory == nil {
		cfg.Memory = budget.Usual()
	}
	r := &Replica{
		cfg: cfg, memory: cfg.Memory, pool: newPool(cfg.Memory.Pool), log: cfg.Log, complaints: newComplaints(cfg.Log),
		rekey: make(chan struct{}, 1), behind: make(chan bft.ReplicaID, 1),
		logShare: newShare(), blockShare: newShare(),
	}
	r.keeper, _ = cfg.Application.(bft.Keeper)
	r.snapshots.phase = phaseOf(cfg.Self, len(cfg.System.Membership().Members))
	r.snapshots.wanted = make(chan *certifiedState, 1)
	r.early.limit, r.parsed.limit = cfg.Memory.Early, cfg.Memory.Parsed
	r.ledger = newLedger(cfg.Cluster, cfg.Application, cfg.System, cfg.Memory.Results)
	if err := r.recover(); err != nil {
		return nil, fmt.Errorf("recover the replica's state from disk: %w", err)
	}
	if err := r.findMark(); err != nil {
		return nil, fmt.Errorf("read the mark beside the store: %w", err)
	}
	r.enter(cfg.System.Membership())
	r.serve()
	return r, nil
}

// enter connects the replica with the members of an epoch.
func (r *Replica) enter(m *Membership) {
	peers := make([]transport.Peer, 0, len(m.Members))
	for _, member := range m.Members {
		if member.ID != r.cfg.Self {
			peers = append(peers, transport.Peer{ID: member.ID, Address: member.Address, Identity: member.Identity})
		}
	}
	r.cfg.Network.SetPeers(peers)
}

// Run runs the replica, epoch after epoch, until the context ends or its disk or keys fail. Nothing
// that it started goes on when it returns.
func (r *Replica) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() { r.snapshotLoop(ctx) })
	for _, m := range r.Membership().Members {
		if m.ID != r.cfg.Self {
			beside.Go(func() { r.watchClock(ctx, m.ID) })
		}
	}
	r.awaitPeers(ctx)
	for behind := true; ctx.Err() == nil; {
		if err := r.replayAll(); err != nil { // what the core announced as its run ended, and nobody came to execute
			return err
		}
		if behind {
			r.asked = false
			if err := r.followOthers(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
		err := r.runNext(ctx)
		behind = errors.Is(err, errBehind)
		r.live = err == nil || r.live && errors.Is(err, errRekey)
		if err != nil && !behind && !errors.Is(err, errRekey) && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// followOthers catches up, and makes sure that the log on disk is one to go on with. While others
// that could mend it are away, it waits for them.
func (r *Replica) followOthers(ctx context.Context) error {
	for {
		agreed, err := r.catchUp(ctx)
		if err != nil {
			return err
		}
		damaged := r.checkReplayed()
		if damaged == nil || agreed {
			return damaged
		}
		r.log.Error("waiting for others that have the log", "error", damaged)
		timer := time.NewTimer(time.Second)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// runNext runs the epoch that the executed log has reached.
func (r *Replica) runNext(ctx context.Context) error {
	m := r.cfg.System.Membership()
	r.enter(m)
	if err := r.keepEnd(m); err != nil {
		return fmt.Errorf("keep the proof of the end of epoch %d: %w", m.Epoch-1, err)
	}
	if err := r.cfg.Store.PruneEpoch(m.Epoch); err != nil {
		return fmt.Errorf("forget what earlier epochs left on disk: %w", err)
	}
	keys, err := r.cfg.Keys(ctx, m)
	if err != nil {
		return fmt.Errorf("keys of epoch %d: %w", m.Epoch, err)
	}
	return r.runEpoch(ctx, m, keys)
}

// awaitPeers waits a moment for connections to f + 1 others, one of them correct, and for their
// clocks: a replica that comes back then learns at once what it missed, and when it is. A cluster
// that starts cold does not depend on it.
func (r *Replica) awaitPeers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for size := r.Membership().Size; len(r.cfg.Network.Connected()) <= size.F || r.clocks.agreed(size, time.Now()) == 0; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// Rekey says that the keys of the current epoch have changed: a share was completed.
func (r *Replica) Rekey() { signal(r.rekey) }

// Behind says that a peer is in a later epoch, for owners that hear of it in another way: a replica
// hears nothing of those whose keys are all of later epochs. The peer is asked to prove it.
func (r *Replica) Behind(peer bft.ReplicaID) { r.fallenBehind(peer) }

// fallenBehind says that a peer seems to be further than the core can follow.
func (r *Replica) fallenBehind(peer bft.ReplicaID) {
	select {
	case r.behind <- peer:
	default:
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Membership returns what the executed log says now of the members and their keys. It is not
// changed afterwards.
func (r *Replica) Membership() *Membership { return r.cfg.System.Membership() }

// Status is a snapshot of where a replica stands.
type Status struct {
	Epoch    bft.Epoch  `json:"epoch"`
	View     bft.View   `json:"view"`
	Height   bft.Height `json:"height"`
	Voter    bool       `json:"voter"`
	Diverged bool       `json:"diverged"`
	// ClockJumped is the last jump of the wall clock since the start, in milliseconds (negative:
	// back), and ClockBehind by how much the clock was behind the time of the log when that was
	// last found to be too much; 0 when all is well.
	ClockJumped int64 `json:"clock_jumped_ms"`
	ClockBehind int64 `json:"clock_behind_ms"`
	// Amnesia says that the replica has forgotten votes of this epoch and casts none before the
	// next; AmnesiaReason is for operators.
	Amnesia       bool   `json:"amnesia"`
	AmnesiaReason string `json:"amnesia_reason,omitempty"`
	// CertifiedHeight is the height of the last state that a certificate proves.
	CertifiedHeight bft.Height `json:"certified_height"`
	Root            string     `json:"state_root"`
}

// Status returns where the replica stands now.
func (r *Replica) Status() Status {
	latest := r.ledger.latest.Load()
	s := Status{Epoch: r.Membership().Epoch, Height: latest.height, Root: fmt.Sprintf("%x", latest.root[:])}
	s.ClockJumped = time.Duration(r.jumped.Load()).Milliseconds()
	if c := r.ledger.certified.Load(); c != nil {
		s.CertifiedHeight = c.height
	}
	if run := r.run.Load(); run != nil {
		s.Epoch, s.View, s.Voter = run.config.Epoch, bft.View(run.view.Load()), run.config.Voter
		s.Diverged = run.diverged.Load()
		s.ClockBehind = time.Duration(run.behind.Load()).Milliseconds()
	}
	if a := r.amnesia.Load(); a != nil && a.epoch >= s.Epoch {
		s.Amnesia, s.AmnesiaReason = true, a.reason
	}
	return s
}

// Anchor returns the latest certified header and its notarization, or finalization, 48 bytes under
// the group key: proof of a recent state, and a value that nobody could predict. It is false while
// there is none.
func (r *Replica) Anchor() (bft.Header, bft.Certificate, bool) {
	c := r.ledger.certified.Load()
	if c == nil {
		return bft.Header{}, bft.Certificate{}, false
	}
	return c.header, c.certificate, true
}

// now reads the wall clock: milliseconds since 1970.
func (r *Replica) now() int64 {
	if r.cfg.Clock != nil {
		return r.cfg.Clock().UnixMilli()
	}
	return time.Now().UnixMilli()
}
