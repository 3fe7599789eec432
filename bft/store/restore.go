package store

import (
	"github.com/cockroachdb/pebble/v2"

	"github.com/reseal-bft/reseal/bft"
)

// Votes returns the own votes of an epoch at or above a view, in order of views.
func (s *Store) votes(e bft.Epoch, from bft.View) ([]bft.Vote, error) {
	var votes []bft.Vote
	err := s.each(votePrefix(e, from), votePrefix(e+1, 0), func(it *pebble.Iterator) error {
		statement, ok := splitVoteKey(it.Key())
		value, err := it.ValueAndErr()
		if err != nil {
			return s.readError(err)
		}
		if !ok || len(value) == 0 || value[0] > 1 {
			return s.corrupt("an own vote")
		}
		vote := bft.Vote{Statement: statement, First: value[0] == 1}
		if len(value) > 1 {
			vote.Partial = append([]byte(nil), value[1:]...)
		}
		votes = append(votes, vote)
		return nil
	})
	return votes, err
}

// Votes returns the own votes of an epoch that are still stored, in order of views.
func (s *Store) Votes(e bft.Epoch) ([]bft.Vote, error) { return s.votes(e, 0) }

// Restore returns what a core needs to go on in an epoch after a restart: the last final block, and
// all votes, blocks and certificates of the epoch at or above it. Executed is left empty: the
// caller knows which states it has.
func (s *Store) Restore(e bft.Epoch) (r bft.Restored, err error) {
	last, ok, err := s.lastFinal()
	if err != nil {
		return r, err
	}
	if ok {
		block, err := s.blockAt(last.height, last.digest)
		if err != nil {
			return r, err
		}
		if block == nil {
			return r, s.corrupt("the last final block is missing")
		}
		r.Final = bft.Base{Height: last.height, Digest: last.digest, Time: block.Time}
		if block.Epoch == e {
			r.FinalView = last.view
			r.Blocks = append(r.Blocks, block)
		}
	}
	if err := s.restoreOpen(&r, e); err != nil {
		return r, err
	}
	for kind := bft.Notarize; kind <= bft.Finalize; kind++ {
		err := s.each(certificatePrefix(kind, e, r.FinalView), certificatePrefix(kind, e+1, 0), func(it *pebble.Iterator) error {
			c, err := s.certificateAt(it)
			r.Certificates = append(r.Certificates, c)
			return err
		})
		if err != nil {
			return r, err
		}
	}
	// Late finalize votes go to views below the final one too: what was said there binds as well.
	r.Votes, err = s.votes(e, r.FinalView-min(r.FinalView, VotedBelow))
	return r, err
}

// VotedBelow is how far below the last final view own votes are kept and remembered: further than a
// core still votes.
const VotedBelow = 128

// restoreOpen adds the epoch's blocks above the last final one.
func (s *Store) restoreOpen(r *bft.Restored, e bft.Epoch) error {
	return s.each(heightKey(prefixOpen, r.Final.Height+1), []byte{prefixOpen + 1}, func(it *pebble.Iterator) error {
		height, digest, ok := splitHeightDigest(it.Key())
		if !ok {
			return s.corrupt("the key of a block")
		}
		block, err := s.blockAt(height, digest)
		if err != nil {
			return err
		}
		if block == nil {
			return s.corrupt("block " + digest.String() + " is missing")
		}
		if block.Epoch == e {
			r.Blocks = append(r.Blocks, block)
		}
		return nil
	})
}
