package replica

import (
	"fmt"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
)

// executeLoop executes final blocks beside the core and answers it with the roots.
func (e *epochRun) executeLoop() error {
	var batch []bft.Finalized
	for {
		if batch = e.finals.take(e.ctx, batch); batch == nil {
			return e.ctx.Err()
		}
		for _, f := range batch {
			s, err := e.r.execute(f.Block, f.Last)
			if err != nil {
				return err
			}
			e.events.put(bft.Executed{Height: s.height, Root: s.root, HandoffReady: s.handoffReady})
			if f.Last {
				return errEpochEnded
			}
		}
	}
}

// execute applies one final block and tells everybody who waits for it.
func (r *Replica) execute(block *bft.Block, last bool) (*state, error) {
	requests, err := request.ParsePayload(block.Payload)
	if err != nil {
		return nil, fmt.Errorf("final block %d: %w", block.Height, err)
	}
	digest := block.Digest()
	s, err := r.ledger.execute(block, digest, requests, last)
	if err != nil {
		return nil, err
	}
	if last {
		if err := r.noteBaseRoot(r.cfg.System.Membership()); err != nil {
			return nil, err
		}
	}
	r.pool.settle(block.Height, requests)
	if r.cfg.OnExecuted != nil {
		r.cfg.OnExecuted(BlockInfo{Epoch: block.Epoch, Height: block.Height, Digest: digest, Time: block.Time})
	}
	return s, nil
}

// certified takes note of a certified state, and keeps a snapshot of one now and then.
func (r *Replica) certified(header bft.Header, certificate bft.Certificate) {
	if c := r.ledger.certify(header, certificate); c != nil {
		r.snapshots.consider(c)
	}
}
