package wholesim

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/reseal-bft/reseal/bft"
)

// name names a client's operation.
type name struct{ client, number uint32 }

func (o name) String() string { return fmt.Sprintf("%d/%d", o.client, o.number) }

const nameSize = 8

// operation encodes a client's operation, with some bytes to carry.
func (o name) operation(carried []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, o.client)
	return append(binary.BigEndian.AppendUint32(b, o.number), carried...)
}

func nameOfOperation(data []byte) (name, bool) {
	if len(data) < nameSize {
		return name{}, false
	}
	return name{binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:])}, true
}

// resultOf is the result of an operation: what a client expects.
func resultOf(data []byte) []byte {
	sum := sha256.Sum256(data)
	return sum[:]
}

// journal is the replicated application: a list of all operations, in order. It tells the judge
// what it executes.
type journal struct {
	executed func(height bft.Height, time int64, operations []bft.Operation)

	mu    sync.Mutex
	state journalState
	names map[name]bft.Height
}

// journalState is a state of the journal. The entries are shared with later states, which only append.
type journalState struct {
	height  bft.Height
	root    bft.Digest
	entries [][]byte
}

func newJournal(executed func(bft.Height, int64, []bft.Operation)) *journal {
	return &journal{executed: executed, names: make(map[name]bft.Height)}
}

func (j *journal) Apply(height bft.Height, time int64, operations []bft.Operation, results *bft.Results) error {
	j.executed(height, time, operations)
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, o := range operations {
		results.Add(resultOf(o.Data))
		j.state.append(bytes.Clone(o.Data))
		if n, ok := nameOfOperation(o.Data); ok {
			j.names[n] = height
		}
	}
	j.state.height = height
	return nil
}

func (s *journalState) append(entry []byte) {
	h := sha256.New()
	h.Write(s.root[:])
	h.Write(entry)
	h.Sum(s.root[:0])
	s.entries = append(s.entries, entry)
}

// has reports whether an operation was executed.
func (j *journal) has(n name) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, ok := j.names[n]
	return ok
}

func (j *journal) State() bft.State {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.state
}

// Restore reads what WriteTo wrote, and believes nothing of it: the replica compares the root.
func (j *journal) Restore(r io.Reader) error {
	b := bufio.NewReader(r)
	var state journalState
	names := make(map[name]bft.Height)
	for {
		var size [4]byte
		if _, err := io.ReadFull(b, size[:]); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(size[:])
		if n > bft.MaxOperation {
			return errors.New("an entry is too large")
		}
		entry := make([]byte, n)
		if _, err := io.ReadFull(b, entry); err != nil {
			return err
		}
		state.append(entry)
		if o, ok := nameOfOperation(entry); ok {
			names[o] = 0
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.state, j.names = state, names
	return nil
}

func (s journalState) Root() bft.Digest { return s.root }

// Query answers with the number of entries.
func (s journalState) Query([]byte) (answer, proof []byte, err error) {
	return binary.BigEndian.AppendUint64(nil, uint64(len(s.entries))), nil, nil
}

func (s journalState) WriteTo(w io.Writer) (int64, error) {
	b := bufio.NewWriter(w)
	for _, entry := range s.entries {
		if _, err := b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(entry)))); err != nil {
			return 0, err
		}
		if _, err := b.Write(entry); err != nil {
			return 0, err
		}
	}
	return 0, b.Flush()
}
