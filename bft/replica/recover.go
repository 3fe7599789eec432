package replica

import (
	"errors"
	"fmt"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/store"
)

// recover brings the state to the last final block on disk. A snapshot must have the root that its
// certificate proves, and blocks must link up with it. Where a block is damaged or missing, the
// replica stops there and fetches the rest from others.
func (r *Replica) recover() error {
	if err := r.loadSnapshot(); err != nil {
		return err
	}
	if err := r.noteBaseRoot(r.cfg.System.Membership()); err != nil {
		return err
	}
	return r.replayAll()
}

// replayAll executes the final blocks on disk that are not executed yet.
func (r *Replica) replayAll() error {
	last, ok, err := r.cfg.Store.LastFinal()
	if err != nil || !ok {
		return err
	}
	for r.ledger.latest.Load().height < last {
		err := r.replay()
		if errors.Is(err, errFatal) {
			return err
		}
		if err != nil {
			r.log.Error("the log on disk is damaged; the rest comes from other replicas", "height", r.ledger.latest.Load().height+1, "error", err)
			return nil
		}
	}
	return nil
}

// replay executes the next block from disk, which must be the next of a valid chain: an older
// version, or an intruder, may have left others there.
func (r *Replica) replay() error {
	tip, err := r.tip()
	if err != nil {
		return err
	}
	block, err := r.cfg.Store.BlockAt(r.ledger.latest.Load().height + 1)
	if err == nil && block == nil {
		err = errors.New("the block is missing")
	}
	if err == nil {
		err = tip.Follows(&block.Header)
	}
	if err == nil {
		err = r.agrees(&block.Header)
	}
	if err != nil {
		return err
	}
	_, err = r.execute(block, block.EpochEnd)
	return err
}

// checkReplayed refuses to go on with a disk that calls blocks final which are not to be followed,
// and which others did not replace by better ones.
func (r *Replica) checkReplayed() error {
	last, ok, err := r.cfg.Store.LastFinal()
	if height := r.ledger.latest.Load().height; err == nil && ok && last > height {
		err = fmt.Errorf("%w: it calls block %d final, but from block %d on they are no valid log: move the store directory away (not the .mark file beside it) and "+
			"start again; the replica then fetches the log from the others, and votes again from the next epoch on", store.ErrCorrupt, last, height+1)
	}
	return err
}

// noteBaseRoot keeps the state root of the block below an epoch, if that is where the ledger
// stands: a core that is started again later in the epoch needs it.
func (r *Replica) noteBaseRoot(m *Membership) error {
	s := r.ledger.latest.Load()
	if s.height != m.Base.Height {
		return nil
	}
	batch := r.cfg.Store.NewBatch()
	if err := batch.PutMeta(baseRootKey(m.Epoch), s.root[:]); err != nil {
		return err
	}
	return commit(batch, false)
}

// baseRoot returns what noteBaseRoot kept.
func (r *Replica) baseRoot(m *Membership) (bft.Digest, error) {
	value, err := r.cfg.Store.Meta(baseRootKey(m.Epoch))
	if err != nil {
		return bft.Digest{}, err
	}
	if len(value) == 0 && r.ledger.latest.Load().height > m.Base.Height {
		return bft.Digest{}, nil // the state came from a snapshot within the epoch: the core has no need of the base's
	}
	if len(value) != len(bft.Digest{}) {
		return bft.Digest{}, fmt.Errorf("the disk has no state root for the start of epoch %d: move the store directory away and start again", m.Epoch)
	}
	return bft.Digest(value), nil
}

func baseRootKey(e bft.Epoch) string { return fmt.Sprintf("base-root/%d", e) }
