package merkle

import (
	"crypto/sha256"

	"github.com/reseal-bft/reseal/bft"
)

// node is *inner or *leaf; an empty subtree is nil. Nodes never change once made.
type node interface{ digest() bft.Digest }

type inner struct {
	hash        bft.Digest
	left, right node
}

type leaf struct {
	hash  bft.Digest
	key   bft.Digest
	value []byte
}

func (n *inner) digest() bft.Digest { return n.hash }
func (n *leaf) digest() bft.Digest  { return n.hash }

// Domains of the hashes.
const (
	domainLeaf  = 0
	domainInner = 1
)

func hashLeaf(key bft.Digest, valueHash bft.Digest) bft.Digest {
	return hashPair(domainLeaf, &key, &valueHash)
}

func hashInner(left, right bft.Digest) bft.Digest { return hashPair(domainInner, &left, &right) }

func hashPair(domain byte, a, b *bft.Digest) bft.Digest {
	var buf [65]byte
	buf[0] = domain
	copy(buf[1:], a[:])
	copy(buf[33:], b[:])
	return sha256.Sum256(buf[:])
}

func newLeaf(key bft.Digest, value []byte) *leaf {
	return &leaf{hash: hashLeaf(key, sha256.Sum256(value)), key: key, value: value}
}

// join makes the node above two subtrees: a single leaf moves up, everything else gets an inner node.
func join(left, right node) node {
	switch {
	case left == nil && right == nil:
		return nil
	case left == nil:
		if l, ok := right.(*leaf); ok {
			return l
		}
	case right == nil:
		if l, ok := left.(*leaf); ok {
			return l
		}
	}
	return &inner{hash: hashInner(digestOf(left), digestOf(right)), left: left, right: right}
}

func digestOf(n node) bft.Digest {
	if n == nil {
		return bft.Digest{}
	}
	return n.digest()
}

// bit returns the bit of key at depth, 0 being the most significant.
func bit(key *bft.Digest, depth int) byte { return key[depth>>3] >> (7 - depth&7) & 1 }

// sharesBits reports whether a and b agree on their first n bits.
func sharesBits(a, b *bft.Digest, n int) bool {
	whole := n >> 3
	if [32]byte(*a) == [32]byte(*b) {
		return true
	}
	for i := range whole {
		if a[i] != b[i] {
			return false
		}
	}
	rest := n & 7
	return rest == 0 || (a[whole]^b[whole])>>(8-rest) == 0
}
