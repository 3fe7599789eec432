package merkle

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/reseal-bft/reseal/bft"
)

// updater carries through a batch of changes what is counted and noted.
type updater struct {
	size    int
	storage *storage // of the nodes that are not in memory; nil if all are
	unsaved int64    // bytes of the nodes that are not stored
	gone    *Gone    // nil: nobody wants to know
}

// What a node takes in memory, in bytes, about: its own and the allocator's.
const (
	innerBytes = Arity*48 + 16
	leafBytes  = 80
)

func (u *updater) drop(l *leaf) {
	u.size--
	if !l.stored {
		u.unsaved -= leafBytes + int64(len(l.value))
	}
}

func (u *updater) make(c *Change) ref {
	u.size++
	u.unsaved += leafBytes + int64(len(c.Value))
	return newLeaf(c.Key, c.Value)
}

// update applies changes, sorted and all under the subtree at, which is at depth.
func (u *updater) update(at ref, depth int, changes []*Change) (ref, error) {
	switch {
	case at.leaf != nil:
		return u.updateLeaf(at, depth, changes), nil
	case at.inner == nil:
		return u.build(ref{}, depth, changes), nil
	}
	old, err := u.storage.open(&at, &changes[0].Key, depth)
	if err != nil {
		return at, err
	}
	first, node, changed := &changes[0].Key, *old, false
	for d := range node {
		var under []*Change
		if under, changes = split(changes, depth, byte(d)); len(under) > 0 {
			if node[d], err = u.update(node[d], depth+1, under); err != nil {
				return at, err
			}
			changed = changed || !node[d].is(&old[d])
		}
	}
	if !changed {
		return at, nil
	}
	sealed := node.seal()
	if at.stored() {
		u.unsaved += innerBytes
	}
	if sealed.inner == nil {
		u.unsaved -= innerBytes
		if u.gone != nil {
			u.gone.Nodes = append(u.gone.Nodes, path(first, depth))
		}
	}
	return sealed, nil
}

// updateLeaf applies changes to a subtree that is one leaf.
func (u *updater) updateLeaf(at ref, depth int, changes []*Change) ref {
	i, found := slices.BinarySearchFunc(changes, &at.leaf.key, func(c *Change, key *bft.Digest) int { return bytes.Compare(c.Key[:], key[:]) })
	if !found {
		return u.build(at, depth, changes)
	}
	if len(changes) == 1 && !changes[i].Delete && at.leaf.holds(changes[i].Value) {
		return at
	}
	if changes[i].Delete && u.gone != nil {
		u.gone.Values = append(u.gone.Values, at.leaf.key)
	}
	u.drop(at.leaf)
	return u.build(ref{}, depth, changes)
}

// holds reports whether a value is the leaf's.
func (l *leaf) holds(value []byte) bool {
	if !l.stored {
		return bytes.Equal(value, l.value)
	}
	return sha256.Sum256(value) == bft.Digest(l.value)
}

// build makes a subtree of new keys and of one leaf that was there, whose key no change names, or
// none (empty).
func (u *updater) build(old ref, depth int, changes []*Change) ref {
	switch {
	case len(changes) == 0:
		return old
	case len(changes) == 1 && changes[0].Delete:
		return old
	case len(changes) == 1 && old.empty():
		return u.make(changes[0])
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
	sealed := node.seal()
	if sealed.inner != nil {
		u.unsaved += innerBytes
	}
	return sealed
}
