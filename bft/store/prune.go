package store

import (
	"github.com/cockroachdb/pebble/v2"

	"github.com/reseal-bft/reseal/bft"
)

// PruneViews forgets the votes and nullifications of an epoch below a view. Late finalize votes
// still go to views below the last final block: callers keep [VotedBelow] of them.
func (s *Store) PruneViews(e bft.Epoch, below bft.View) error {
	b := s.NewBatch()
	err := b.b.DeleteRange(votePrefix(e, 0), votePrefix(e, below), nil)
	if err == nil {
		err = b.b.DeleteRange(certificatePrefix(bft.Nullify, e, 0), certificatePrefix(bft.Nullify, e, below), nil)
	}
	return b.finish(err)
}

// PruneEpoch forgets the votes and nullifications of all epochs below e, and the blocks that did
// not become final although one of their height did. Final blocks and their certificates stay.
func (s *Store) PruneEpoch(e bft.Epoch) error {
	last, ok, err := s.lastFinal()
	if err != nil {
		return err
	}
	b := s.NewBatch()
	err = b.b.DeleteRange(votePrefix(0, 0), votePrefix(e, 0), nil)
	if err == nil {
		err = b.b.DeleteRange(certificatePrefix(bft.Nullify, 0, 0), certificatePrefix(bft.Nullify, e, 0), nil)
	}
	if err == nil && ok {
		err = s.dropOpen(b, last.height+1)
	}
	return b.finish(err)
}

// PruneBelow forgets the final blocks below a height, with their certificates, and all others of
// these heights. The block of that height itself must be stored and final.
func (s *Store) PruneBelow(h bft.Height) error {
	oldest, err := s.BlockAt(h)
	if err != nil || oldest == nil {
		return err
	}
	b := s.NewBatch()
	err = s.each([]byte{prefixFinal}, finalKey(h), func(it *pebble.Iterator) error {
		f, err := s.parseFinal(0, it.Value())
		if err != nil {
			return err
		}
		return b.b.Delete(indexKey(f.digest), nil)
	})
	if err == nil {
		err = s.dropOpen(b, h)
	}
	for _, r := range [][2][]byte{
		{{prefixFinal}, finalKey(h)},
		{{prefixBlock}, heightKey(prefixBlock, h)},
		{certificatePrefix(bft.Notarize, 0, 0), certificatePrefix(bft.Notarize, oldest.Epoch, oldest.View)},
		{certificatePrefix(bft.Finalize, 0, 0), certificatePrefix(bft.Finalize, oldest.Epoch, oldest.View)},
	} {
		if err == nil {
			err = b.b.DeleteRange(r[0], r[1], nil)
		}
	}
	return b.finish(err)
}

// Cut says how much of the log is kept below a height.
type Cut struct {
	// Below is the height from which on all is kept.
	Below bft.Height
	// Below it, the newest blocks are kept that take so many bytes, and at least, and at most, so
	// many of them.
	Bytes       int64
	Least, Most bft.Height
}

// CutLog forgets the oldest final blocks, as [Store.PruneBelow] does.
func (s *Store) CutLog(cut Cut) error {
	oldest, found := cut.Below, false
	var bytes int64
	err := s.scan([]byte{prefixBlock}, heightKey(prefixBlock, cut.Below), func(it *pebble.Iterator) error {
		for ok := it.Last(); ok; ok = it.Prev() {
			height, _, ok := splitHeightDigest(it.Key())
			if !ok {
				return s.corrupt("the key of a block")
			}
			value := it.LazyValue() // its size is known without reading it
			bytes += int64(value.Len())
			kept := cut.Below - height
			if found = kept > cut.Most || kept > cut.Least && bytes > cut.Bytes; found {
				break
			}
			oldest = height
		}
		return it.Error()
	})
	if err != nil || !found {
		return err
	}
	return s.PruneBelow(oldest)
}

// dropOpen deletes the blocks below a height that are not final, and their notarizations.
func (s *Store) dropOpen(b *Batch, below bft.Height) error {
	return s.each([]byte{prefixOpen}, heightKey(prefixOpen, below), func(it *pebble.Iterator) error {
		h, digest, ok := splitHeightDigest(it.Key())
		if !ok {
			return s.corrupt("the key of a block")
		}
		if err := b.b.Delete(it.Key(), nil); err != nil {
			return err
		}
		value, err := s.get(finalKey(h))
		if err != nil {
			return err
		}
		if len(value) >= 32 && bft.Digest(value[:32]) == digest {
			return nil // stored again after it had become final
		}
		return s.dropBlock(b, h, digest)
	})
}

func (s *Store) dropBlock(b *Batch, h bft.Height, digest bft.Digest) error {
	block, err := s.blockAt(h, digest)
	if err != nil {
		return err
	}
	if block != nil {
		statement := bft.Statement{Epoch: block.Epoch, View: block.View, Kind: bft.Notarize, Block: digest}
		if err := b.b.Delete(certificateKey(statement), nil); err != nil {
			return err
		}
	}
	if err := b.b.Delete(blockKey(h, digest), nil); err != nil {
		return err
	}
	return b.b.Delete(indexKey(digest), nil)
}

// finish commits a batch unless filling it failed. A prune that a crash undoes is done again later.
func (b *Batch) finish(err error) error {
	if err != nil {
		b.Discard()
		return err
	}
	return b.Commit(false)
}
