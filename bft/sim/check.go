package sim

import (
	"bytes"
	"fmt"

	"github.com/reseal-bft/reseal/bft"
)

// checker watches a run and knows the protocol's promises, not its rules: it uses none of the
// core's predicates and counts in plain integers.
type checker struct {
	c          *cluster
	violations []string

	blocks  map[bft.Height]bft.Digest // by height, the block that a correct machine announced as final
	roots   map[bft.Height]bft.Digest // the state after it
	heights map[*replica]bft.Height   // by machine, the last height announced

	firsts    map[voteKey]bft.Statement       // first votes as each correct machine received them
	direct    map[viewKey]bft.Digest          // by view, the block that is final by votes of that view
	certain   map[bft.Digest]bool             // those blocks and their ancestors
	notarized map[viewKey]map[bft.Digest]bool // the blocks with a notarization
	nullified map[viewKey]bool
	effects   map[op]bft.Height // by operation, the height at which it took effect
	ends      map[bft.Epoch]bft.Digest
	fast      map[bft.Digest]bool                      // blocks final by first votes
	signers   map[bft.Statement]map[bft.ReplicaID]bool // the correct machines that signed a statement
	reached   map[bft.Epoch]bft.View                   // by epoch, the highest view of a final block
	turns     map[turn]bool                            // the turns of leaders that brought a final block
}

type viewKey struct {
	epoch bft.Epoch
	view  bft.View
}

type voteKey struct {
	viewKey
	at   *replica
	life int // what was received is lost in a crash
	from bft.ReplicaID
}

func newChecker(c *cluster) *checker {
	return &checker{
		c: c, blocks: make(map[bft.Height]bft.Digest), roots: make(map[bft.Height]bft.Digest), heights: make(map[*replica]bft.Height),
		firsts: make(map[voteKey]bft.Statement), direct: make(map[viewKey]bft.Digest), certain: make(map[bft.Digest]bool),
		notarized: make(map[viewKey]map[bft.Digest]bool), nullified: make(map[viewKey]bool),
		effects: make(map[op]bft.Height), ends: make(map[bft.Epoch]bft.Digest), fast: make(map[bft.Digest]bool),
		signers: make(map[bft.Statement]map[bft.ReplicaID]bool), reached: make(map[bft.Epoch]bft.View), turns: make(map[turn]bool),
	}
}

// fail records a broken promise of a correct machine.
func (k *checker) fail(r *replica, format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	k.c.note(r, "VIOLATION: %s", s)
	k.violations = append(k.violations, s)
}

// voted counts the first votes that a correct machine casts or receives, apart from the core: n - p
// of them make a block final.
func (k *checker) voted(at *replica, from bft.ReplicaID, v bft.Vote) {
	if at.evil != nil || !v.First || v.Epoch != at.epoch {
		return
	}
	key := viewKey{v.Epoch, v.View}
	if _, ok := k.firsts[voteKey{key, at, at.life, from}]; ok {
		return
	}
	k.firsts[voteKey{key, at, at.life, from}] = v.Statement
	if v.Kind != bft.Notarize {
		return
	}
	count, n, p := 0, 3*k.c.size.F+2*k.c.size.C+1, k.c.size.C/2+1
	for id := 1; id <= n; id++ {
		if k.firsts[voteKey{key, at, at.life, bft.ReplicaID(id)}] == v.Statement {
			count++
		}
	}
	if count == n-p {
		k.fast[v.Block] = true
		k.final(at, key, v.Block)
	}
}

// signed notes what correct machines signed.
func (k *checker) signed(r *replica, v bft.Vote) {
	if r.evil == nil {
		if k.signers[v.Statement] == nil {
			k.signers[v.Statement] = make(map[bft.ReplicaID]bool)
		}
		k.signers[v.Statement][r.id] = true
	}
}

// combined checks that the votes of correct machines are counted only for what they say.
func (k *checker) combined(r *replica, e bft.Combine) {
	for _, peer := range k.c.replicas {
		partial, counted := e.Partials[peer.id]
		if r.evil == nil && peer.evil == nil && counted && !bytes.Equal(partial, r.keys.partial(peer.id, k.c.signedBytes(e.Statement))) {
			k.fail(r, "counts a vote of replica %d for %s that says something else", peer.id, statement(e.Statement))
		}
	}
}

// certificate checks that enough correct machines signed it and that no two certificates contradict.
func (k *checker) certificate(r *replica, cert bft.Certificate) {
	if r.evil != nil {
		return
	}
	if signed, least := len(k.signers[cert.Statement]), k.c.size.F+k.c.size.C+1; signed < least {
		k.fail(r, "accepts a certificate %s that %d correct replicas signed, fewer than %d", statement(cert.Statement), signed, least)
	}
	if b := k.c.proposals[cert.Block]; b != nil && cert.Kind == bft.Notarize {
		if root, ok := k.roots[b.StateHeight]; ok && root != b.StateRoot {
			k.fail(r, "the notarization of view %d certifies a state that height %d did not have", cert.View, b.StateHeight)
		}
	}
	key := viewKey{cert.Epoch, cert.View}
	switch cert.Kind {
	case bft.Notarize:
		if k.notarized[key] == nil {
			k.notarized[key] = make(map[bft.Digest]bool)
		}
		k.notarized[key][cert.Block] = true
	case bft.Nullify:
		k.nullified[key] = true
	case bft.Finalize:
		k.final(r, key, cert.Block)
	}
	k.contradiction(r, key)
}

// final notes that a block is final by the votes of its own view, and with it its ancestors.
func (k *checker) final(r *replica, key viewKey, block bft.Digest) {
	if have, ok := k.direct[key]; ok && have != block {
		k.fail(r, "view %d of epoch %d has two final blocks", key.view, key.epoch)
	}
	k.direct[key] = block
	for b := k.c.proposals[block]; b != nil && !k.certain[block]; b = k.c.proposals[block] {
		k.certain[block] = true
		block = b.Parent
	}
	k.contradiction(r, key)
}

// contradiction checks a view that has a final block for a nullification and for rivals.
func (k *checker) contradiction(r *replica, key viewKey) {
	final, ok := k.direct[key]
	if !ok {
		return
	}
	if k.nullified[key] {
		k.fail(r, "view %d of epoch %d is final and nullified", key.view, key.epoch)
	}
	for block := range k.notarized[key] {
		if block != final {
			k.fail(r, "view %d of epoch %d has a final block and a notarized rival", key.view, key.epoch)
		}
	}
}

// finalized checks agreement, that finality has its votes and is never undone, and that heights
// come without gaps.
func (k *checker) finalized(r *replica, f bft.Finalized) {
	if r.evil != nil {
		return
	}
	b, digest := f.Block, f.Block.Digest()
	if have, ok := k.blocks[b.Height]; ok && have != digest {
		k.fail(r, "disagreement at height %d: %v and %v are both final", b.Height, have, digest)
	}
	k.blocks[b.Height] = digest
	if b.Height != k.heights[r]+1 {
		k.fail(r, "height %d is announced after %d", b.Height, k.heights[r])
	}
	k.heights[r] = b.Height
	k.reached[b.Epoch] = max(k.reached[b.Epoch], b.View)
	window := bft.View(k.c.options.Window)
	k.turns[turn{b.Epoch, (b.View-1)/window*window + 1}] = true
	if k.c.proposals[digest] == nil {
		k.fail(r, "height %d has a block that no leader proposed", b.Height)
	}
	if !k.certain[digest] {
		k.fail(r, "height %d is announced as final without the votes", b.Height)
	}
	if k.fast[digest] {
		k.c.counted.fast++
	} else {
		k.c.counted.slow++
	}
	if f.Last {
		k.ends[b.Epoch] = digest
	}
}

// restarted notes the height and the votes from which a machine goes on.
func (k *checker) restarted(r *replica, final bft.Height, own []bft.Vote) {
	k.heights[r] = final
	for _, v := range own {
		k.signed(r, v)
		k.voted(r, r.id, v)
	}
}

// executed checks exactly-once execution, equal states, and that handoffs have their dealings.
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
	if root, ok := k.roots[b.StateHeight]; ok && root != b.StateRoot {
		k.fail(r, "height %d certifies a state that height %d did not have", b.Height, b.StateHeight)
	}
}

// handedOff checks that an epoch began with the dealings of a quorum.
func (k *checker) handedOff(r *replica, dealers int) {
	if quorum := 2*k.c.size.F + k.c.size.C + 1; r.evil == nil && dealers < quorum {
		k.fail(r, "epoch %d ended with %d dealings, fewer than %d", r.epoch, dealers, quorum)
	}
}

// accused checks that only Byzantine replicas are accused.
func (k *checker) accused(r *replica, a bft.Accuse) {
	if culprit := k.c.byID(a.Replica); r.evil == nil && culprit != nil && culprit.evil == nil {
		k.fail(r, "replica %d is accused and did nothing", a.Replica)
	}
}

// held checks that a core's memory is bounded: a window of views on both sides of those that are
// open, and the blocks in them.
func (k *checker) held(r *replica) {
	views, blocks := r.core.Held()
	_, final := r.core.Final()
	open := int(r.core.View() - final)
	if r.evil == nil && (views > open+100 || blocks > 4*(open+10)) {
		k.fail(r, "holds %d views and %d blocks with %d views open", views, blocks, open)
	}
}

// views is the highest view of each epoch that was final, summed up.
func (k *checker) views() int {
	highest := make(map[bft.Epoch]bft.View)
	for key := range k.direct {
		highest[key.epoch] = max(highest[key.epoch], key.view)
	}
	sum := 0
	for _, v := range highest {
		sum += int(v)
	}
	return sum
}
