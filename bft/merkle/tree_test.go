package merkle

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/reseal-bft/reseal/bft"
)

// records is a storage in memory.
type records map[string][]byte

func (r records) WriteNode(path, node []byte) error {
	r["n"+string(path)] = bytes.Clone(node)
	return nil
}

func (r records) WriteValue(key bft.Digest, value []byte) error {
	r["v"+string(key[:])] = bytes.Clone(value)
	return nil
}

var errMissing = errors.New("missing")

func (r records) read(name string) ([]byte, error) {
	data, ok := r[name]
	if !ok {
		return nil, errMissing
	}
	return data, nil
}

func (r records) ReadNode(path []byte) ([]byte, error)     { return r.read("n" + string(path)) }
func (r records) ReadValue(key bft.Digest) ([]byte, error) { return r.read("v" + string(key[:])) }

// drop deletes what is gone.
func (r records) drop(gone Gone) {
	for _, path := range gone.Nodes {
		delete(r, "n"+string(path))
	}
	for _, key := range gone.Values {
		delete(r, "v"+string(key[:]))
	}
}

// written counts bytes of the nodes that are in memory.
func (r *ref) written() int64 {
	switch {
	case r.empty() || r.stored():
		return 0
	case r.leaf != nil:
		return leafBytes + int64(len(r.leaf.value))
	}
	sum := int64(innerBytes)
	for d := range r.inner {
		sum += r.inner[d].written()
	}
	return sum
}

func requireSame(t require.TestingT, want Map, got Tree, probes []bft.Digest) {
	require.Equal(t, want.Root(), got.Root())
	require.Equal(t, want.Len(), got.Len())
	require.Equal(t, got.root.written(), got.Unsaved())
	for _, key := range append(slices.Collect(maps.Keys(maps.Collect(want.All()))), probes...) {
		value, ok := want.Get(key)
		stored, found, err := got.Get(key)
		require.NoError(t, err)
		require.Equal(t, ok, found)
		require.True(t, bytes.Equal(value, stored))
		size, found, err := got.Size(key)
		require.NoError(t, err)
		require.Equal(t, ok, found)
		require.Equal(t, len(value), size)
		proof, err := got.Prove(key)
		require.NoError(t, err)
		require.Equal(t, want.Prove(key), proof)
	}
	var one, other bytes.Buffer
	_, err := want.WriteTo(&one)
	require.NoError(t, err)
	_, err = got.WriteTo(&other, got.Reader())
	require.NoError(t, err)
	require.Equal(t, one.Bytes(), other.Bytes())
}

// TestTreeAgainstMap changes a map and a tree alike. Saves take their time: the tree is changed
// before what was saved is let go of. What the storage held at a save serves the trees of that
// time; the storage then holds what such a tree needs, and nothing else.
func TestTreeAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type at struct {
			plain Map
			tree  Tree
		}
		var cache *Cache
		if rapid.Bool().Draw(t, "cache") {
			cache = NewCache(2000)
		}
		now := at{Map{}, NewTree(cache)}
		var gone Gone
		var before []at
		disk := records{}
		var saving *Tree
		var saved records
		for range rapid.IntRange(1, 16).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				if saving == nil {
					disk.drop(gone)
					gone = Gone{}
					require.NoError(t, now.tree.Save(disk))
					saved, saving = maps.Clone(disk), new(Tree)
					*saving = now.tree
					fresh := records{}
					all := NewTree(nil)
					for key, value := range now.plain.All() {
						var err error
						all, err = all.Update([]Change{{Key: key, Value: value}}, nil)
						require.NoError(t, err)
					}
					require.NoError(t, all.Save(fresh))
					require.Equal(t, fresh, disk, "the storage holds what the tree needs, and nothing else")
				}
			case 1:
				if saving != nil {
					now.tree = now.tree.After(*saving, saved)
					saving = nil
				}
			default:
				changes := rapid.SliceOfN(rapid.Custom(genChange), 0, 12).Draw(t, "changes")
				before = append(before, now)
				var err error
				now.plain = now.plain.Update(changes)
				now.tree, err = now.tree.Update(changes, &gone)
				require.NoError(t, err)
			}
		}
		for _, at := range append(before, now) {
			requireSame(t, at.plain, at.tree, []bft.Digest{genKey(t), {1}})
		}
	})
}

// TestATreeBelievesNothing damages one record of a storage in each way: whatever is read then is
// right, or an error.
func TestATreeBelievesNothing(t *testing.T) {
	plain := sample(24, 1)
	tree := NewTree(nil)
	for key, value := range plain.All() {
		var err error
		tree, err = tree.Update([]Change{{Key: key, Value: value}}, nil)
		require.NoError(t, err)
	}
	whole := records{}
	require.NoError(t, tree.Save(whole))
	keys := slices.Collect(maps.Keys(maps.Collect(plain.All())))
	names := slices.Sorted(maps.Keys(whole))
	for i, name := range names {
		for what, damaged := range map[string][]byte{
			"flipped":     flip(whole[name], len(whole[name])/2),
			"end flipped": flip(whole[name], len(whole[name])-1), // of a node, often the size of a value
			"empty":       {},
			"cut":         whole[name][:len(whole[name])-1],
			"longer":      append(bytes.Clone(whole[name]), 0),
			"another's":   whole[names[(i+1)%len(names)]],
			"no children": {0},
		} {
			disk := maps.Clone(whole)
			disk[name] = damaged
			found := 0
			bad := tree.After(tree, disk)
			for _, key := range keys {
				want, _ := plain.Get(key)
				if size, _, err := bad.Size(key); err == nil {
					require.Equal(t, len(want), size)
				}
				value, _, err := bad.Get(key)
				if err == nil {
					require.Equal(t, want, value)
				} else {
					require.ErrorIs(t, err, ErrDamaged)
					found++
				}
				if proof, err := bad.Prove(key); err == nil {
					require.Equal(t, plain.Prove(key), proof)
				}
				if next, err := bad.Update([]Change{{Key: key, Delete: true}}, new(Gone)); err == nil {
					require.Equal(t, plain.Update([]Change{{Key: key, Delete: true}}).Root(), next.Root())
				}
			}
			if _, err := bad.WriteTo(new(bytes.Buffer), disk); !bytes.Equal(damaged, whole[name]) {
				require.ErrorIs(t, err, ErrDamaged, fmt.Sprintf("%x %s", name, what))
				require.NotZero(t, found)
			}
		}
	}
}

func flip(data []byte, at int) []byte {
	out := bytes.Clone(data)
	out[at] ^= 4
	return out
}

// A cache holds no more than it may.
func TestTheCacheIsBounded(t *testing.T) {
	tree := NewTree(nil)
	var changes []Change
	for key, value := range sample(2000, 1).All() {
		changes = append(changes, Change{Key: key, Value: value})
	}
	tree, err := tree.Update(changes, nil)
	require.NoError(t, err)
	disk := records{}
	require.NoError(t, tree.Save(disk))
	const limit = 50_000
	cache := NewCache(limit)
	tree.storage.cache = cache
	stored := tree.After(tree, disk)
	for i := range changes {
		_, _, err := stored.Get(changes[i].Key)
		require.NoError(t, err)
		var bytes int64
		for _, generation := range []map[bft.Digest]*inner{cache.young, cache.old} {
			for _, node := range generation {
				bytes += bytesOf(node)
			}
		}
		require.LessOrEqual(t, bytes, int64(limit))
	}
	require.NotEmpty(t, cache.old)
}
