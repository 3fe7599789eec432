package handoff

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
)

// Config is what a replica's part in handoffs is made of.
type Config struct {
	Cluster bft.ClusterID
	Self    bft.ReplicaID
	Keeper  *Keeper
	Network Network
	State   State
	// Founding is the membership of epoch 0.
	Founding *replica.Membership
	// Certify makes a credential of this replica for a key in the present epoch.
	Certify func(ed25519.PrivateKey) (tls.Certificate, error)
	// Present waits until a quorum says, when it is asked, that no epoch after the given one has
	// begun. The keys to which this replica gives secrets are those that its log names, and it may be
	// behind.
	Present func(ctx context.Context, last bft.Epoch) error
	// Submit puts an operation into the log.
	Submit func(governance.Operation) error
	// Completed is called when a share of an epoch is complete that had begun without it.
	Completed func()
	Log       *slog.Logger
}

// Network is what a handoff needs of [transport.Transport].
type Network interface {
	Call(ctx context.Context, to bft.ReplicaID, method string, request []byte) ([]byte, error)
	CallUnder(ctx context.Context, certificate tls.Certificate, to bft.ReplicaID, method string, request []byte) ([]byte, error)
	Handle(method string, serve transport.Method)
}

// State is what the log decides; [governance.State] is one.
type State interface {
	View() *governance.View
	Membership() *replica.Membership
}

// Party is this replica's part in handoffs: it deals, receives and completes what the log asks for,
// and serves the others. Safe for concurrent use.
type Party struct {
	cfg     Config
	working sync.WaitGroup

	mu      sync.Mutex
	attempt *attempt
	begun   bft.Epoch // the newest that has begun with what share there was: one that is completed later is news

	resuming sync.Mutex
	resumed  bft.Epoch // tried in it
}

// NewParty registers what it serves with the network.
func NewParty(cfg Config) *Party {
	p := &Party{cfg: cfg}
	p.serve()
	return p
}

// Learn takes note of a certified epoch: the attempts at handoffs that led to earlier ones are
// over, and so is what this replica dealt for this one. After a start it makes this replica's share
// of the epoch, if its disk has the parts.
func (p *Party) Learn(m *replica.Membership) error {
	p.mu.Lock()
	a := p.attempt
	if a != nil && a.to < m.Epoch {
		a.stop()
		p.attempt = nil
	}
	p.mu.Unlock()
	if a != nil && a.to <= m.Epoch {
		a.endDealing()
	}
	err := p.cfg.Keeper.Learn(m)
	p.resume()
	return err
}

// Follow starts this replica's part in the handoff that the state asks for, and ends one that is
// void. It is idempotent.
func (p *Party) Follow(ctx context.Context, v *governance.View) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wanted := p.wanted(v)
	if a := p.attempt; a != nil {
		if wanted != nil && a.to == wanted.to && a.round == wanted.round {
			return // it runs already, or awaits its epoch
		}
		a.stop()
		a.endDealing()
		p.attempt = nil
		if err := p.cfg.Keeper.void(a.to, a.round); err != nil {
			p.cfg.Log.Error("parts of an attempt that is void stay on disk", "error", err)
		}
	}
	if wanted == nil || p.cfg.Keeper.ready(wanted.to, wanted.epochKey) {
		return
	}
	p.attempt = wanted
	ctx, wanted.stop = context.WithCancel(ctx)
	p.working.Go(func() { wanted.run(ctx, v) })
}

// wanted returns this replica's part in the running handoff, or in the last one, which may not have
// given it its share yet; nil if it has none.
func (p *Party) wanted(v *governance.View) *attempt {
	me := v.Member(p.cfg.Self)
	switch {
	case (v.Phase == governance.PhaseDealing || v.Phase == governance.PhaseReady) && slices.Contains(v.Eligible, me.ID):
		key := me.EpochKey
		if me.NextKey != nil {
			key = me.NextKey
		}
		return p.newAttempt(v, v.Epoch, v.Round, key)
	case v.Epoch > 0 && me.HoldsShare && !p.cfg.Keeper.ready(v.Epoch, me.EpochKey):
		return p.newAttempt(v, v.LastHandoff.Epoch, v.LastHandoff.Round, me.EpochKey)
	}
	return nil
}

func (p *Party) newAttempt(v *governance.View, from bft.Epoch, round governance.Round, key []byte) *attempt {
	return &attempt{
		p: p, from: from, to: from + 1, round: round, epochKey: key,
		params: threshold.Params{N: v.N, T: v.Quorum, F: v.F},
		dealt:  make(chan struct{}), completed: make(chan struct{}),
		acks: make(map[bft.ReplicaID][]byte), forged: make(map[bft.ReplicaID]bool),
	}
}

// Await waits for the share of an epoch that begins, if a handoff is about to give it. After the
// given patience the replica follows, and signs when it has it: from the return on,
// [Config.Completed] says so, whichever attempt brings the share. One may begin only now, by a
// state that was read before the epoch began.
func (p *Party) Await(ctx context.Context, epoch bft.Epoch, patience time.Duration) {
	defer p.begin(epoch)
	p.mu.Lock()
	a := p.attempt
	p.mu.Unlock()
	if a == nil || a.to != epoch {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-a.completed:
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (p *Party) begin(epoch bft.Epoch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = epoch
}

func (p *Party) hasBegun(epoch bft.Epoch) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.begun >= epoch
}

// Close waits until all that it does has ended; the context of Follow is to be over.
func (p *Party) Close() {
	p.working.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.attempt != nil {
		p.attempt.endDealing()
		p.attempt = nil
	}
}
