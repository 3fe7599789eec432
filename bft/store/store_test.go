package store

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

var cluster = bft.ClusterID{1, 2, 3}

// open opens a store for the time of the test.
func open(t testing.TB, fs vfs.FS, dir string) *Store {
	t.Helper()
	s, err := Open(dir, cluster, Options{FS: fs})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// chain makes n blocks of an epoch from a height on; views equal heights.
func chain(e bft.Epoch, from bft.Height, n int) []*bft.Block {
	blocks := make([]*bft.Block, n)
	parent := bft.Digest{byte(e)}
	for i := range blocks {
		blocks[i] = newBlock(e, bft.View(from)+bft.View(i), from+bft.Height(i), parent, fmt.Sprintf("payload %d", i))
		parent = blocks[i].Digest()
	}
	return blocks
}

func newBlock(e bft.Epoch, v bft.View, h bft.Height, parent bft.Digest, payload string) *bft.Block {
	return &bft.Block{
		Header: bft.Header{
			Epoch: e, View: v, Height: h, Proposer: 2, Parent: parent, Time: int64(h) * 1000, Payload: bft.PayloadDigest([]byte(payload)),
		},
		Signature: make([]byte, 64), Payload: []byte(payload),
	}
}

func notarization(b *bft.Block) bft.Certificate { return certificate(b, bft.Notarize) }

func certificate(b *bft.Block, kind bft.VoteKind) bft.Certificate {
	return bft.Certificate{
		Statement: bft.Statement{Epoch: b.Epoch, View: b.View, Kind: kind, Block: b.Digest()},
		Signature: []byte(fmt.Sprintf("%s of %d", kind, b.View)),
	}
}

func nullification(e bft.Epoch, v bft.View) bft.Certificate {
	return bft.Certificate{Statement: bft.Statement{Epoch: e, View: v, Kind: bft.Nullify}, Signature: []byte("nullified")}
}

func voteFor(b *bft.Block, first bool) bft.Vote {
	return bft.Vote{Statement: notarization(b).Statement, First: first, Partial: []byte("partial")}
}

// write commits what f puts into a batch.
func write(t testing.TB, s *Store, f func(b *Batch)) {
	t.Helper()
	b := s.NewBatch()
	f(b)
	require.NoError(t, b.Commit(true))
}

// fill stores blocks with votes and notarizations, the first final of them final.
func fill(t testing.TB, s *Store, blocks []*bft.Block, final int) {
	t.Helper()
	write(t, s, func(b *Batch) {
		for i, block := range blocks {
			require.NoError(t, b.PutBlock(block))
			require.NoError(t, b.PutVote(voteFor(block, true)))
			require.NoError(t, b.PutCertificate(notarization(block)))
			if i < final {
				require.NoError(t, b.PutFinal(block.Height, block.Digest(), block.View))
			}
		}
	})
}

func TestEmptyStore(t *testing.T) {
	s := open(t, vfs.NewMem(), "dir")
	block, err := s.Block(bft.Digest{1})
	require.NoError(t, err)
	require.Nil(t, block)
	block, err = s.BlockAt(7)
	require.NoError(t, err)
	require.Nil(t, block)
	_, ok, err := s.LastFinal()
	require.NoError(t, err)
	require.False(t, ok)
	_, ok, err = s.LatestFinalization()
	require.NoError(t, err)
	require.False(t, ok)
	_, r, err := s.LatestSnapshot()
	require.NoError(t, err)
	require.Nil(t, r)
	restored, err := s.Restore(3)
	require.NoError(t, err)
	require.Equal(t, bft.Restored{}, restored)
	value, err := s.Meta("nothing")
	require.NoError(t, err)
	require.Nil(t, value)
	require.NoError(t, s.NewBatch().Commit(false))
	require.NoError(t, s.NewBatch().Commit(true))
}

func TestReadBack(t *testing.T) {
	fs := vfs.NewMem()
	blocks := chain(1, 1, 10)
	s, err := Open("dir", cluster, Options{FS: fs})
	require.NoError(t, err)
	fill(t, s, blocks, 7)
	write(t, s, func(b *Batch) {
		require.NoError(t, b.PutCertificate(certificate(blocks[3], bft.Finalize)))
		require.NoError(t, b.PutCertificate(certificate(blocks[5], bft.Finalize)))
		require.NoError(t, b.PutMeta("name", []byte("value")))
	})
	require.NoError(t, s.Close())

	s = open(t, fs, "dir")
	for i, want := range blocks {
		got, err := s.Block(want.Digest())
		require.NoError(t, err)
		require.Equal(t, want, got)
		at, err := s.BlockAt(want.Height)
		require.NoError(t, err)
		require.Equal(t, i < 7, at != nil)
		c, ok, err := s.Notarization(want)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, notarization(want), c)
	}
	last, ok, err := s.LastFinal()
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, 7, last)
	f, ok, err := s.LatestFinalization()
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, certificate(blocks[5], bft.Finalize), f)
	value, err := s.Meta("name")
	require.NoError(t, err)
	require.Equal(t, "value", string(value))

	some, err := s.Blocks(2, 100, 1<<20)
	require.NoError(t, err)
	require.Equal(t, blocks[1:7], some)
	some, err = s.Blocks(2, 4, 1<<20)
	require.NoError(t, err)
	require.Equal(t, blocks[1:4], some)
	some, err = s.Blocks(2, 4, 0)
	require.NoError(t, err)
	require.Equal(t, blocks[1:2], some)
	some, err = s.Blocks(8, 9, 1<<20)
	require.NoError(t, err)
	require.Empty(t, some)
}

func TestRestore(t *testing.T) {
	s := open(t, vfs.NewMem(), "dir")
	old := chain(1, 1, 4)
	fill(t, s, old, 4)
	blocks := chain(2, 5, 6)
	rival := newBlock(2, 20, 8, bft.Digest{9}, "rival")
	fill(t, s, blocks, 2)
	write(t, s, func(b *Batch) {
		require.NoError(t, b.PutBlock(rival))
		require.NoError(t, b.PutVote(bft.Vote{Statement: nullification(2, 5).Statement}))
		require.NoError(t, b.PutVote(bft.Vote{Statement: nullification(2, 19).Statement}))
		require.NoError(t, b.PutCertificate(nullification(2, 5)))
		require.NoError(t, b.PutCertificate(nullification(2, 19)))
		require.NoError(t, b.PutCertificate(certificate(blocks[1], bft.Finalize)))
	})

	r, err := s.Restore(2)
	require.NoError(t, err)
	require.Equal(t, bft.Base{Height: 6, Digest: blocks[1].Digest(), Time: 6000}, r.Final)
	require.EqualValues(t, 6, r.FinalView)
	require.ElementsMatch(t, append([]*bft.Block{rival}, blocks[1:]...), r.Blocks)
	wantCertificates := []bft.Certificate{nullification(2, 19), certificate(blocks[1], bft.Finalize)}
	for _, b := range blocks[1:] {
		wantCertificates = append(wantCertificates, notarization(b))
	}
	require.ElementsMatch(t, wantCertificates, r.Certificates)

	all, err := s.Votes(2)
	require.NoError(t, err)
	require.Len(t, all, 8)
	require.ElementsMatch(t, all, r.Votes, "those a little below the final view bind too: late finalize votes go there")

	next, err := s.Restore(3)
	require.NoError(t, err)
	require.Equal(t, bft.Restored{Final: r.Final}, next, "a new epoch begins with the last final block and nothing else")
}

func TestPrune(t *testing.T) {
	s := open(t, vfs.NewMem(), "dir")
	old, blocks := chain(1, 1, 4), chain(2, 5, 6)
	orphan, rival := newBlock(1, 9, 3, bft.Digest{9}, "orphan"), newBlock(2, 30, 11, bft.Digest{9}, "rival")
	fill(t, s, old, 4)
	fill(t, s, blocks, 6)
	beside := newBlock(2, 31, 10, bft.Digest{9}, "beside the last final block")
	fill(t, s, []*bft.Block{orphan, rival, beside}, 0)
	write(t, s, func(b *Batch) {
		require.NoError(t, b.PutBlock(blocks[0]), "stored again when it is final")
		require.NoError(t, b.PutCertificate(nullification(1, 2)))
		require.NoError(t, b.PutCertificate(nullification(2, 8)))
		for _, block := range append(old, blocks...) {
			require.NoError(t, b.PutCertificate(certificate(block, bft.Finalize)))
		}
	})
	require.Equal(t, []*bft.Block{blocks[0], orphan, rival, beside}, openBlocks(t, s), "those that are not known to be final, and one that will be found to be")

	require.NoError(t, s.PruneEpoch(2))
	require.Equal(t, []*bft.Block{rival}, openBlocks(t, s))
	votes, err := s.Votes(1)
	require.NoError(t, err)
	require.Empty(t, votes)
	votes, err = s.Votes(2)
	require.NoError(t, err)
	require.Len(t, votes, 8)
	requireStored(t, s, append(old, append(blocks, rival)...), []*bft.Block{orphan, beside})
	_, ok, err := s.Certificate(nullification(1, 2).Statement)
	require.NoError(t, err)
	require.False(t, ok)

	require.NoError(t, s.PruneViews(2, 8))
	votes, err = s.Votes(2)
	require.NoError(t, err)
	require.Len(t, votes, 5)
	_, ok, err = s.Certificate(nullification(2, 8).Statement)
	require.NoError(t, err)
	require.True(t, ok)

	require.NoError(t, s.PruneBelow(7))
	requireStored(t, s, append(blocks[2:], rival), append(old, blocks[:2]...))
	for h := bft.Height(1); h <= 10; h++ {
		final, err := s.BlockAt(h)
		require.NoError(t, err)
		require.Equal(t, h >= 7, final != nil, "block %d is known to be final", h)
	}
	for _, block := range append(old, blocks...) {
		_, ok, err := s.Certificate(certificate(block, bft.Finalize).Statement)
		require.NoError(t, err)
		require.Equal(t, block.Height >= 7, ok, "the finalization of block %d", block.Height)
	}
	require.NoError(t, s.PruneBelow(100), "a height that is not there changes nothing")
	requireStored(t, s, blocks[2:], nil)
}

// openBlocks are the blocks that are listed as not final, in order of heights.
func openBlocks(t *testing.T, s *Store) (blocks []*bft.Block) {
	t.Helper()
	require.NoError(t, s.each([]byte{prefixOpen}, []byte{prefixOpen + 1}, func(it *pebble.Iterator) error {
		h, digest, ok := splitHeightDigest(it.Key())
		require.True(t, ok)
		block, err := s.blockAt(h, digest)
		blocks = append(blocks, block)
		return err
	}))
	slices.SortStableFunc(blocks, func(a, b *bft.Block) int { return cmp.Compare(a.View, b.View) })
	return blocks
}

// requireStored checks that some blocks are stored with their notarizations, and others neither.
func requireStored(t *testing.T, s *Store, stored, gone []*bft.Block) {
	t.Helper()
	for i, b := range append(append([]*bft.Block{}, stored...), gone...) {
		got, err := s.Block(b.Digest())
		require.NoError(t, err)
		require.Equal(t, i < len(stored), got != nil, "block %d", b.Height)
		_, ok, err := s.Notarization(b)
		require.NoError(t, err)
		require.Equal(t, i < len(stored), ok, "notarization %d", b.Height)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, nil, filepath.Join(dir, "a", "b"))
	require.NotNil(t, s)

	_, err := Open(filepath.Join(dir, "a", "b"), cluster, Options{})
	require.ErrorIs(t, err, ErrLocked)
	_, err = Open(filepath.Join(dir, "a"), cluster, Options{})
	require.ErrorIs(t, err, ErrNotEmpty)

	other := filepath.Join(dir, "other")
	closed, err := Open(other, bft.ClusterID{9}, Options{})
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	_, err = Open(other, cluster, Options{})
	require.ErrorIs(t, err, ErrForeign)
	require.ErrorContains(t, err, "another cluster")
	require.ErrorContains(t, err, "if it is the one, the file is damaged: move the directory away (not other.mark beside it)")

	locked := filepath.Join(dir, "locked")
	require.NoError(t, os.MkdirAll(filepath.Join(locked, lockName), 0o700))
	_, err = Open(locked, cluster, Options{})
	require.NotErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, "is a directory")

	fs := vfs.NewMem()
	require.NoError(t, fs.MkdirAll("new", 0o700))
	f, err := fs.Create("new/"+markerName, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write([]byte("reseal store 2\n"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = Open("new", cluster, Options{FS: fs})
	require.ErrorIs(t, err, ErrForeign)
	require.ErrorContains(t, err, "another version")
}

func TestDamagedRecords(t *testing.T) {
	blocks := chain(1, 1, 3)
	for name, damage := range map[string]func(b *Batch) error{
		"a block":            func(b *Batch) error { return b.set(blockKey(2, blocks[1].Digest()), []byte("nonsense")) },
		"another block":      func(b *Batch) error { return b.set(blockKey(2, blocks[1].Digest()), appendBlock(nil, blocks[0])) },
		"an index entry":     func(b *Batch) error { return b.set(indexKey(blocks[1].Digest()), []byte{1}) },
		"a final record":     func(b *Batch) error { return b.set(finalKey(2), []byte{1}) },
		"the final block":    func(b *Batch) error { return b.b.Delete(blockKey(2, blocks[1].Digest()), nil) },
		"a vote":             func(b *Batch) error { return b.set(voteKey(notarization(blocks[2]).Statement), []byte{7}) },
		"a vote's key":       func(b *Batch) error { return b.set(append(votePrefix(1, 9), 1), []byte{1}) },
		"a certificate":      func(b *Batch) error { return b.set(append(certificatePrefix(bft.Notarize, 1, 9), 1), []byte{1}) },
		"an open block":      func(b *Batch) error { return b.set(heightKey(prefixOpen, 9), nil) },
		"an unknown block":   func(b *Batch) error { return b.set(openKey(9, bft.Digest{1}), nil) },
		"the key of a final": func(b *Batch) error { return b.set(append(finalKey(2), 1), []byte{1}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, vfs.NewMem(), "dir")
			fill(t, s, blocks, 2)
			write(t, s, func(b *Batch) { require.NoError(t, damage(b)) })
			_, err := s.Restore(1)
			if name == "an index entry" {
				_, err = s.Block(blocks[1].Digest())
			}
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, "move the directory away")
		})
	}
}

func TestRecordIsTheWireEncoding(t *testing.T) {
	block := chain(1, 1, 1)[0]
	want, err := block.MarshalBinary()
	require.NoError(t, err)
	require.Equal(t, want, appendBlock(nil, block))
	require.Equal(t, len(want), blockSize(block))

	b := open(t, vfs.NewMem(), "dir").NewBatch()
	defer b.Discard()
	block.Signature = nil
	require.Error(t, b.PutBlock(block))
}

// BenchmarkCommit stores blocks of 64 KiB with a vote each, synced.
func BenchmarkCommit(b *testing.B) {
	s := open(b, nil, b.TempDir())
	block := chain(1, 1, 1)[0]
	block.Payload = make([]byte, 64<<10)
	block.Header.Payload = bft.PayloadDigest(block.Payload)
	b.SetBytes(int64(blockSize(block)))
	for b.Loop() {
		block.Height++
		block.View++
		batch := s.NewBatch()
		require.NoError(b, batch.PutBlock(block))
		require.NoError(b, batch.PutVote(voteFor(block, true)))
		require.NoError(b, batch.Commit(true))
	}
}

// The log is cut behind a height by bytes, between a least and a most number of blocks.
func TestTheLogIsCutByBytes(t *testing.T) {
	const size = 10 << 10
	for _, test := range []struct {
		cut    Cut
		oldest bft.Height
	}{
		{Cut{Below: 10, Bytes: 4 * size, Most: 100}, 7}, // 3 of them are less, with their headers
		{Cut{Below: 10, Bytes: 4 * size, Least: 5, Most: 100}, 5},
		{Cut{Below: 10, Bytes: 4 * size, Most: 2}, 8},
		{Cut{Below: 10, Most: 100}, 10},
		{Cut{Below: 10, Bytes: 100 * size, Most: 100}, 1},
	} {
		s := open(t, vfs.NewMem(), "dir")
		blocks := chain(1, 1, 12)
		for _, block := range blocks {
			block.Payload = make([]byte, size)
			block.Header.Payload = bft.PayloadDigest(block.Payload)
		}
		for i := 1; i < len(blocks); i++ {
			blocks[i].Parent = blocks[i-1].Digest()
		}
		fill(t, s, blocks, len(blocks))
		require.NoError(t, s.Flush())
		require.NoError(t, s.CutLog(test.cut))
		for _, block := range blocks {
			final, err := s.BlockAt(block.Height)
			require.NoError(t, err)
			require.Equal(t, block.Height >= test.oldest, final != nil, "%+v: block %d", test.cut, block.Height)
		}
	}
}
