package kv

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/merkle"
)

// Store is the replicated key-value store. It is used by one goroutine; the states that it gives out may be read by any.
type Store struct{ content merkle.Map }

// New returns an empty store.
func New() *Store { return new(Store) }

var _ bft.Application = (*Store)(nil)

const leafDomain = "reseal/v1/kv\x00"

func leafKey(key []byte) bft.Digest {
	var buf [len(leafDomain) + MaxKey]byte
	return sha256.Sum256(append(append(buf[:0], leafDomain...), key...))
}

// newEntry makes the value of a leaf: the key behind its length, and the value. It copies both.
func newEntry(key, value []byte) []byte {
	e := make([]byte, 0, 2+len(key)+len(value))
	e = binary.BigEndian.AppendUint16(e, uint16(len(key)))
	return append(append(e, key...), value...)
}

// splitEntry takes an entry apart; it fails on what no store has made.
func splitEntry(e []byte) (key, value []byte, ok bool) {
	if len(e) < 2 || len(e)-2 < int(binary.BigEndian.Uint16(e)) {
		return nil, nil, false
	}
	end := 2 + int(binary.BigEndian.Uint16(e))
	key, value = e[2:end], e[end:]
	return key, value, len(key) >= 1 && len(key) <= MaxKey && len(value) <= MaxValue
}

// Apply executes operations; see bft.Application.
func (s *Store) Apply(_ bft.Height, _ int64, operations []bft.Operation, results *bft.Results) error {
	b := batch{content: s.content, at: make(map[bft.Digest]int)}
	for i := range operations {
		results.Add(b.apply(operations[i].Data, results.Room()))
	}
	s.content = s.content.Update(b.changes)
	return nil
}

// batch is the changes of a block so far, on top of the content before it.
type batch struct {
	content merkle.Map
	changes []merkle.Change
	at      map[bft.Digest]int // index in changes
}

// Results without a value are the same bytes for all; nobody changes a result.
var (
	resultOK       = encodeResult(OK, nil)
	resultNotFound = encodeResult(NotFound, nil)
	resultMismatch = encodeResult(Mismatch, nil)
	resultInvalid  = encodeResult(Invalid, nil)
)

// apply executes an operation. It returns nothing where the result would take more than room.
func (b *batch) apply(data []byte, room int) []byte {
	op, err := decode(data)
	if err != nil {
		return resultInvalid
	}
	leaf := leafKey(op.key)
	switch op.kind {
	case kindPut:
		b.change(merkle.Change{Key: leaf, Value: newEntry(op.key, op.value)})
	case kindGet:
		value, ok := b.get(leaf)
		if !ok {
			return resultNotFound
		}
		if 1+len(value) > room {
			return nil
		}
		return encodeResult(OK, value)
	case kindDelete:
		if _, ok := b.get(leaf); !ok {
			return resultNotFound
		}
		b.change(merkle.Change{Key: leaf, Delete: true})
	case kindSwap:
		value, ok := b.get(leaf)
		if ok != op.oldPresent || !bytes.Equal(value, op.old) {
			return resultMismatch
		}
		b.change(merkle.Change{Key: leaf, Value: newEntry(op.key, op.value)})
	}
	return resultOK
}

func (b *batch) change(c merkle.Change) {
	if i, ok := b.at[c.Key]; ok {
		b.changes[i] = c
		return
	}
	b.at[c.Key] = len(b.changes)
	b.changes = append(b.changes, c)
}

func (b *batch) get(leaf bft.Digest) (value []byte, ok bool) {
	entry, ok := b.content.Get(leaf)
	if i, changed := b.at[leaf]; changed {
		entry, ok = b.changes[i].Value, !b.changes[i].Delete
	}
	if !ok {
		return nil, false
	}
	_, value, ok = splitEntry(entry)
	return value, ok
}

// State returns the state after the last block; see bft.Application.
func (s *Store) State() bft.State { return State{s.content} }

// Restore replaces the content by a snapshot; see bft.Application. A snapshot that fails leaves the content as it was.
func (s *Store) Restore(r io.Reader) error {
	content, err := merkle.Read(r)
	if err != nil {
		return err
	}
	for leaf, entry := range content.All() {
		key, _, ok := splitEntry(entry)
		if !ok || leafKey(key) != leaf {
			return errors.New("the snapshot is not one of a key-value store: fetch it again from another replica")
		}
	}
	s.content = content
	return nil
}

// State is an immutable state of the store.
type State struct{ content merkle.Map }

// Root is the Merkle root of the content.
func (s State) Root() bft.Digest { return s.content.Root() }

// Len returns the number of keys.
func (s State) Len() int { return s.content.Len() }

// Get returns the value of a key. It must not be changed.
func (s State) Get(key []byte) (value []byte, ok bool) {
	entry, ok := s.content.Get(leafKey(key))
	if !ok {
		return nil, false
	}
	_, value, ok = splitEntry(entry)
	return value, ok
}

// WriteTo writes a snapshot, the same for equal states.
func (s State) WriteTo(w io.Writer) (int64, error) { return s.content.WriteTo(w) }

// Query answers a read: query is the key. Answer and proof are for [VerifyQuery].
func (s State) Query(query []byte) (answer, proof []byte, err error) {
	if len(query) == 0 || len(query) > MaxKey {
		return nil, nil, fmt.Errorf("the key has %d bytes: need 1 to %d", len(query), MaxKey)
	}
	if value, ok := s.Get(query); ok {
		answer = append([]byte{1}, value...)
	} else {
		answer = []byte{0}
	}
	proof, err = s.content.Prove(leafKey(query)).MarshalBinary()
	return answer, proof, err
}

// VerifyQuery checks what [State.Query] answered for key against the root of a state, and returns the value, or that there is
// none (found is false). The value is a slice of answer.
func VerifyQuery(root bft.Digest, key, answer, proof []byte) (value []byte, found bool, err error) {
	if len(key) == 0 || len(key) > MaxKey || len(answer) == 0 || answer[0] > 1 || answer[0] == 0 && len(answer) > 1 {
		return nil, false, fmt.Errorf("%w answer: ask another replica", errMalformed)
	}
	p, err := merkle.ParseProof(proof)
	if err != nil {
		return nil, false, err
	}
	value, found = answer[1:], answer[0] == 1
	if err := merkle.VerifyProof(root, leafKey(key), newEntry(key, value), found, p); err != nil {
		return nil, false, err
	}
	return value, found, nil
}
