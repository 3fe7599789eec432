package replica

import (
	"context"
	"crypto/ed25519"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/budget"
	"github.com/reseal-bft/reseal/bft/request"
)

// propose answers a Propose effect beside the core: with requests as soon as there are some, or
// empty when the leader may idle no longer, or much is ordered already and not executed. A new
// Propose makes the one before pointless.
func (e *epochRun) propose(p bft.Propose) {
	if e.endProposal != nil {
		e.endProposal()
	}
	ctx, cancel := context.WithCancel(e.ctx)
	e.endProposal = cancel
	e.group.Go(func() error {
		defer cancel()
		var requests []*request.Request
		if p.Empty || e.headers.payloads(p.Header.Parent, p.Header.StateHeight) > budget.Open {
			wait(ctx, p.MayIdle)
		} else {
			requests = e.r.pool.take(ctx, p.Header.View, p.MayIdle)
		}
		if ctx.Err() != nil {
			e.r.pool.giveBack(requests)
			return nil
		}
		block := e.makeBlock(p, requests)
		e.r.parsed.add(position{block.Epoch, block.View}, block.Digest(), requests)
		e.noteProposed(block.View)
		e.events.put(bft.Proposed{Block: block})
		return nil
	})
}

// wait waits for a while, or until the context ends.
func wait(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

// makeBlock fills in the header and signs the block with the epoch key.
func (e *epochRun) makeBlock(p bft.Propose, requests []*request.Request) *bft.Block {
	block := &bft.Block{Header: p.Header, Payload: request.AppendPayload(nil, requests)}
	block.Header.Payload = bft.PayloadDigest(block.Payload)
	block.Header.Time = max(e.r.date(), p.MinTime)
	block.Signature = ed25519.Sign(e.keys.BlockKey, bft.ProposalBytes(e.config.Cluster, block.Digest()))
	return block
}

// heard is what this replica knows of the others' clocks by the log.
type heard struct {
	tip  int64 // the time of the last final block
	time int64 // that of the last one by which another leader advanced it; milliseconds since 1970
	at   time.Time
}

// hear notes the time of a final block. One with its parent's time shows no clock.
func (r *Replica) hear(b *bft.Block) {
	h := heard{}
	if last := r.heard.Load(); last != nil {
		h = *last
		if b.Time > h.tip && b.Proposer != r.cfg.Self {
			h.time, h.at = b.Time, time.Now()
		}
	}
	h.tip = b.Time
	r.heard.Store(&h)
}

// date is the time of a block of this replica: the wall clock's, and no more than half of what a
// block's time may be ahead beyond what another leader's clock showed, which a quorum found right,
// and what has passed since. A correct replica whose wall clock is ahead thereby makes blocks that
// the others vote for: its turns are not lost, and while one is needed for every quorum, its vote
// for its own block does not stand against theirs until the clocks of all show that time.
func (r *Replica) date() int64 {
	now := r.now()
	if h := r.heard.Load(); h != nil && h.time != 0 {
		now = min(now, h.time+(time.Since(h.at)+r.cfg.Timeouts.Ahead/2).Milliseconds())
	}
	return now
}
