package merkle

import (
	"crypto/sha256"

	"github.com/reseal-bft/reseal/bft"
)

// ref refers to a subtree by its hash and where it is: an inner node, or a leaf. The zero ref is the empty subtree. The hash stands beside the
// pointer, not in the node, so that hashing a node does not fetch the child that has not changed into the processor's cache.
type ref struct {
	hash  bft.Digest
	inner *inner
	leaf  *leaf
}

// inner and leaf never change once made.
type inner struct{ left, right ref }

type leaf struct {
	key   bft.Digest
	value []byte
}

func (r *ref) empty() bool { return r.inner == nil && r.leaf == nil }

// Domains of the hashes.
const (
	domainLeaf  = 0
	domainInner = 1
)

func hashLeaf(key, valueHash *bft.Digest) bft.Digest { return hashPair(domainLeaf, key, valueHash) }

func hashInner(left, right *bft.Digest) bft.Digest { return hashPair(domainInner, left, right) }

func hashPair(domain byte, a, b *bft.Digest) bft.Digest {
	var buf [65]byte
	buf[0] = domain
	copy(buf[1:], a[:])
	copy(buf[33:], b[:])
	return sha256.Sum256(buf[:])
}

func newLeaf(key bft.Digest, value []byte) ref {
	valueHash := bft.Digest(sha256.Sum256(value))
	return ref{hash: hashLeaf(&key, &valueHash), leaf: &leaf{key: key, value: value}}
}

// join makes the node above two subtrees: a single leaf moves up, everything else gets an inner node.
func join(left, right ref) ref {
	switch {
	case left.empty() && right.inner == nil:
		return right
	case right.empty() && left.inner == nil:
		return left
	}
	return ref{hash: hashInner(&left.hash, &right.hash), inner: &inner{left, right}}
}

// bit returns the bit of key at depth, 0 being the most significant.
func bit(key *bft.Digest, depth int) byte { return key[depth>>3] >> (7 - depth&7) & 1 }

// child returns the half of a node that a key belongs to, and the other.
func (n *inner) child(key *bft.Digest, depth int) (towards, sibling *ref) {
	if bit(key, depth) == 0 {
		return &n.left, &n.right
	}
	return &n.right, &n.left
}

// sharesBits reports whether a and b agree on their first n bits, n being at most 256.
func sharesBits(a, b *bft.Digest, n int) bool {
	whole := n >> 3
	for i := range whole {
		if a[i] != b[i] {
			return false
		}
	}
	rest := n & 7
	return rest == 0 || (a[whole]^b[whole])>>(8-rest) == 0
}
