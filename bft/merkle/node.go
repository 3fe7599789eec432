package merkle

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/reseal-bft/reseal/bft"
)

// Arity is the number of children of an inner node: a level of the tree takes two bits of the key.
// Against two children, a path is half as long and takes a third less hashing; its proof is half as
// large again.
const Arity = 4

// maxDepth is the number of levels that the 256 bits of a key make.
const maxDepth = 128

// ref refers to a subtree by its hash and where it is: an inner node, or a leaf. The zero ref is
// the empty subtree. The hash stands beside the pointer, not in the node, so that hashing a node
// does not fetch the children that have not changed into the processor's cache.
type ref struct {
	hash  bft.Digest
	inner *inner
	leaf  *leaf
}

// inner and leaf never change once they are reachable from a map.
type inner [Arity]ref

type leaf struct {
	key bft.Digest
	// value is, of a leaf that is stored, the hash of the value.
	value  []byte
	stored bool
	size   uint32 // of the value, in bytes
}

// storedInner stands for an inner node that is stored and not in memory: only the ref's hash tells
// which.
var storedInner = new(inner)

func (r *ref) empty() bool { return r.inner == nil && r.leaf == nil }

// stored reports whether a subtree is all in the storage.
func (r *ref) stored() bool { return r.inner == storedInner || r.leaf != nil && r.leaf.stored }

// is reports whether two refs are of the very same nodes.
func (r *ref) is(other *ref) bool {
	return r.inner == other.inner && r.leaf == other.leaf && (r.inner != storedInner || r.hash == other.hash)
}

// valueHash returns the hash of a leaf's value.
func (l *leaf) valueHash() bft.Digest {
	if l.stored {
		return bft.Digest(l.value)
	}
	return sha256.Sum256(l.value)
}

// Domains of the hashes.
const (
	domainLeaf  = 0
	domainInner = 1
)

// hashLeaf covers the size too, which is used where the value is not read.
func hashLeaf(key, valueHash *bft.Digest, size uint32) bft.Digest {
	var buf [1 + 2*32 + 4]byte
	buf[0] = domainLeaf
	copy(buf[1:], key[:])
	copy(buf[33:], valueHash[:])
	binary.BigEndian.PutUint32(buf[65:], size)
	return sha256.Sum256(buf[:])
}

func hashInner(children *[Arity]bft.Digest) bft.Digest {
	var buf [1 + Arity*32]byte
	buf[0] = domainInner
	for i := range children {
		copy(buf[1+32*i:], children[i][:])
	}
	return sha256.Sum256(buf[:])
}

func newLeaf(key bft.Digest, value []byte) ref {
	valueHash := bft.Digest(sha256.Sum256(value))
	size := uint32(len(value))
	return ref{hash: hashLeaf(&key, &valueHash, size), leaf: &leaf{key: key, value: value, size: size}}
}

// seal makes a finished node a subtree: one that holds a single leaf is that leaf, one that holds
// nothing is empty.
func (n *inner) seal() ref {
	var hashes [Arity]bft.Digest
	occupied, last := 0, 0
	for i := range n {
		if !n[i].empty() {
			hashes[i] = n[i].hash
			occupied, last = occupied+1, i
		}
	}
	switch {
	case occupied == 0:
		return ref{}
	case occupied == 1 && n[last].leaf != nil:
		return n[last]
	}
	return ref{hash: hashInner(&hashes), inner: n}
}

// digit returns the two bits of key at depth, 0 being the most significant.
func digit(key *bft.Digest, depth int) byte { return key[depth>>2] >> (6 - 2*(depth&3)) & 3 }

// sharesDigits reports whether a and b agree on their first n digits, n being at most maxDepth.
func sharesDigits(a, b *bft.Digest, n int) bool {
	whole := n >> 2
	for i := range whole {
		if a[i] != b[i] {
			return false
		}
	}
	rest := n & 3
	return rest == 0 || (a[whole]^b[whole])>>(8-2*rest) == 0
}
