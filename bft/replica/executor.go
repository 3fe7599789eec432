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
			e.meter.decide(-decisionSize(f))
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
	if r.keeper != nil {
		r.snapshots.executed(s.height, r.keeper)
	}
	if last {
		if err := r.noteBaseRoot(r.cfg.System.Membership()); err != nil {
			return nil, err
		}
	}
	r.pool.settle(block.View, requests, r.ledger.made(requests), time.Now())
	if r.cfg.OnExecuted != nil {
		r.cfg.OnExecuted(BlockInfo{Epoch: block.Epoch, Height: block.Height, Digest: digest, Time: block.Time})
	}
	return s, nil
}

// certified takes note of a certified state, and keeps a snapshot of one now and then.
func (r *Replica) certified(header bft.Header, certificate bft.Certificate) {
	if c := r.ledger.certify(header, certificate); c != nil {
		r.snapshots.consider(c, r.keeper != nil)
	}
}

// parsedOfView bounds the blocks of one view whose requests are kept from the gateway to their
// execution: a leader that signs many keeps nobody else's out.
const parsedOfView = 2

// parsed keeps the requests of blocks that the gateway has parsed, so that they are not parsed and
// hashed again when they are executed. It has a budget in bytes. What is executed soonest stays, so
// that a leader who makes up blocks high above keeps nobody else's out; what went is parsed again.
type parsed struct {
	limit int

	mu     sync.Mutex
	blocks map[bft.Digest]parsedBlock
	bytes  int
}

type parsedBlock struct {
	at       position
	requests []*request.Request
	bytes    int
}

func (p *parsed) add(at position, digest bft.Digest, requests []*request.Request) {
	b := parsedBlock{at, requests, messageBytes}
	for _, r := range requests {
		b.bytes += footprint(r)
	}
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
	if _, there := p.blocks[digest]; there || ofView >= parsedOfView {
		return
	}
	p.blocks[digest] = b
	p.bytes += b.bytes
	for p.bytes > p.limit {
		p.drop(p.highest())
	}
}

func (p *parsed) highest() (digest bft.Digest) {
	var highest position
	for d, b := range p.blocks {
		if !highest.after(b.at) {
			digest, highest = d, b.at
		}
	}
	return digest
}

func (p *parsed) drop(digest bft.Digest) {
	p.bytes -= p.blocks[digest].bytes
	delete(p.blocks, digest)
}

// take returns the requests of a final block, if they were kept, and lets go of all blocks up to
// its view.
func (p *parsed) take(at position, digest bft.Digest) ([]*request.Request, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, ok := p.blocks[digest]
	for d, b := range p.blocks {
		if !b.at.after(at) {
			p.drop(d)
		}
	}
	return found.requests, ok
}
