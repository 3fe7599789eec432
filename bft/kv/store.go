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

// Store is the replicated key-value store. It is used by one goroutine; the states that it gives
// out may be read by any.
type Store struct {
	content merkle.Tree
	place   *place // nil: everything stays in memory
	disk    *disk
	gone    merkle.Gone // since the last save began
	saving  chan saved  // nil: no save is under way
}

// New returns an empty store, all of which is in memory. [Open] makes one that has its data on disk.
func New() *Store { return &Store{content: merkle.NewTree(nil)} }

var (
	_ bft.Application = (*Store)(nil)
	_ bft.Keeper      = (*Store)(nil)
)

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
	if err := s.settle(); err != nil {
		return err
	}
	b := batch{content: s.content, at: make(map[bft.Digest]int)}
	for i := range operations {
		result, err := b.apply(operations[i].Data, results.Room())
		if err != nil {
			return s.place.check(err)
		}
		results.Add(result)
	}
	return s.update(b.changes)
}

func (s *Store) update(changes []merkle.Change) error {
	next, err := s.content.Update(changes, s.noted())
	if err != nil {
		return s.place.check(err)
	}
	s.content = next
	return s.relieve()
}

// batch is the changes of a block so far, on top of the content before it.
type batch struct {
	content merkle.Tree
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

// apply executes an operation. It returns nothing where the result would take more than room: then
// the value is not read either.
func (b *batch) apply(data []byte, room int) ([]byte, error) {
	op, err := decode(data)
	if err != nil {
		return resultInvalid, nil
	}
	leaf := leafKey(op.key)
	switch op.kind {
	case kindPut:
		b.change(merkle.Change{Key: leaf, Value: newEntry(op.key, op.value)})
	case kindGet:
		size, ok, err := b.size(leaf, len(op.key))
		if !ok || err != nil {
			return resultNotFound, err
		}
		if 1+size > room {
			return nil, nil
		}
		value, err := b.get(leaf)
		if err != nil {
			return nil, err
		}
		return encodeResult(OK, value), nil
	case kindDelete:
		if _, ok, err := b.size(leaf, len(op.key)); !ok || err != nil {
			return resultNotFound, err
		}
		b.change(merkle.Change{Key: leaf, Delete: true})
	case kindSwap:
		if same, err := b.holds(leaf, &op); !same || err != nil {
			return resultMismatch, err
		}
		b.change(merkle.Change{Key: leaf, Value: newEntry(op.key, op.value)})
	}
	return resultOK, nil
}

// holds reports whether a key has the value that a swap expects. One of another size is not read.
func (b *batch) holds(leaf bft.Digest, op *operation) (bool, error) {
	size, ok, err := b.size(leaf, len(op.key))
	if err != nil || ok != op.oldPresent || size != len(op.old) {
		return false, err
	}
	if !ok {
		return true, nil
	}
	value, err := b.get(leaf)
	return bytes.Equal(value, op.old), err
}

func (b *batch) change(c merkle.Change) {
	if i, ok := b.at[c.Key]; ok {
		b.changes[i] = c
		return
	}
	b.at[c.Key] = len(b.changes)
	b.changes = append(b.changes, c)
}

// size returns the size of the value of a key, which has so many bytes, without reading it.
func (b *batch) size(leaf bft.Digest, key int) (size int, ok bool, err error) {
	if i, changed := b.at[leaf]; changed {
		size, ok = len(b.changes[i].Value), !b.changes[i].Delete
	} else {
		size, ok, err = b.content.Size(leaf)
	}
	return max(0, size-2-key), ok, err
}

// get returns the value of a key that there is.
func (b *batch) get(leaf bft.Digest) (value []byte, err error) {
	var entry []byte
	if i, changed := b.at[leaf]; changed {
		entry = b.changes[i].Value
	} else if entry, _, err = b.content.Get(leaf); err != nil {
		return nil, err
	}
	_, value, _ = splitEntry(entry)
	return value, nil
}

// State returns the state after the last block; see bft.Application.
func (s *Store) State() bft.State { return State{s.content, s.place} }

// restored is how much of a snapshot is taken over at once, in bytes.
const restored = 4 << 20

// Restore replaces the content by a snapshot; see bft.Application. A snapshot that fails leaves the
// content as it was.
func (s *Store) Restore(r io.Reader) error {
	fresh, err := s.fresh()
	if err != nil {
		return err
	}
	var changes []merkle.Change
	size := 0
	err = merkle.ReadEach(r, func(entry merkle.Change) error {
		key, _, ok := splitEntry(entry.Value)
		if !ok || leafKey(key) != entry.Key {
			return errors.New("the snapshot is not one of a key-value store: fetch it again from another replica")
		}
		changes = append(changes, entry)
		if size += len(entry.Value) + len(entry.Key); size < restored {
			return nil
		}
		err := fresh.update(changes)
		changes, size = nil, 0
		return err
	})
	if err == nil {
		err = fresh.update(changes)
	}
	if err == nil {
		err = fresh.wait() // so that it can be kept at once
	}
	if err != nil {
		return errors.Join(err, fresh.retire())
	}
	if err := s.retire(); err != nil {
		return errors.Join(err, fresh.retire())
	}
	*s = *fresh
	return nil
}

// State is an immutable state of the store. It cannot be read once the store is closed.
type State struct {
	content merkle.Tree
	place   *place
}

// Root is the Merkle root of the content.
func (s State) Root() bft.Digest { return s.content.Root() }

// Len returns the number of keys.
func (s State) Len() int { return s.content.Len() }

// Get returns the value of a key. It must not be changed.
func (s State) Get(key []byte) (value []byte, ok bool, err error) {
	entry, ok, err := s.content.Get(leafKey(key))
	if !ok || err != nil {
		return nil, false, s.place.check(err)
	}
	_, value, ok = splitEntry(entry)
	return value, ok, nil
}

// WriteTo writes a snapshot, the same for equal states.
func (s State) WriteTo(w io.Writer) (n int64, err error) {
	version, _ := s.content.Reader().(*version)
	if version == nil {
		return s.content.WriteTo(w, nil)
	}
	in, err := version.scan()
	if err != nil {
		return 0, err
	}
	n, err = s.content.WriteTo(w, in)
	return n, errors.Join(s.place.check(err), in.close())
}

// Query answers a read: query is the key. Answer and proof are for [VerifyQuery].
func (s State) Query(query []byte) (answer, proof []byte, err error) {
	if len(query) == 0 || len(query) > MaxKey {
		return nil, nil, fmt.Errorf("the key has %d bytes: need 1 to %d", len(query), MaxKey)
	}
	value, ok, err := s.Get(query)
	if err != nil {
		return nil, nil, err
	}
	answer = []byte{0}
	if ok {
		answer = append([]byte{1}, value...)
	}
	path, err := s.content.Prove(leafKey(query))
	if err != nil {
		return nil, nil, s.place.check(err)
	}
	proof, err = path.MarshalBinary()
	return answer, proof, err
}

// VerifyQuery checks what [State.Query] answered for key against the root of a state, and returns
// the value, or that there is none (found is false). The value is a slice of answer.
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
