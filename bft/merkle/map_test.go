package merkle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/reseal-bft/reseal/bft"
)

// genKey draws keys that collide, and that share long prefixes.
func genKey(t *rapid.T) bft.Digest {
	var key bft.Digest
	key[0] = rapid.SampledFrom([]byte{0, 1, 0x80, 0xff}).Draw(t, "first")
	key[31] = byte(rapid.IntRange(0, 7).Draw(t, "last"))
	return key
}

func genChange(t *rapid.T) Change {
	return Change{
		Key:    genKey(t),
		Value:  rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "value"),
		Delete: rapid.IntRange(0, 2).Draw(t, "delete") == 0,
	}
}

func apply(plain map[bft.Digest][]byte, changes []Change) {
	for _, c := range changes {
		if c.Delete {
			delete(plain, c.Key)
		} else {
			plain[c.Key] = c.Value
		}
	}
}

func fromPlain(plain map[bft.Digest][]byte) Map {
	var m Map
	for key, value := range plain {
		m = m.Update([]Change{{Key: key, Value: value}})
	}
	return m
}

// oracleRoot computes the root by the definition in doc.go, from the plain content.
func oracleRoot(plain map[bft.Digest][]byte, depth int) bft.Digest {
	switch len(plain) {
	case 0:
		return bft.Digest{}
	case 1:
		for key, value := range plain {
			valueHash := sha256.Sum256(value)
			return sha256.Sum256(binary.BigEndian.AppendUint32(slices.Concat([]byte{0}, key[:], valueHash[:]), uint32(len(value))))
		}
	}
	quarters := [4]map[bft.Digest][]byte{{}, {}, {}, {}}
	for key, value := range plain {
		bits := new(big.Int).SetBytes(key[:])
		quarters[bits.Bit(255-2*depth)<<1|bits.Bit(254-2*depth)][key] = value
	}
	node := []byte{1}
	for _, quarter := range quarters {
		hash := oracleRoot(quarter, depth+1)
		node = append(node, hash[:]...)
	}
	return sha256.Sum256(node)
}

func TestMapAgainstPlainMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plain := map[bft.Digest][]byte{}
		var m Map
		for range rapid.IntRange(1, 8).Draw(t, "batches") {
			before, root := m, m.Root()
			changes := rapid.SliceOfN(rapid.Custom(genChange), 0, 12).Draw(t, "changes")
			m = m.Update(changes)
			apply(plain, changes)

			require.Equal(t, oracleRoot(plain, 0), m.Root())
			require.Equal(t, len(plain), m.Len())
			require.Equal(t, root, before.Root())
			require.Equal(t, fromPlain(plain).Root(), m.Root(), "the root depends on the content alone")
			got := maps.Collect(m.All())
			require.Equal(t, len(plain), len(got))
			for key, value := range plain {
				stored, ok := m.Get(key)
				require.True(t, ok && bytes.Equal(value, stored) && bytes.Equal(value, got[key]))
			}
			_, ok := m.Get(genKey(t))
			_ = ok
		}
	})
}

func TestUpdateWithTheSameValueSharesNodes(t *testing.T) {
	m := sample(50, 1)
	for key, value := range m.All() {
		require.Equal(t, m, m.Update([]Change{{Key: key, Value: bytes.Clone(value)}}))
	}
}

func TestProofs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Map{}.Update(rapid.SliceOfN(rapid.Custom(genChange), 0, 20).Draw(t, "content"))
		key := genKey(t)
		value, present := m.Get(key)
		proof := m.Prove(key)
		require.NoError(t, VerifyProof(m.Root(), key, value, present, proof))

		data, err := proof.MarshalBinary()
		require.NoError(t, err)
		require.LessOrEqual(t, len(data), MaxProof)
		parsed, err := ParseProof(data)
		require.NoError(t, err)
		require.Equal(t, proof, parsed)

		require.ErrorIs(t, VerifyProof(m.Root(), key, append([]byte("x"), value...), true, proof), ErrProof)
		require.ErrorIs(t, VerifyProof(m.Root(), key, value, !present, proof), ErrProof)
	})
}

func TestSnapshot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Map{}.Update(rapid.SliceOfN(rapid.Custom(genChange), 0, 20).Draw(t, "content"))
		var buf bytes.Buffer
		n, err := m.WriteTo(&buf)
		require.NoError(t, err)
		require.EqualValues(t, buf.Len(), n)
		snapshot := bytes.Clone(buf.Bytes())
		buf.WriteString("what follows")

		got, err := Read(&buf)
		require.NoError(t, err)
		require.Equal(t, m.Root(), got.Root())
		require.Equal(t, m.Len(), got.Len())
		require.Equal(t, "what follows", buf.String(), "nothing is read beyond the snapshot")

		_, err = Read(bytes.NewReader(snapshot[:rapid.IntRange(0, len(snapshot)-1).Draw(t, "cut")]))
		require.ErrorIs(t, err, errSnapshot)
	})
}

// TestCompare lets a replica that holds one map fetch another through hashes and subtrees alone.
func TestCompare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mine := Map{}.Update(rapid.SliceOfN(rapid.Custom(genChange), 0, 20).Draw(t, "mine"))
		theirs := mine.Update(rapid.SliceOfN(rapid.Custom(genChange), 0, 6).Draw(t, "changes"))
		var changes []Change
		var fetch func(p Prefix)
		fetch = func(p Prefix) {
			parent := theirs.NodeHash(p)
			if mine.NodeHash(p) == parent {
				return
			}
			children, ok := p.Children()
			if !ok || rapid.Bool().Draw(t, "take it whole") {
				for key := range mine.Under(p) {
					changes = append(changes, Change{Key: key, Delete: true})
				}
				for key, value := range theirs.Under(p) {
					changes = append(changes, Change{Key: key, Value: value})
				}
				return
			}
			var hashes [Arity]bft.Digest
			for i := range children {
				hashes[i] = theirs.NodeHash(children[i])
			}
			require.True(t, Splits(parent, hashes))
			for _, child := range children {
				fetch(child)
			}
		}
		fetch(Prefix{})
		require.Equal(t, theirs.Root(), mine.Update(changes).Root())
	})
}

func TestPrefixOutOfBounds(t *testing.T) {
	m := sample(10, 1)
	for _, p := range []Prefix{{Depth: -1}, {Depth: 129}} {
		require.True(t, m.NodeHash(p).IsZero())
		_, ok := p.Children()
		require.False(t, ok)
	}
}

func hashed(i uint64) bft.Digest { return sha256.Sum256(binary.BigEndian.AppendUint64(nil, i)) }

func sample(n int, seed uint64) Map {
	changes := make([]Change, n)
	for i := range changes {
		changes[i] = Change{Key: hashed(seed<<32 + uint64(i)), Value: binary.BigEndian.AppendUint64(nil, uint64(i))}
	}
	return Map{}.Update(changes)
}

// FuzzForgery asserts that no proof shows of a map what is not so, and that what parses is canonical.
func FuzzForgery(f *testing.F) {
	m := sample(100, 1)
	for i := range uint64(6) {
		key := hashed(1<<32 + 97 + i)
		value, present := m.Get(key)
		data, err := m.Prove(key).MarshalBinary()
		require.NoError(f, err)
		f.Add(key[:], value, present, data)
	}
	f.Fuzz(func(t *testing.T, keyBytes, value []byte, present bool, data []byte) {
		proof, err := ParseProof(data)
		if err != nil {
			return
		}
		again, err := proof.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, data, again)
		var key bft.Digest
		copy(key[:], keyBytes)
		if VerifyProof(m.Root(), key, value, present, proof) != nil {
			return
		}
		stored, ok := m.Get(key)
		require.Equal(t, ok, present)
		require.True(t, !ok || bytes.Equal(stored, value))
	})
}

func FuzzSnapshot(f *testing.F) {
	for _, n := range []int{0, 1, 20} {
		var buf bytes.Buffer
		_, err := sample(n, 2).WriteTo(&buf)
		require.NoError(f, err)
		f.Add(buf.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		m, err := Read(r)
		if err != nil {
			return
		}
		var buf bytes.Buffer
		_, err = m.WriteTo(&buf)
		require.NoError(t, err)
		require.Equal(t, data[:len(data)-r.Len()], buf.Bytes())
	})
}

// BenchmarkUpdate changes 1000 keys of a map of a million.
func BenchmarkUpdate(b *testing.B) {
	const size, batch = 1 << 20, 1000
	m := sample(size, 3)
	rng := rand.New(rand.NewPCG(1, 2))
	changes := make([]Change, batch)
	value := make([]byte, 128)
	b.ReportAllocs()
	for b.Loop() {
		for i := range changes {
			changes[i] = Change{Key: hashed(3<<32 + rng.Uint64N(size)), Value: slices.Clone(value)}
		}
		binary.BigEndian.PutUint64(value, rng.Uint64())
		m = m.Update(changes)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/key")
}
