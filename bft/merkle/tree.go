package merkle

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/reseal-bft/reseal/bft"
)

// Tree is an immutable map like [Map], with the same root and proofs, whose nodes need not be in
// memory: [Tree.Save] writes them to a storage of the caller's, and what [Tree.After] returns reads
// them from there when they are needed. What is read is believed only as far as the hashes in
// memory prove it, up to the root: anything else is [ErrDamaged]. A tree may be read concurrently,
// and copied. [NewTree] makes an empty one.
type Tree struct {
	root    ref
	size    int
	unsaved int64
	storage *storage
}

// Writer takes the nodes of a tree. The arguments must not be kept.
type Writer interface {
	// WriteNode sets the node at a path, of 0 to 127 bytes. In the order of its path, a node comes
	// before all below it, and these before all others.
	WriteNode(path, node []byte) error
	// WriteValue sets the value of a key.
	WriteValue(key bft.Digest, value []byte) error
}

// Reader reads what a [Writer] was given; what is not there is an error. The result is not kept or
// changed.
type Reader interface {
	ReadNode(path []byte) ([]byte, error)
	ReadValue(key bft.Digest) ([]byte, error)
}

// Gone tells what an update has made superfluous in the storage.
type Gone struct {
	Nodes  [][]byte     // paths
	Values []bft.Digest // keys
}

// NewTree returns an empty tree. Nodes that are read are kept in the cache, which others may share.
func NewTree(cache *Cache) Tree { return Tree{storage: &storage{cache: cache}} }

// Stored returns a tree that was saved, from what [Tree.Mark] said of it. Nothing else is read yet:
// the mark names the root, to which everything is held as it is read. It is false for what is no
// mark.
func Stored(cache *Cache, r Reader, mark []byte) (Tree, bool) {
	if len(mark) < 8 {
		return Tree{}, false
	}
	size, encoded := binary.BigEndian.Uint64(mark), mark[8:]
	top, ok := decodeNode(encoded)
	if !ok || !bytes.Equal(encodeNode(&inner{top[0]}), encoded) || top[0].empty() != (size == 0) || size > math.MaxInt {
		return Tree{}, false
	}
	return Tree{root: top[0], size: int(size), storage: &storage{cache: cache, reader: r}}, true
}

// Mark says which tree this is, for [Stored].
func (t Tree) Mark() []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(t.size)), encodeNode(&inner{t.root})...)
}

// Root returns the digest of the whole content; zero for the empty map.
func (t Tree) Root() bft.Digest { return t.root.hash }

// Len returns the number of keys.
func (t Tree) Len() int { return t.size }

// Unsaved returns about how much memory the nodes take that are not stored, in bytes.
func (t Tree) Unsaved() int64 { return t.unsaved }

// Reader returns what reads the nodes that are stored; nil if none are.
func (t Tree) Reader() Reader { return t.storage.reader }

// Get returns the value of a key. It must not be changed.
func (t Tree) Get(key bft.Digest) (value []byte, ok bool, err error) {
	l, err := t.find(key)
	if l == nil || err != nil {
		return nil, false, err
	}
	value, err = t.storage.value(l)
	return value, err == nil, err
}

// Size returns the size of a key's value, which is not read; the leaf proves it.
func (t Tree) Size(key bft.Digest) (size int, ok bool, err error) {
	l, err := t.find(key)
	if l == nil || err != nil {
		return 0, false, err
	}
	return int(l.size), true, nil
}

func (t Tree) find(key bft.Digest) (*leaf, error) {
	at := &t.root
	for depth := 0; at.inner != nil; depth++ {
		node, err := t.storage.open(at, &key, depth)
		if err != nil {
			return nil, err
		}
		at = &node[digit(&key, depth)]
	}
	if at.leaf == nil || at.leaf.key != key {
		return nil, nil
	}
	return at.leaf, nil
}

// Update returns the tree with the changes made, as [Map.Update] does, and adds what they have made
// superfluous to gone. It fails where the storage does.
func (t Tree) Update(changes []Change, gone *Gone) (Tree, error) {
	if len(changes) == 0 {
		return t, nil
	}
	u := updater{size: t.size, unsaved: t.unsaved, storage: t.storage, gone: gone}
	root, err := u.update(t.root, 0, normalize(changes))
	if err != nil {
		return t, err
	}
	return Tree{root: root, size: u.size, unsaved: u.unsaved, storage: t.storage}, nil
}

// Prove returns the proof of what the tree holds under a key.
func (t Tree) Prove(key bft.Digest) (Proof, error) {
	var p Proof
	at := &t.root
	for depth := 0; at.inner != nil; depth++ {
		node, err := t.storage.open(at, &key, depth)
		if err != nil {
			return Proof{}, err
		}
		at = p.descend(node, &key, depth)
	}
	p.end(at, &key)
	return p, nil
}

// Save writes all nodes that are not stored. What was superfluous before must have been deleted,
// since a save may set it again.
func (t Tree) Save(w Writer) error { return save(w, &t.root, make([]byte, 0, maxDepth)) }

func save(w Writer, at *ref, path []byte) error {
	switch {
	case at.empty() || at.stored():
		return nil
	case at.leaf != nil:
		return w.WriteValue(at.leaf.key, at.leaf.value)
	}
	if err := w.WriteNode(path, encodeNode(at.inner)); err != nil {
		return err
	}
	for d := range at.inner {
		if err := save(w, &at.inner[d], append(path, byte(d))); err != nil {
			return err
		}
	}
	return nil
}

// After returns the tree with all nodes that it shares with an earlier one left to the storage,
// where that one was saved, and no longer in memory. The cost is that of the nodes which were made
// since.
func (t Tree) After(saved Tree, r Reader) Tree {
	var unsaved int64
	root := release(&t.root, &saved.root, 0, &unsaved)
	return Tree{root: root, size: t.size, unsaved: unsaved, storage: &storage{cache: t.storage.cache, reader: r}}
}

// release returns a subtree without the nodes that it shares with the saved one at the same place.
func release(at, saved *ref, depth int, unsaved *int64) ref {
	switch {
	case at.empty() || at.stored():
		return *at
	case at.leaf != nil && at.leaf == saved.leaf:
		hash := at.leaf.valueHash()
		return ref{hash: at.hash, leaf: &leaf{key: at.leaf.key, value: hash[:], stored: true, size: at.leaf.size}}
	case at.leaf != nil:
		*unsaved += leafBytes + int64(len(at.leaf.value))
		return *at
	case at.inner == saved.inner:
		return ref{hash: at.hash, inner: storedInner}
	}
	*unsaved += innerBytes
	var node inner
	for d := range at.inner {
		under := new(ref)
		switch {
		case saved.leaf != nil && int(digit(&saved.leaf.key, depth)) == d:
			under = saved
		case saved.inner != nil && saved.inner != storedInner:
			under = &saved.inner[d]
		}
		node[d] = release(&at.inner[d], under, depth+1, unsaved)
	}
	return ref{hash: at.hash, inner: &node}
}

// WriteTo writes a snapshot of all keys and values to w, as [Map.WriteTo] does. It reads the
// storage in order, by r: each node, then what is below it. Everything is verified before it is
// written.
func (t Tree) WriteTo(w io.Writer, r Reader) (int64, error) {
	s := &storage{reader: r}
	return writeSnapshot(w, t.size, func(yield func(bft.Digest, []byte) error) error {
		keys := 0
		err := s.walk(&t.root, make([]byte, 0, maxDepth), func(key bft.Digest, value []byte) error {
			keys++
			return yield(key, value)
		})
		if err == nil && keys != t.size { // the one thing of a mark that the root does not bind
			err = fmt.Errorf("%w: it has %d keys and not %d", ErrDamaged, keys, t.size)
		}
		return err
	})
}

func (s *storage) walk(at *ref, path []byte, yield func(bft.Digest, []byte) error) error {
	switch {
	case at.empty():
		return nil
	case at.leaf != nil:
		value, err := s.value(at.leaf)
		if err != nil {
			return err
		}
		return yield(at.leaf.key, value)
	}
	node, err := s.openAt(at, path)
	if err != nil {
		return err
	}
	for d := range node {
		if err := s.walk(&node[d], append(path, byte(d)), yield); err != nil {
			return err
		}
	}
	return nil
}

// ErrDamaged says that the storage of a [Tree] holds something else than was saved there.
var ErrDamaged = fmt.Errorf("the state on disk is damaged")
