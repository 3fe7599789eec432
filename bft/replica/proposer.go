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
	block.Header.Time = max(e.r.date(e.config.Size), p.MinTime)
	block.Signature = ed25519.Sign(e.keys.BlockKey, bft.ProposalBytes(e.config.Cluster, block.Digest()))
	return block
}
