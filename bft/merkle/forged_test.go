package merkle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// What a liar who knows the whole map would send, each for one check.
func TestForgedProofs(t *testing.T) {
	m := sample(100, 1)
	key, absent := hashed(1<<32), hashed(2<<32)
	value, _ := m.Get(key)
	valueHash := bft.Digest(sha256.Sum256(value))

	own := m.Prove(key)
	own.Other = &OtherLeaf{Key: key, ValueHash: valueHash, Size: uint32(len(value))}
	require.ErrorIs(t, VerifyProof(m.Root(), key, nil, false, own), ErrProof, "a key is absent because its own leaf is in the way")
	require.ErrorIs(t, VerifyProof(m.Root(), key, value, true, own), ErrProof, "a key is there, and its leaf in the way")

	elsewhere := Proof{Siblings: m.Prove(absent).Siblings, Other: &OtherLeaf{Key: key, ValueHash: valueHash, Size: uint32(len(value))}}
	require.NotEqual(t, digit(&key, 0), digit(&absent, 0))
	_, err := elsewhere.Root(absent, nil, false)
	require.ErrorIs(t, err, ErrProof, "a leaf that stands nowhere on the way")

	long := Proof{Siblings: make([][Arity - 1]bft.Digest, maxDepth+1)}
	require.ErrorIs(t, VerifyProof(m.Root(), key, value, true, long), ErrProof, "a path longer than a key")
	_, err = long.MarshalBinary()
	require.ErrorIs(t, err, ErrProof)
}

// A proof has one encoding.
func TestProofHasOneEncoding(t *testing.T) {
	sibling, zero, size := bytes.Repeat([]byte{7}, 32), make([]byte, 32), []byte{0, 0, 0, 9}
	for name, c := range map[string]struct {
		data []byte
		good bool
	}{
		"a sibling":                   {slices.Concat([]byte{1, 1}, sibling, []byte{0}), true},
		"no sibling":                  {[]byte{1, 0, 0}, true},
		"another leaf":                {slices.Concat([]byte{0, 1}, sibling, sibling, size), true},
		"an empty sibling, spelt out": {slices.Concat([]byte{1, 1}, zero, []byte{0}), false},
		"a fourth sibling":            {slices.Concat([]byte{1, 1 | 8}, sibling, []byte{0}), false},
		"a fifth, and its hash":       {slices.Concat([]byte{1, 16}, sibling, []byte{0}), false},
		"neither leaf nor none":       {[]byte{0, 2}, false},
		"another leaf of kind 2":      {slices.Concat([]byte{0, 2}, sibling, sibling, size), false},
		"half a leaf":                 {slices.Concat([]byte{0, 1}, sibling), false},
		"a leaf of no size":           {slices.Concat([]byte{0, 1}, sibling, sibling), false},
		"more than a proof":           {[]byte{0, 0, 0}, false},
		"as deep as a key":            {append(append([]byte{maxDepth}, make([]byte, maxDepth)...), 0), true},
		"deeper than a key":           {append(append([]byte{maxDepth + 1}, make([]byte, maxDepth+1)...), 0), false},
	} {
		_, err := ParseProof(c.data)
		require.Equal(t, c.good, err == nil, "%s: %v", name, err)
	}
}

// A snapshot comes from a peer: its keys rise, its values are bounded.
func TestForgedSnapshots(t *testing.T) {
	snapshot := func(keys []byte, size uint32) *bytes.Reader {
		b := binary.BigEndian.AppendUint64([]byte(snapshotMagic), uint64(len(keys)))
		for _, k := range keys {
			b = append(b, bytes.Repeat([]byte{k}, 32)...)
			b = append(binary.BigEndian.AppendUint32(b, size), make([]byte, size)...)
		}
		return bytes.NewReader(b)
	}
	m, err := Read(snapshot([]byte{1, 2, 3}, 5))
	require.NoError(t, err)
	require.Equal(t, 3, m.Len())
	_, err = Read(snapshot([]byte{1, 3, 2}, 5))
	require.ErrorIs(t, err, errSnapshot, "keys fall")
	_, err = Read(snapshot([]byte{1, 2, 2}, 5))
	require.ErrorIs(t, err, errSnapshot, "a key again")
	_, err = Read(snapshot([]byte{1}, MaxValue))
	require.NoError(t, err)
	_, err = Read(snapshot([]byte{1}, MaxValue+1))
	require.ErrorIs(t, err, errSnapshot, "a value that is too large")
}

// What a peer tells of the children of a subtree is checked against the subtree's hash.
func TestForgedChildren(t *testing.T) {
	m := sample(100, 1)
	children, _ := Prefix{}.Children()
	var hashes [Arity]bft.Digest
	for i := range children {
		hashes[i] = m.NodeHash(children[i])
	}
	require.True(t, Splits(m.Root(), hashes))
	require.False(t, Splits(m.Root(), [Arity]bft.Digest{}), "nothing is there")
	require.True(t, Splits(bft.Digest{}, [Arity]bft.Digest{}))
	require.False(t, Splits(bft.Digest{}, hashes), "something is there")
	for i := range hashes {
		forged := hashes
		forged[i][5] ^= 1
		require.False(t, Splits(m.Root(), forged))
		var alone [Arity]bft.Digest
		alone[i] = hashes[i]
		require.False(t, Splits(m.Root(), alone), "the others are left out")
	}
	leaf := Map{}.Update([]Change{{Key: hashed(1)}}).Root()
	require.True(t, Splits(leaf, [Arity]bft.Digest{2: leaf}), "a single leaf is its parent")
	require.False(t, Splits(leaf, [Arity]bft.Digest{2: hashes[0]}))
}
