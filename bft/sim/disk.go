package sim

import (
	"slices"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// disk is what a replica keeps. Writes wait in a queue and become durable in groups; a crash loses
// the queue, and of the group that was being written some first part survives.
type disk struct {
	votes        []bft.Vote
	blocks       map[bft.Digest]*bft.Block
	order        []bft.Digest // the keys of blocks, in order
	certificates map[bft.Statement][]byte
	statements   []bft.Statement // the keys of certificates, in order
	state        *service        // after the last final block that was executed
	final        bft.Base
	base         bft.Base // of the current epoch
	finalView    bft.View // 0 at the base of an epoch
	executed     []bft.Executed
	proofs       map[bft.Epoch]bft.Certificate // the newest finalization of each epoch
	below        snapshot                      // the state below the current epoch

	queue   []write
	writing int // writes of the group under way
	own     int // writes of own blocks in the queue
}

// write is one write, with what it makes possible once it is durable.
type write struct {
	store func(*disk)
	then  func()
}

func newDisk(genesis *service) *disk {
	return &disk{
		blocks:       make(map[bft.Digest]*bft.Block),
		certificates: make(map[bft.Statement][]byte), proofs: make(map[bft.Epoch]bft.Certificate),
		state: genesis.clone(),
		final: bft.Base{Root: genesis.root}, base: bft.Base{Root: genesis.root}, executed: []bft.Executed{{Root: genesis.root}},
	}
}

// put queues a write and starts the next group if none is under way.
func (r *replica) put(store func(*disk), then func()) {
	d := r.disk
	d.queue = append(d.queue, write{store, then})
	if d.writing == 0 {
		r.flush()
	}
}

// flush writes the queue as one group.
func (r *replica) flush() {
	d := r.disk
	d.writing = len(d.queue)
	if d.writing == 0 {
		return
	}
	r.later(r.slowness*r.c.world.between(100*time.Microsecond, time.Millisecond), func() {
		group := d.queue[:d.writing]
		d.queue = d.queue[d.writing:]
		d.writing = 0
		for _, w := range group {
			w.store(d)
		}
		for _, w := range group {
			if w.then != nil && r.up {
				w.then()
			}
		}
		r.flush()
	})
}

// cut is what a crash does to the disk.
func (r *replica) cut() {
	d := r.disk
	if d.writing > 0 {
		for _, w := range d.queue[:r.c.world.rng.IntN(d.writing+1)] {
			w.store(d)
		}
	}
	d.queue, d.writing, d.own = nil, 0, 0
}

func (d *disk) putVote(v bft.Vote) { d.votes = append(d.votes, v) }

func (d *disk) putBlock(b *bft.Block) {
	digest := b.Digest()
	if d.blocks[digest] == nil {
		d.blocks[digest] = b
		d.order = append(d.order, digest)
	}
}

func (d *disk) putCertificate(c bft.Certificate) {
	if _, ok := d.certificates[c.Statement]; !ok {
		d.statements = append(d.statements, c.Statement)
	}
	d.certificates[c.Statement] = c.Signature
	if c.Kind == bft.Finalize && c.View > d.proofs[c.Epoch].View {
		d.proofs[c.Epoch] = c
	}
}

// keptStates is how many states a replica remembers the roots of.
const keptStates = bft.MaxStateLag + 8

// snapshot is the state after the last block of an epoch.
type snapshot struct {
	state *service
	base  bft.Base
}

// adopt goes on from a peer's snapshot.
func (d *disk) adopt(s snapshot) {
	if s.state.epoch <= d.state.epoch {
		return
	}
	d.state, d.final, d.base, d.finalView, d.below = s.state.clone(), s.base, s.base, 0, s
	d.executed = []bft.Executed{{Height: s.base.Height, Root: s.base.Root}}
}

// putState makes the state after a final block durable. Its epoch's view is 0 when it ended the epoch.
func (d *disk) putState(b *bft.Block, state *service, last bool) {
	d.state = state
	d.final = bft.Base{Height: b.Height, Digest: b.Digest(), Time: b.Time, Root: state.root}
	d.finalView = b.View
	ready := state.ready()
	if last {
		d.base, d.finalView = d.final, 0
		d.executed = nil
		d.below = snapshot{state, d.base}
	}
	d.executed = append(d.executed, bft.Executed{Height: b.Height, Root: state.root, HandoffReady: ready})
	if len(d.executed) > keptStates {
		d.executed = d.executed[len(d.executed)-keptStates:]
	}
}

// restored returns what is on disk of the current epoch.
func (d *disk) restored() bft.Restored {
	epoch := d.state.epoch
	r := bft.Restored{Executed: d.executed}
	if d.finalView > 0 {
		r.Final, r.FinalView = d.final, d.finalView
	}
	for _, v := range d.votes {
		if v.Epoch == epoch {
			r.Votes = append(r.Votes, v)
		}
	}
	for _, s := range d.statements {
		if s.Epoch == epoch {
			r.Certificates = append(r.Certificates, bft.Certificate{Statement: s, Signature: d.certificates[s]})
		}
	}
	for _, digest := range d.order {
		if b := d.blocks[digest]; b.Epoch == epoch && b.View >= d.finalView {
			r.Blocks = append(r.Blocks, b)
		}
	}
	return r
}

// chain returns the blocks from one down to those above a height, oldest first, at most
// [bft.MaxFetch] of the highest.
func (d *disk) chain(top bft.Digest, above bft.Height) []*bft.Block {
	var blocks []*bft.Block
	for b := d.blocks[top]; b != nil && b.Height > above && len(blocks) < bft.MaxFetch; b = d.blocks[b.Parent] {
		blocks = append(blocks, b)
	}
	slices.Reverse(blocks)
	return blocks
}
