package merkle

import (
	"iter"

	"github.com/reseal-bft/reseal/bft"
)

// Prefix names a subtree: all keys whose first 2*Depth bits are those of Key. The zero value names
// the whole map.
type Prefix struct {
	Key   bft.Digest
	Depth int // 0 to 128
}

// Children names the four quarters of a subtree; one of a single key (128) or of an invalid depth
// has none.
func (p Prefix) Children() (children [Arity]Prefix, ok bool) {
	if p.Depth < 0 || p.Depth >= maxDepth {
		return children, false
	}
	shift := 6 - 2*(p.Depth&3)
	for d := range children {
		children[d] = Prefix{Key: p.Key, Depth: p.Depth + 1}
		at := &children[d].Key[p.Depth>>2]
		*at = *at&^(3<<shift) | byte(d)<<shift
	}
	return children, true
}

// NodeHash returns the hash of a subtree: zero where it is empty, the leaf's hash where it holds
// one key. Two maps agree under a prefix exactly if their hashes there are equal. So a replica
// finds what differs from another by descending where the hashes differ, checking each answer of
// its peer with [Splits].
func (m Map) NodeHash(p Prefix) bft.Digest { return m.under(p).hash }

// Splits reports whether a subtree of hash parent can have children of these hashes.
func Splits(parent bft.Digest, children [Arity]bft.Digest) bool {
	occupied, last := 0, 0
	for i := range children {
		if !children[i].IsZero() {
			occupied, last = occupied+1, i
		}
	}
	switch {
	case occupied == 0:
		return parent.IsZero()
	case occupied == 1 && parent == children[last]:
		return true // a single leaf
	}
	return hashInner(&children) == parent
}

// Under yields keys and values of a subtree, in the order of the keys. Values must not be changed.
func (m Map) Under(p Prefix) iter.Seq2[bft.Digest, []byte] {
	return func(yield func(bft.Digest, []byte) bool) { walk(m.under(p), yield) }
}

// under returns the subtree at the prefix. A prefix of invalid depth names nothing.
func (m Map) under(p Prefix) *ref {
	if p.Depth < 0 || p.Depth > maxDepth {
		return new(ref)
	}
	at := &m.root
	for depth := 0; depth < p.Depth && at.inner != nil; depth++ {
		at = &at.inner[digit(&p.Key, depth)]
	}
	if at.leaf != nil && !sharesDigits(&at.leaf.key, &p.Key, p.Depth) {
		return new(ref)
	}
	return at
}
