package merkle

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/reseal-bft/reseal/bft"
)

// storage is where the nodes of a tree are that are not in memory.
type storage struct {
	cache  *Cache // may be nil
	reader Reader // nil while nothing is stored
}

// open returns an inner node, whose place is on the way to a key at a depth.
func (s *storage) open(at *ref, key *bft.Digest, depth int) (*inner, error) {
	if at.inner != storedInner {
		return at.inner, nil
	}
	if node := s.cache.get(at.hash); node != nil {
		return node, nil
	}
	return s.openAt(at, path(key, depth))
}

func (s *storage) openAt(at *ref, path []byte) (*inner, error) {
	if at.inner != storedInner {
		return at.inner, nil
	}
	data, err := s.reader.ReadNode(path)
	if err != nil {
		return nil, err
	}
	node, ok := decodeNode(data)
	if !ok || node.seal().hash != at.hash {
		return nil, fmt.Errorf("%w: the node at %x is another one", ErrDamaged, path)
	}
	s.cache.put(at.hash, node)
	return node, nil
}

// value returns the value of a leaf.
func (s *storage) value(l *leaf) ([]byte, error) {
	if !l.stored {
		return l.value, nil
	}
	value, err := s.reader.ReadValue(l.key)
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(value) != bft.Digest(l.value) || uint32(len(value)) != l.size {
		return nil, fmt.Errorf("%w: the value of %x is another one", ErrDamaged, l.key[:])
	}
	return value, nil
}

// path names the place of a node: the digits of the keys below it, a byte each.
func path(key *bft.Digest, depth int) []byte {
	p := make([]byte, depth)
	for i := range p {
		p[i] = digit(key, i)
	}
	return p
}

// What a stored node says of a child.
const (
	childEmpty = iota
	childInner // its hash
	childLeaf  // key, hash and size (4 bytes) of the value
)

// encodeNode encodes an inner node: two bits for what each child is, and the children.
func encodeNode(n *inner) []byte {
	data := make([]byte, 1, 1+Arity*68)
	for d := range n {
		child := &n[d]
		switch {
		case child.leaf != nil:
			data[0] |= childLeaf << (2 * d)
			hash := child.leaf.valueHash()
			data = append(append(data, child.leaf.key[:]...), hash[:]...)
			data = binary.BigEndian.AppendUint32(data, child.leaf.size)
		case child.inner != nil:
			data[0] |= childInner << (2 * d)
			data = append(data, child.hash[:]...)
		}
	}
	return data
}

// decodeNode parses what encodeNode made. It believes nothing: the caller compares the hash.
func decodeNode(data []byte) (*inner, bool) {
	if len(data) == 0 {
		return nil, false
	}
	kinds, data := data[0], data[1:]
	n := new(inner)
	for d := range n {
		switch kind := kinds >> (2 * d) & 3; {
		case kind == childEmpty:
		case kind == childInner && len(data) >= 32:
			n[d] = ref{hash: bft.Digest(data[:32]), inner: storedInner}
			data = data[32:]
		case kind == childLeaf && len(data) >= 68:
			l := &leaf{key: bft.Digest(data[:32]), value: append([]byte(nil), data[32:64]...), stored: true, size: binary.BigEndian.Uint32(data[64:])}
			hash := bft.Digest(l.value)
			n[d] = ref{hash: hashLeaf(&l.key, &hash, l.size), leaf: l}
			data = data[68:]
		default:
			return nil, false
		}
	}
	return n, len(data) == 0
}

// Cache keeps nodes that were read, up to a number of bytes. Safe for concurrent use. What is in it
// was verified, and is found by its hash, so it serves any tree.
type Cache struct {
	half int64 // bytes

	mu        sync.Mutex
	young     map[bft.Digest]*inner
	old       map[bft.Digest]*inner // dropped when young has grown to a half
	youngSize int64
}

// NewCache returns a cache for so many bytes.
func NewCache(bytes int64) *Cache {
	return &Cache{half: bytes / 2, young: make(map[bft.Digest]*inner)}
}

// bytesOf is about what a node takes in a cache.
func bytesOf(n *inner) int64 {
	const entry = 32 + 8 + 40 // key, pointer, and the map's share
	size := int64(innerBytes + entry)
	for d := range n {
		if n[d].leaf != nil {
			size += leafBytes + 32
		}
	}
	return size
}

func (c *Cache) get(hash bft.Digest) *inner {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if node, ok := c.young[hash]; ok {
		return node
	}
	node, ok := c.old[hash]
	if !ok {
		return nil
	}
	c.add(hash, node)
	return node
}

func (c *Cache) put(hash bft.Digest, node *inner) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(hash, node)
}

func (c *Cache) add(hash bft.Digest, node *inner) {
	if _, ok := c.young[hash]; ok {
		return
	}
	size := bytesOf(node)
	if c.youngSize+size > c.half {
		c.old, c.young, c.youngSize = c.young, make(map[bft.Digest]*inner), 0
	}
	c.young[hash] = node
	c.youngSize += size
}
