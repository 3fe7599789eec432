package replica

import (
	"fmt"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/store"
)

// guardedViews is how far below the last final view the guard remembers.
const guardedViews = store.VotedBelow

// writeLoop carries out, in order, the effects that touch the disk, the key and the network:
// persist, then sign, then send. It takes all that is waiting and writes it as one group, so that
// the cost of a sync is shared.
func (e *epochRun) writeLoop() error {
	var batch []bft.Effect
	for {
		if batch = e.writes.take(e.ctx, batch); batch == nil {
			return e.ctx.Err()
		}
		bytes := decisionSizes(batch)
		if err := e.persist(batch); err != nil {
			return err
		}
		for _, effect := range batch {
			e.sayAndSign(effect)
		}
		e.meter.decide(-bytes)
	}
}

// persist writes a group of effects. It syncs if a vote or this replica's own proposal is among
// them: only these must survive a crash; the rest can be had from others.
func (e *epochRun) persist(effects []bft.Effect) error {
	batch, sync := e.r.cfg.Store.NewBatch(), false
	for i, effect := range effects {
		var err error
		switch x := effect.(type) {
		case bft.StoreBlock:
			sync = sync || x.Block.Proposer == e.config.Self
			err = batch.PutBlock(x.Block)
		case bft.StoreCertificate:
			err = batch.PutCertificate(x.Certificate)
		case bft.Finalized:
			sync = sync || x.Last
			e.guard.Prune(x.Block.View - min(x.Block.View, guardedViews))
			err = batch.PutFinal(x.Block.Height, x.Block.Digest(), x.Block.View)
		case bft.Sign:
			if refused := e.guard.Check(x.Vote); refused != nil {
				e.r.log.Error("the guard refused to sign", "vote", x.Vote.Kind, "view", x.Vote.View, "error", refused)
				e.events.put(bft.Signed{Vote: x.Vote, Err: refused})
				effects[i] = nil
				continue
			}
			sync, err = true, batch.PutVote(x.Vote)
		}
		if err != nil {
			return fmt.Errorf("write to disk: %w", err)
		}
	}
	if err := commit(batch, sync); err != nil {
		return err
	}
	for _, effect := range effects {
		switch x := effect.(type) {
		case bft.Sign:
			e.noteVoted(x.Vote)
		case bft.Finalized:
			e.written.Store(uint64(x.Block.Height))
		}
	}
	return nil
}

// noteVoted takes note of a vote that the store holds.
func (e *epochRun) noteVoted(v bft.Vote) {
	if highest := &e.voted[v.Kind]; uint64(v.View) > highest.Load() {
		highest.Store(uint64(v.View)) // one goroutine writes
	}
}

func commit(batch *store.Batch, sync bool) error {
	if err := batch.Commit(sync); err != nil {
		return fmt.Errorf("write to disk: %w", err)
	}
	return nil
}

// sayAndSign carries out the part of an effect that comes after the disk.
func (e *epochRun) sayAndSign(effect bft.Effect) {
	switch x := effect.(type) {
	case bft.Sign:
		vote := x.Vote
		e.pledge(vote)
		partial, err := e.keys.Signer.Sign(vote.Statement.Bytes(e.config.Cluster))
		vote.Partial = partial
		e.events.put(bft.Signed{Vote: vote, Err: err})
	case bft.Broadcast:
		e.r.cfg.Network.Broadcast(bft.MarshalMessage(x.Message))
	case bft.Send:
		e.r.cfg.Network.Send(x.To, bft.MarshalMessage(x.Message))
	case bft.StoreBlock:
		if c := e.headers.add(x.Block.Digest(), x.Block); c != nil {
			e.r.certified(x.Block.Header, *c)
		}
	case bft.StoreCertificate:
		e.noteCertificate(x.Certificate)
	}
}

// drain writes what the core had decided when the run ended, but signs nothing more.
func (e *epochRun) drain() error {
	var rest []bft.Effect
	for _, effect := range e.writes.items {
		if _, sign := effect.(bft.Sign); !sign {
			rest = append(rest, effect)
		}
	}
	return e.persist(rest)
}

// noteCertificate tells the ledger which state is certified now.
func (e *epochRun) noteCertificate(c bft.Certificate) {
	if c.Kind != bft.Notarize {
		return
	}
	if header, ok := e.headers.await(c); ok {
		e.r.certified(header, c)
	}
}
