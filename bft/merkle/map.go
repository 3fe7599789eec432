package merkle

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"iter"
	"slices"

	"github.com/reseal-bft/reseal/bft"
)

// Map is an immutable map. The zero value is empty. It may be read concurrently, and copied: a copy
// is the same map.
type Map struct {
	root ref
	size int
}

// Change is one change of a batch: a key gets a value, or is deleted.
type Change struct {
	Key    bft.Digest
	Value  []byte // kept by the map: the caller must not change it
	Delete bool
}

// Root returns the digest of the whole content; zero for the empty map.
func (m Map) Root() bft.Digest { return m.root.hash }

// Len returns the number of keys.
func (m Map) Len() int { return m.size }

// Get returns the value of a key. It must not be changed.
func (m Map) Get(key bft.Digest) (value []byte, ok bool) {
	at := &m.root
	for depth := 0; at.inner != nil; depth++ {
		at = &at.inner[digit(&key, depth)]
	}
	if at.leaf == nil || at.leaf.key != key {
		return nil, false
	}
	return at.leaf.value, true
}

// Update returns the map with the changes made; where they name a key more than once, the last one
// counts. The map m stays as it was. Nodes that no change touches are shared, each touched node is
// hashed once.
func (m Map) Update(changes []Change) Map {
	if len(changes) == 0 {
		return m
	}
	u := updater{size: m.size}
	root, _ := u.update(m.root, 0, normalize(changes)) // nothing is read: it cannot fail
	return Map{root: root, size: u.size}
}

// position names a change by the first bytes of its key, which decide nearly every comparison.
type position struct {
	prefix uint64
	index  int
}

// normalize sorts by key and keeps the last change of each key.
func normalize(changes []Change) []*Change {
	order := make([]position, len(changes))
	for i := range changes {
		order[i] = position{binary.BigEndian.Uint64(changes[i].Key[:]), i}
	}
	slices.SortFunc(order, func(a, b position) int {
		if a.prefix != b.prefix {
			return cmp.Compare(a.prefix, b.prefix)
		}
		return cmp.Or(bytes.Compare(changes[a.index].Key[8:], changes[b.index].Key[8:]), cmp.Compare(a.index, b.index))
	})
	sorted := make([]*Change, 0, len(changes))
	for i, p := range order {
		c := &changes[p.index]
		if i > 0 && sorted[len(sorted)-1].Key == c.Key {
			sorted = sorted[:len(sorted)-1]
		}
		sorted = append(sorted, c)
	}
	return sorted
}

// split cuts off the changes whose key has the given digit at depth. They come first: the digits
// before were cut off before.
func split(changes []*Change, depth int, d byte) (under, rest []*Change) {
	n := 0
	for n < len(changes) && digit(&changes[n].Key, depth) == d {
		n++
	}
	return changes[:n], changes[n:]
}

// All yields keys and values in the order of the keys. Values must not be changed.
func (m Map) All() iter.Seq2[bft.Digest, []byte] {
	return func(yield func(bft.Digest, []byte) bool) { walk(&m.root, yield) }
}

func walk(at *ref, yield func(bft.Digest, []byte) bool) bool {
	switch {
	case at.inner != nil:
		for i := range at.inner {
			if !walk(&at.inner[i], yield) {
				return false
			}
		}
	case at.leaf != nil:
		return yield(at.leaf.key, at.leaf.value)
	}
	return true
}
