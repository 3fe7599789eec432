package wholesim

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/reseal-bft/reseal/bft"
)

// judge checks the promises from outside, with numbers and maps of its own.
type judge struct {
	c  *cluster
	mu sync.Mutex

	violations []string
	blocks     map[bft.Height]executedBlock
	seen       map[name]bft.Height
	roots      map[bft.Height]string
	words      map[voter]*said
	highest    bft.Height
	groupKey   string
	verifier   *groupVerifier

	proposals map[bft.Digest]proposal
	led       map[bft.ReplicaID]int // notarized blocks by leader since the last reset
	views     map[epochView]bool
	epochs    bft.Epoch
}

// executedBlock is what the first replica to execute a height made of it.
type executedBlock struct {
	digest bft.Digest
	time   int64
	by     bft.ReplicaID
}

type epochView struct {
	epoch bft.Epoch
	view  bft.View
}

type proposal struct {
	epochView
	by bft.ReplicaID
}

// voter is a correct replica in a view.
type voter struct {
	id bft.ReplicaID
	epochView
}

// said is what a correct replica has signed in a view.
type said struct {
	first, finalized bft.Statement
	blocks           map[bft.Digest]bool
	nullified        bool
}

func newJudge(c *cluster) *judge {
	return &judge{
		c: c, blocks: make(map[bft.Height]executedBlock), seen: make(map[name]bft.Height), roots: make(map[bft.Height]string),
		words: make(map[voter]*said), proposals: make(map[bft.Digest]proposal), led: make(map[bft.ReplicaID]int), views: make(map[epochView]bool),
	}
}

// violated records a violation. The caller holds the lock.
func (j *judge) violated(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if len(j.violations) < 20 {
		j.violations = append(j.violations, text)
		j.c.note(nil, "VIOLATION: %s", text)
	}
}

func (j *judge) broken() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.violations) > 0
}

// executed hears what a correct replica executes: all execute the same at each height, and every
// operation once.
func (j *judge) executed(m *machine, height bft.Height, time int64, operations []bft.Operation) {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(time)))
	for _, o := range operations {
		h.Write(o.Client)
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(o.Data))))
		h.Write(o.Data)
	}
	digest := bft.Digest(h.Sum(nil))
	j.mu.Lock()
	defer j.mu.Unlock()
	j.highest = max(j.highest, height)
	if first, ok := j.blocks[height]; ok {
		if first.digest != digest {
			j.violated("agreement: replicas %d and %d execute different blocks at height %d", first.by, m.id, height)
		}
		return
	}
	if below, ok := j.blocks[height-1]; ok && below.time > time {
		j.violated("block time goes backwards at height %d", height)
	}
	j.blocks[height] = executedBlock{digest, time, m.id}
	for _, o := range operations {
		n, ok := nameOfOperation(o.Data)
		if !ok {
			j.violated("an operation that no client made is executed at height %d", height)
			continue
		}
		if before, twice := j.seen[n]; twice {
			j.violated("operation %v is executed twice: at heights %d and %d", n, before, height)
		}
		j.seen[n] = height
	}
}

// state compares the state roots of correct replicas.
func (j *judge) state(m *machine, height bft.Height, root string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if first, ok := j.roots[height]; ok && first != root {
		j.violated("replica %d has another state than others at height %d", m.id, height)
	}
	j.roots[height] = root
}

// key checks that the group key stays what it was.
func (j *judge) key(m *machine, key string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.groupKey == "" {
		j.groupKey = key
	}
	if key != j.groupKey {
		j.violated("replica %d names another group key", m.id)
	}
}

// sent hears every frame that a correct replica sends.
func (j *judge) sent(m *machine, frame []byte) {
	j.c.hear(m, frame)
	message, err := bft.ParseMessage(frame)
	if j.c.options.Trace != nil && err == nil {
		j.c.options.Trace(j.c.line(m, "sends %s", words(message)))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.violated("replica %d sends what cannot be parsed: %v", m.id, err)
		return
	}
	switch x := message.(type) {
	case *bft.Block:
		j.proposals[x.Digest()] = proposal{epochView{x.Epoch, x.View}, x.Proposer}
	case bft.Vote:
		j.vote(m, x)
	case bft.Certificate:
		j.certificate(x)
	}
}

// keptViews bounds what the judge remembers of the words of replicas.
const keptViews = 4096

func (j *judge) certificate(c bft.Certificate) {
	at := epochView{c.Epoch, c.View}
	if j.views[at] {
		return
	}
	j.views[at] = true
	j.epochs = max(j.epochs, c.Epoch)
	if p, ok := j.proposals[c.Block]; ok && c.Kind != bft.Nullify {
		j.led[p.by]++
	}
}

// vote checks that a replica never contradicts itself, in all its lives.
func (j *judge) vote(m *machine, v bft.Vote) {
	at := voter{m.id, epochView{v.Epoch, v.View}}
	w := j.words[at]
	if w == nil {
		w = &said{blocks: make(map[bft.Digest]bool)}
		j.words[at] = w
	}
	switch {
	case v.Kind == bft.Finalize:
		if w.finalized.Kind != 0 && w.finalized != v.Statement {
			j.violated("replica %d votes to finalize two blocks of view %d/%d", m.id, v.Epoch, v.View)
		}
		w.finalized = v.Statement
	case v.First:
		if w.first.Kind != 0 && w.first != v.Statement {
			j.violated("replica %d casts two first votes in view %d/%d", m.id, v.Epoch, v.View)
		}
		w.first = v.Statement
	}
	switch v.Kind {
	case bft.Notarize:
		w.blocks[v.Block] = true
	case bft.Nullify:
		w.nullified = true
	}
	if w.finalized.Kind != 0 && (w.nullified || len(w.blocks) > 1 || len(w.blocks) == 1 && !w.blocks[w.finalized.Block]) {
		j.violated("replica %d votes to finalize in view %d/%d, and otherwise", m.id, v.Epoch, v.View)
	}
	if at.view%keptViews == 0 && w.first.Kind != 0 {
		for old := range j.words {
			if old.epoch < at.epoch || old.epoch == at.epoch && old.view+keptViews < at.view {
				delete(j.words, old)
			}
		}
	}
}

// fault records a violation that was seen elsewhere.
func (j *judge) fault(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.violated(format, args...)
}
