package replica

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/budget"
	"github.com/reseal-bft/reseal/bft/transport"
)

// methodAncestors serves blocks that are not final yet.
const methodAncestors = "reseal/ancestors"

// callTimeout is how long one peer is waited for that should have a block, and fetchPatience how long
// it is until another one is asked too: until a block is there its view may end for nobody, and a
// peer that has voted for it may be silent on purpose.
const (
	callTimeout   = 2 * time.Second
	fetchPatience = 200 * time.Millisecond
)

// Bounds of what a core's fetches may cost: as many at a time; after one that failed, a pause that
// doubles.
const (
	maxFetches    = budget.Fetches - 1 // and the log, or a snapshot
	firstPause    = 100 * time.Millisecond
	lastPause     = 5 * time.Second
	rememberedGap = 256
)

// fetches keeps the core's wishes for blocks from becoming a flood: a block is asked for once at a
// time, and less and less often while nobody has it.
type fetches struct {
	mu      sync.Mutex
	running int
	blocks  map[bft.Digest]*fetching
}

type fetching struct {
	running  bool
	failures int
	next     time.Time // not to be asked for before
}

// begin reports whether a block may be asked for now.
func (q *fetches) begin(block bft.Digest, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.blocks == nil {
		q.blocks = make(map[bft.Digest]*fetching)
	}
	f := q.blocks[block]
	if f == nil {
		f = new(fetching)
	}
	if f.running || now.Before(f.next) || q.running >= maxFetches {
		return false
	}
	if len(q.blocks) >= rememberedGap {
		for digest, old := range q.blocks {
			if !old.running {
				delete(q.blocks, digest)
			}
		}
	}
	f.running = true
	q.running++
	q.blocks[block] = f
	return true
}

// end takes note of what became of it. The pause after a failure has some chance in it, so that
// replicas do not ask in step.
func (q *fetches) end(block bft.Digest, found bool, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	f := q.blocks[block]
	f.running = false
	if found {
		delete(q.blocks, block)
		return
	}
	pause := min(firstPause<<min(f.failures, 10), lastPause)
	f.failures++
	f.next = now.Add(pause/2 + rand.N(pause))
}

// startFetch answers a Fetch effect, unless that very block is being fetched, or was not to be had
// a moment ago: the core asks again.
func (e *epochRun) startFetch(f bft.Fetch) {
	if !e.fetches.begin(f.Block, time.Now()) {
		return
	}
	e.group.Go(func() error {
		found := e.fetch(f)
		e.fetches.end(f.Block, found, time.Now())
		return nil
	})
}

// gotBlocks is what became of asking one peer for a block.
type gotBlocks struct {
	peer   bft.ReplicaID
	blocks []*bft.Block
	err    error
}

// fetch asks those who should have the block, then the others, and reports whether one gave it. The
// next is asked when one has failed, or is silent, while those before may still answer. Who was
// silent while another gave it, or serves what is wrong, is asked last from then on.
func (e *epochRun) fetch(f bft.Fetch) bool {
	ctx, cancel := context.WithCancel(e.ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	order := e.r.askOrder(f.Hint)
	answers := make(chan gotBlocks, len(order))
	waiting := make(map[bft.ReplicaID]bool) // for those who were asked; true: for too long
	patience := time.NewTimer(fetchPatience)
	defer patience.Stop()
	for len(order)+len(waiting) > 0 {
		if len(order) > 0 {
			peer := order[0]
			order, waiting[peer] = order[1:], false
			patience.Reset(fetchPatience)
			asking.Go(func() {
				blocks, err := e.fetchFrom(ctx, peer, f)
				answers <- gotBlocks{peer, blocks, err}
			})
		}
		select {
		case a := <-answers:
			delete(waiting, a.peer)
			switch {
			case e.ctx.Err() != nil:
				return false
			case a.err == nil && len(a.blocks) > 0:
				for peer, late := range waiting {
					if late {
						e.r.merits.blame(peer)
					}
				}
				e.events.put(bft.Fetched{Blocks: a.blocks})
				return true
			case a.err != nil && !transport.Unavailable(a.err):
				e.r.merits.blame(a.peer)
				e.r.complaints.about(a.peer, "fetching a block failed", a.err)
			}
		case <-patience.C:
			for peer := range waiting {
				waiting[peer] = true
			}
		}
	}
	return false
}

func (e *epochRun) fetchFrom(ctx context.Context, peer bft.ReplicaID, f bft.Fetch) ([]*bft.Block, error) {
	var b cryptobyte.Builder
	b.AddBytes(f.Block[:])
	b.AddUint64(uint64(f.Above))
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := e.r.cfg.Network.Call(ctx, peer, methodAncestors, b.BytesOrPanic())
	if err != nil {
		return nil, err
	}
	blocks, err := parseBlocks(answer)
	if err != nil || len(blocks) == 0 {
		return nil, err
	}
	if blocks[len(blocks)-1].Digest() != f.Block {
		return nil, errors.New("the answer does not end with the block asked for")
	}
	for i, block := range blocks {
		if i > 0 && (block.Parent != blocks[i-1].Digest() || block.Height != blocks[i-1].Height+1 || block.ParentView != blocks[i-1].View) {
			return nil, errors.New("the blocks of the answer do not link up")
		}
		if err := e.validate(block); err != nil {
			return nil, err
		}
	}
	return blocks, nil
}

// serveAncestors answers with a block and its ancestors above a height, oldest first; with fewer,
// the nearest ones, when they are many.
func (r *Replica) serveAncestors(ctx context.Context, from *transport.Sender, data []byte) ([]byte, error) {
	s := cryptobyte.String(data)
	var digest bft.Digest
	var above uint64
	if !s.CopyBytes(digest[:]) || !s.ReadUint64(&above) || !s.Empty() {
		return nil, errMalformedCall
	}
	return r.blockShare.serve(ctx, from, func() ([]byte, error) {
		blocks, err := r.ancestors(digest, bft.Height(above))
		if err != nil {
			return nil, err
		}
		var b cryptobyte.Builder
		if err := appendBlocks(&b, blocks); err != nil {
			return nil, err
		}
		return b.Bytes()
	})
}

func (r *Replica) ancestors(digest bft.Digest, above bft.Height) ([]*bft.Block, error) {
	var blocks []*bft.Block
	for bytes := 0; bytes < pieceBytes && len(blocks) < farBehind; {
		block, err := r.cfg.Store.Block(digest)
		if err != nil {
			return nil, err
		}
		if block == nil || block.Height <= above || bytes > 0 && bytes+len(block.Payload) > pieceBytes {
			break
		}
		blocks = append([]*bft.Block{block}, blocks...)
		bytes += len(block.Payload)
		digest = block.Parent
	}
	return blocks, nil
}

func appendBlocks(b *cryptobyte.Builder, blocks []*bft.Block) error {
	b.AddUint16(uint16(len(blocks)))
	for _, block := range blocks {
		raw, err := block.MarshalBinary()
		if err != nil {
			return err
		}
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(raw) })
	}
	return nil
}

func readBlocks(s *cryptobyte.String) ([]*bft.Block, error) {
	var count uint16
	if !s.ReadUint16(&count) {
		return nil, errors.New("a list of blocks is cut short")
	}
	var blocks []*bft.Block
	for range count {
		var raw cryptobyte.String
		if !s.ReadUint24LengthPrefixed(&raw) {
			return nil, errors.New("a list of blocks is cut short")
		}
		block, err := bft.ParseBlock(raw)
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, block)
	}
	return blocks, nil
}

func parseBlocks(data []byte) ([]*bft.Block, error) {
	s := cryptobyte.String(data)
	blocks, err := readBlocks(&s)
	if err == nil && !s.Empty() {
		err = errors.New("a list of blocks has something behind it")
	}
	return blocks, err
}
