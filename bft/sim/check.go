package sim

import (
	"fmt"

	"github.com/reseal-bft/reseal/bft"
)

// checker watches a run and knows the protocol's promises, not its rules: it uses none of the core's predicates and
// counts in plain integers.
type checker struct {
	c          *cluster
	violations []string

	blocks   map[bft.Height]bft.Digest       // by height, the block that somebody correct announced as final
	roots    map[bft.Height]bft.Digest       // the state after it
	heights  map[*replica]bft.Height         // by machine, the last height announced
	finals   map[viewKey]bft.Digest          // by view, the final block
	notes    map[viewKey]map[bft.Digest]bool // the notarized blocks
	nulls    map[viewKey]bool
	effects  map[op]bft.Height // by operation, the height at which it took effect
	epochs   map[bft.Epoch]bool
	evidence map[bft.ReplicaID]bool
	ends     map[bft.Epoch]bft.Digest
	proposed map[bft.Digest]bool
}

type viewKey struct {
	epoch bft.Epoch
	view  bft.View
}

func newChecker(c *cluster) *checker {
	return &checker{
		c: c, blocks: make(map[bft.Height]bft.Digest), roots: make(map[bft.Height]bft.Digest),
		heights: make(map[*replica]bft.Height), finals: make(map[viewKey]bft.Digest),
		notes: make(map[viewKey]map[bft.Digest]bool), nulls: make(map[viewKey]bool), effects: make(map[op]bft.Height),
		epochs: make(map[bft.Epoch]bool), evidence: make(map[bft.ReplicaID]bool), ends: make(map[bft.Epoch]bft.Digest),
	}
}

// fail records a broken promise.
func (k *checker) fail(r *replica, format string, args ...any) {
	if r != nil && r.evil != nil {
		return
	}
	s := fmt.Sprintf(format, args...)
	k.c.note(r, "VIOLATION: %s", s)
	k.violations = append(k.violations, s)
}

// finalized checks agreement, finality that is never undone, and that heights come without gaps.
func (k *checker) finalized(r *replica, f bft.Finalized) {
	if r.evil != nil {
		return
	}
	b, digest := f.Block, f.Block.Digest()
	if have, ok := k.blocks[b.Height]; ok && have != digest {
		k.fail(r, "disagreement at height %d: %v and %v are both final", b.Height, have, digest)
	}
	k.blocks[b.Height] = digest
	if last, ok := k.heights[r]; ok && b.Height != last+1 {
		k.fail(r, "height %d is announced after %d", b.Height, last)
	}
	k.heights[r] = b.Height
	if !k.c.proposals[digest] {
		k.fail(r, "height %d has a block that no leader proposed", b.Height)
	}
	key := viewKey{b.Epoch, b.View}
	k.finals[key] = digest
	k.contradiction(r, key)
	if f.Last {
		k.ends[b.Epoch] = digest
	}
}

// restarted forgets how far a machine had announced: it goes on from its disk.
func (k *checker) restarted(r *replica, final bft.Height) { k.heights[r] = final }

// executed checks exactly-once execution and equal states.
func (k *checker) executed(r *replica, b *bft.Block, effective []op, root bft.Digest) {
	if r.evil != nil {
		return
	}
	if have, ok := k.roots[b.Height]; ok && have != root {
		k.fail(r, "the state after height %d differs", b.Height)
	}
	k.roots[b.Height] = root
	for _, o := range effective {
		if at, ok := k.effects[o]; ok && at != b.Height {
			k.fail(r, "operation %v took effect at heights %d and %d", o, at, b.Height)
		}
		k.effects[o] = b.Height
	}
}

// certificate checks that no two certificates contradict, and that the states certified are right.
func (k *checker) certificate(r *replica, cert bft.Certificate) {
	if r.evil != nil {
		return
	}
	key := viewKey{cert.Epoch, cert.View}
	switch cert.Kind {
	case bft.Notarize:
		if k.notes[key] == nil {
			k.notes[key] = make(map[bft.Digest]bool)
		}
		k.notes[key][cert.Block] = true
	case bft.Nullify:
		k.nulls[key] = true
	case bft.Finalize:
		if have, ok := k.finals[key]; ok && have != cert.Block {
			k.fail(r, "two final blocks in view %d", cert.View)
		}
		k.finals[key] = cert.Block
	}
	k.contradiction(r, key)
}

func (k *checker) contradiction(r *replica, key viewKey) {
	final, ok := k.finals[key]
	if !ok {
		return
	}
	if k.nulls[key] {
		k.fail(r, "view %d of epoch %d is final and nullified", key.view, key.epoch)
	}
	for block := range k.notes[key] {
		if block != final {
			k.fail(r, "view %d of epoch %d has a final block and a notarized rival", key.view, key.epoch)
		}
	}
}

func (k *checker) voted(*replica, bft.Vote) {}

// accused checks that only replicas that did equivocate are accused.
func (k *checker) accused(r *replica, a bft.Accuse) {
	k.evidence[a.Replica] = true
	if culprit := k.c.byID(a.Replica); r.evil == nil && culprit != nil && culprit.evil == nil {
		k.fail(r, "replica %d is accused and did nothing", a.Replica)
	}
}
