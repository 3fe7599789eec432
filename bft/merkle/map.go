package merkle

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"iter"
	"slices"
	"sort"

	"github.com/reseal-bft/reseal/bft"
)

// Map is an immutable map. The zero value is empty. It may be read concurrently, and copied: a copy is the same map.
type Map struct {
	root node
	size int
}

// Change is one change of a batch: a key gets a value, or is deleted.
type Change struct {
	Key    bft.Digest
	Value  []byte // kept by the map: the caller must not change it
	Delete bool
}

// Root returns the digest of the whole content; zero for the empty map.
func (m Map) Root() bft.Digest { return digestOf(m.root) }

// Len returns the number of keys.
func (m Map) Len() int { return m.size }

// Get returns the value of a key. It must not be changed.
func (m Map) Get(key bft.Digest) (value []byte, ok bool) {
	n := m.root
	for depth := 0; ; depth++ {
		switch t := n.(type) {
		case *inner:
			n = t.left
			if bit(&key, depth) == 1 {
				n = t.right
			}
		case *leaf:
			if t.key == key {
				return t.value, true
			}
			return nil, false
		default:
			return nil, false
		}
	}
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

// normalize sorts by key and keeps the last change of each key.
func normalize(changes []Change) []Change {
	sorted := slices.Clone(changes)
	slices.SortStableFunc(sorted, func(a, b Change) int { return compareKeys(&a.Key, &b.Key) })
	kept := sorted[:0]
	for i := range sorted {
		if i+1 < len(sorted) && sorted[i+1].Key == sorted[i].Key {
			continue
		}
		kept = append(kept, sorted[i])
	}
	return kept
}

func compareKeys(a, b *bft.Digest) int {
	// Eight bytes decide nearly always, and compare faster than a slice.
	if c := cmp.Compare(binary.BigEndian.Uint64(a[:]), binary.BigEndian.Uint64(b[:])); c != 0 {
		return c
	}
	return bytes.Compare(a[8:], b[8:])
}

// updater carries the number of keys through a batch.
type updater struct{ size int }

// update applies changes, sorted and all under the subtree n at depth.
func (u *updater) update(n node, depth int, changes []Change) node {
	if len(changes) == 0 {
		return n
	}
	switch t := n.(type) {
	case *inner:
		cut := split(changes, depth)
		left := u.update(t.left, depth+1, changes[:cut])
		right := u.update(t.right, depth+1, changes[cut:])
		if left == t.left && right == t.right {
			return t
		}
		return join(left, right)
	case *leaf:
		return u.updateLeaf(t, depth, changes)
	default:
		return u.build(nil, depth, changes)
	}
}

// updateLeaf applies changes to a subtree that is one leaf.
func (u *updater) updateLeaf(l *leaf, depth int, changes []Change) node {
	at, found := slices.BinarySearchFunc(changes, l.key, func(c Change, key bft.Digest) int { return compareKeys(&c.Key, &key) })
	if !found {
		return u.build(l, depth, changes)
	}
	if len(changes) == 1 && !changes[at].Delete && bytes.Equal(changes[at].Value, l.value) {
		return l
	}
	u.size--
	return u.build(nil, depth, changes)
}

// build makes a subtree of new keys and of at most one leaf that was there, whose key no change names.
func (u *updater) build(old *leaf, depth int, changes []Change) node {
	switch {
	case len(changes) == 0 && old == nil:
		return nil
	case len(changes) == 0:
		return old
	case len(changes) == 1 && changes[0].Delete:
		return u.build(old, depth, nil)
	case len(changes) == 1 && old == nil:
		u.size++
		return newLeaf(changes[0].Key, changes[0].Value)
	}
	cut := split(changes, depth)
	leftOld, rightOld := old, (*leaf)(nil)
	if old != nil && bit(&old.key, depth) == 1 {
		leftOld, rightOld = nil, old
	}
	return join(u.build(leftOld, depth+1, changes[:cut]), u.build(rightOld, depth+1, changes[cut:]))
}

// split returns the index of the first change whose key has bit 1 at depth. The changes agree on all bits above.
func split(changes []Change, depth int) int {
	return sort.Search(len(changes), func(i int) bool { return bit(&changes[i].Key, depth) == 1 })
}

// All yields keys and values in the order of the keys. Values must not be changed.
func (m Map) All() iter.Seq2[bft.Digest, []byte] {
	return func(yield func(bft.Digest, []byte) bool) { walk(m.root, yield) }
}

func walk(n node, yield func(bft.Digest, []byte) bool) bool {
	switch t := n.(type) {
	case *inner:
		return walk(t.left, yield) && walk(t.right, yield)
	case *leaf:
		return yield(t.key, t.value)
	default:
		return true
	}
}
