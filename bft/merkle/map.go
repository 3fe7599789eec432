package merkle

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"iter"
	"slices"

	"github.com/reseal-bft/reseal/bft"
)

// Map is an immutable map. The zero value is empty. It may be read concurrently, and copied: a copy is the same map.
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

// Update returns the map with the changes made; where they name a key more than once, the last one counts. The map m stays as it
// was. Nodes that no change touches are shared, each touched node is hashed once.
func (m Map) Update(changes []Change) Map {
	if len(changes) == 0 {
		return m
	}
	u := updater{size: m.size}
	root := u.update(m.root, 0, normalize(changes))
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

// updater carries the number of keys through a batch.
type updater struct{ size int }

// update applies changes, sorted and all under the subtree at, which is at depth.
func (u *updater) update(at ref, depth int, changes []*Change) ref {
	switch {
	case at.leaf != nil:
		return u.updateLeaf(at, depth, changes)
	case at.inner == nil:
		return u.build(ref{}, depth, changes)
	}
	node, changed := *at.inner, false
	for d := range node {
		var under []*Change
		if under, changes = split(changes, depth, byte(d)); len(under) > 0 {
			node[d] = u.update(node[d], depth+1, under)
			changed = changed || !node[d].is(&at.inner[d])
		}
	}
	if !changed {
		return at
	}
	return node.seal()
}

// updateLeaf applies changes to a subtree that is one leaf.
func (u *updater) updateLeaf(at ref, depth int, changes []*Change) ref {
	i, found := slices.BinarySearchFunc(changes, &at.leaf.key, func(c *Change, key *bft.Digest) int { return bytes.Compare(c.Key[:], key[:]) })
	if !found {
		return u.build(at, depth, changes)
	}
	if len(changes) == 1 && !changes[i].Delete && bytes.Equal(changes[i].Value, at.leaf.value) {
		return at
	}
	u.size--
	return u.build(ref{}, depth, changes)
}

// build makes a subtree of new keys and of one leaf that was there, whose key no change names, or none (empty).
func (u *updater) build(old ref, depth int, changes []*Change) ref {
	switch {
	case len(changes) == 0:
		return old
	case len(changes) == 1 && changes[0].Delete:
		return old
	case len(changes) == 1 && old.empty():
		u.size++
		return newLeaf(changes[0].Key, changes[0].Value)
	}
	var node inner
	if !old.empty() {
		node[digit(&old.leaf.key, depth)] = old
	}
	for d := range node {
		var under []*Change
		under, changes = split(changes, depth, byte(d))
		node[d] = u.build(node[d], depth+1, under)
	}
	return node.seal()
}

// split cuts off the changes whose key has the given digit at depth. They come first: the digits before were cut off before.
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
