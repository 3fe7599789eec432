package merkle

import (
	"iter"

	"github.com/reseal-bft/reseal/bft"
)

// Prefix names a subtree: all keys whose first Bits bits are those of Key. The zero value names the whole map.
type Prefix struct {
	Key  bft.Digest
	Bits int // 0 to 256
}

// Halves names the two halves of a subtree; one of a single key (256 bits) or of an invalid length has none.
func (p Prefix) Halves() (left, right Prefix, ok bool) {
	if p.Bits < 0 || p.Bits >= maxDepth {
		return p, p, false
	}
	left, right = p, p
	left.Key[p.Bits>>3] &^= 0x80 >> (p.Bits & 7)
	right.Key[p.Bits>>3] |= 0x80 >> (p.Bits & 7)
	left.Bits++
	right.Bits++
	return left, right, true
}

// NodeHash returns the hash of a subtree: zero where it is empty, the leaf's hash where it holds one key. Two maps agree under a
// prefix exactly if their hashes there are equal. So a replica finds what differs from another by descending where
// the hashes differ, checking each answer of its peer with [Splits].
func (m Map) NodeHash(p Prefix) bft.Digest { return m.under(p).hash }

// Splits reports whether a subtree of hash parent can have halves of the hashes left and right.
func Splits(parent, left, right bft.Digest) bool {
	if left.IsZero() && parent == right || right.IsZero() && parent == left {
		return true // empty, or a single leaf
	}
	return hashInner(&left, &right) == parent
}

// Under yields keys and values of a subtree, in the order of the keys. Values must not be changed.
func (m Map) Under(p Prefix) iter.Seq2[bft.Digest, []byte] {
	return func(yield func(bft.Digest, []byte) bool) { walk(m.under(p), yield) }
}

// under returns the subtree at the prefix. A prefix of invalid length names nothing.
func (m Map) under(p Prefix) *ref {
	if p.Bits < 0 || p.Bits > maxDepth {
		return new(ref)
	}
	at := &m.root
	for depth := 0; depth < p.Bits && at.inner != nil; depth++ {
		at, _ = at.inner.child(&p.Key, depth)
	}
	if at.leaf != nil && !sharesBits(&at.leaf.key, &p.Key, p.Bits) {
		return new(ref)
	}
	return at
}
