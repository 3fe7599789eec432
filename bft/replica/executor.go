package replica

import (
	"fmt"
	"sync"
	"time"

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
	digest := block.Digest()
	requests, ok := r.parsed.take(position{block.Epoch, block.View}, digest)
	if !ok {
		var err error
		if requests, err = request.ParsePayload(block.Payload); err != nil {
			return nil, fmt.Errorf("final block %d: %w", block.Height, err)
		}
	}
	return r.executeParsed(block, digest, requests, last)
}

func (r *Replica) executeParsed(block *bft.Block, digest bft.Digest, requests []*request.Request, last bool) (*state, error) {
	s, err := r.ledger.execute(block, digest, requests, last)
	if err != nil {
		return nil, err
	}
	r.snapshots.logged.Add(int64(len(block.Payload)))
	if last {
		if err := r.noteBaseRoot(r.cfg.System.Membership()); err != nil {
			return nil, err
		}
	}
	r.pool.settle(block.View, requests, time.Now())
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

// parsedBlocks bounds the blocks whose requests are kept from the gateway to their execution, and
// parsedOfView those of one view: a leader that signs many keeps nobody else's out.
const (
	parsedBlocks = 64
	parsedOfView = 2
)

// parsed keeps the requests of blocks that the gateway has parsed, so that they are not parsed and
// hashed again when they are executed.
type parsed struct {
	mu     sync.Mutex
	blocks map[bft.Digest]parsedBlock
}

type parsedBlock struct {
	at       position
	requests []*request.Request
}

func (p *parsed) add(at position, digest bft.Digest, requests []*request.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blocks == nil {
		p.blocks = make(map[bft.Digest]parsedBlock)
	}
	ofView := 0
	for _, b := range p.blocks {
		if b.at == at {
			ofView++
		}
	}
	if len(p.blocks) < parsedBlocks && ofView < parsedOfView {
		p.blocks[digest] = parsedBlock{at, requests}
	}
}

// take returns the requests of a final block, if they were kept, and lets go of all blocks up to
// its view.
func (p *parsed) take(at position, digest bft.Digest) ([]*request.Request, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, ok := p.blocks[digest]
	for d, b := range p.blocks {
		if !b.at.after(at) {
			delete(p.blocks, d)
		}
	}
	return found.requests, ok
}
