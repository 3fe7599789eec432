package trace

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/reseal-bft/reseal/bft"
)

// record is one entry of a file: the start of a core, or a step of it.
type record struct {
	Start *start
	Step  *step
}

// start is what a core was made of.
type start struct {
	Config   bft.Config
	Restored bft.Restored
}

// step is an event and its effects. The first one has no event.
type step struct {
	Now     bft.Now
	Event   bft.Event
	Effects []bft.Effect
}

// maxRecord bounds a record's size in bytes.
const maxRecord = 64 << 20

// Recorder writes the trace of one life of a replica. It is used by one goroutine at a time.
type Recorder struct {
	file   *os.File
	buffer []byte
	failed func(error)
}

// NewRecorder makes a new file in a directory, which is made if it does not exist. Failed is told
// once that a trace ends early; the replica runs on.
func NewRecorder(dir string, failed func(error)) (*Recorder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%020d%s", time.Now().UnixNano(), suffix)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return &Recorder{file: file, failed: failed}, err
}

const suffix = ".trace"

// Observe records a core from its start on; see the field of that name of replica.Config.
func (r *Recorder) Observe(cfg bft.Config, restored bft.Restored) func(bft.Now, bft.Event, []bft.Effect) {
	r.write(record{Start: &start{cfg, bareRestored(restored)}})
	return func(now bft.Now, event bft.Event, effects []bft.Effect) {
		bare := make([]bft.Effect, len(effects))
		for i, e := range effects {
			bare[i] = bareEffect(e)
		}
		r.write(record{Step: &step{now, bareEvent(event), bare}})
	}
}

// write appends a record, at once: a process that is killed has written all its steps.
func (r *Recorder) write(x record) {
	if r.file == nil {
		return
	}
	var size [4]byte
	b := appendValue(append(r.buffer[:0], size[:]...), reflect.ValueOf(x))
	binary.BigEndian.PutUint32(b, uint32(len(b)-len(size)))
	r.buffer = b
	if _, err := r.file.Write(b); err != nil {
		r.failed(err)
		_ = r.Close() // the failure is told
	}
}

// Close ends the trace.
func (r *Recorder) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}

// barePartial tells partial signatures apart, and is none.
func barePartial(partial []byte) []byte {
	if len(partial) == 0 {
		return partial
	}
	digest := sha256.Sum256(partial)
	return digest[:8]
}

func bareVote(v bft.Vote) bft.Vote {
	v.Partial = barePartial(v.Partial)
	return v
}

func bareBlock(b *bft.Block) *bft.Block {
	return &bft.Block{Header: b.Header, Signature: b.Signature}
}

func bareBlocks(blocks []*bft.Block) []*bft.Block {
	bare := make([]*bft.Block, len(blocks))
	for i, b := range blocks {
		bare[i] = bareBlock(b)
	}
	return bare
}

func bareMessage(m bft.Message) bft.Message {
	switch m := m.(type) {
	case *bft.Block:
		return bareBlock(m)
	case bft.Vote:
		return bareVote(m)
	}
	return m
}

func bareRestored(r bft.Restored) bft.Restored {
	r.Blocks = bareBlocks(r.Blocks)
	votes := make([]bft.Vote, len(r.Votes))
	for i, v := range r.Votes {
		votes[i] = bareVote(v)
	}
	r.Votes = votes
	return r
}

func bareEvent(event bft.Event) bft.Event {
	switch e := event.(type) {
	case bft.Receive:
		return bft.Receive{From: e.From, Message: bareMessage(e.Message)}
	case bft.Signed:
		if e.Err != nil {
			e.Err = refused(e.Err.Error())
		}
		return bft.Signed{Vote: bareVote(e.Vote), Err: e.Err}
	case bft.Proposed:
		return bft.Proposed{Block: bareBlock(e.Block)}
	case bft.Fetched:
		return bft.Fetched{Blocks: bareBlocks(e.Blocks)}
	}
	return event
}

func bareEffect(effect bft.Effect) bft.Effect {
	switch e := effect.(type) {
	case bft.Sign:
		return bft.Sign{Vote: bareVote(e.Vote)}
	case bft.Broadcast:
		return bft.Broadcast{Message: bareMessage(e.Message)}
	case bft.Send:
		return bft.Send{To: e.To, Message: bareMessage(e.Message)}
	case bft.Combine:
		partials := make(map[bft.ReplicaID][]byte, len(e.Partials))
		for id, partial := range e.Partials {
			partials[id] = barePartial(partial)
		}
		return bft.Combine{Statement: e.Statement, Partials: partials}
	case bft.StoreBlock:
		return bft.StoreBlock{Block: bareBlock(e.Block)}
	case bft.Finalized:
		return bft.Finalized{Block: bareBlock(e.Block), Last: e.Last}
	}
	return effect
}
