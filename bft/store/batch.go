package store

import (
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"github.com/reseal-bft/reseal/bft"
)

// Batch collects writes that become durable together. It is used by one goroutine, and once.
type Batch struct {
	s *Store
	b *pebble.Batch
}

// NewBatch returns an empty batch. It must be committed, or dropped by [Batch.Discard].
func (s *Store) NewBatch() *Batch { return &Batch{s: s, b: s.db.NewBatch()} }

// PutBlock adds a block.
func (b *Batch) PutBlock(block *bft.Block) error {
	if err := checkBlock(block); err != nil {
		return err
	}
	digest := block.Digest()
	op := b.b.SetDeferred(len(blockKey(0, digest)), blockSize(block))
	copy(op.Key, blockKey(block.Height, digest))
	appendBlock(op.Value[:0], block)
	if err := op.Finish(); err != nil {
		return err
	}
	if err := b.set(indexKey(digest), binary.BigEndian.AppendUint64(nil, uint64(block.Height))); err != nil {
		return err
	}
	return b.set(openKey(block.Height, digest), nil)
}

// PutCertificate adds a certificate. Of two for one statement the later one is kept.
func (b *Batch) PutCertificate(c bft.Certificate) error {
	return b.set(certificateKey(c.Statement), c.Signature)
}

// PutVote adds an own vote.
func (b *Batch) PutVote(v bft.Vote) error {
	value := make([]byte, 1, 1+len(v.Partial))
	if v.First {
		value[0] = 1
	}
	return b.set(voteKey(v.Statement), append(value, v.Partial...))
}

// PutFinal notes that the block with the given digest, of the given view, is the final one of its
// height.
func (b *Batch) PutFinal(h bft.Height, digest bft.Digest, view bft.View) error {
	if err := b.b.Delete(openKey(h, digest), nil); err != nil {
		return err
	}
	return b.set(finalKey(h), binary.BigEndian.AppendUint64(digest[:], uint64(view)))
}

// PutMeta sets a value under a name of the caller's own.
func (b *Batch) PutMeta(name string, value []byte) error { return b.set(metaKey(name), value) }

// DeleteMeta deletes all metadata whose names begin with a prefix.
func (b *Batch) DeleteMeta(prefix string) error {
	from := metaKey(prefix)
	return b.b.DeleteRange(from, append(metaKey(prefix), 0xff), nil)
}

func (b *Batch) set(key, value []byte) error { return b.b.Set(key, value, nil) }

// Empty reports whether nothing was added.
func (b *Batch) Empty() bool { return b.b.Empty() }

// Discard drops the batch.
func (b *Batch) Discard() { _ = b.b.Close() }

// Commit writes the batch, all of it or nothing. With sync it returns when the batch and all
// earlier ones are on disk; goroutines that commit at once share the wait. The batch cannot be used
// again.
func (b *Batch) Commit(sync bool) error {
	err := b.commit(sync)
	if b.s.failed() == nil { // else the database may still hold it
		b.Discard()
	}
	return err
}

func (b *Batch) commit(sync bool) error {
	s := b.s
	if err := s.failed(); err != nil {
		return err
	}
	if s.unchecked.Add(int64(b.b.Len())) > checkEvery {
		s.unchecked.Store(0)
		if err := s.checkSpace(); err != nil {
			return err
		}
	}
	if b.Empty() { // the database would not even wait for those before it
		if sync {
			return s.Sync()
		}
		return nil
	}
	options := pebble.NoSync
	if sync {
		options = pebble.Sync
	}
	if err := b.b.Commit(options); err != nil {
		return s.fail(err)
	}
	return s.failed()
}

// Sync returns when everything that was committed is on disk.
func (s *Store) Sync() error {
	if err := s.failed(); err != nil {
		return err
	}
	if err := s.db.LogData(nil, pebble.Sync); err != nil {
		return s.fail(err)
	}
	return s.failed()
}
