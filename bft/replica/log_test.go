package replica

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/store"
)

// lie is what a Byzantine peer makes of an honest piece of the log.
type lie struct {
	name  string
	alter func(w *world, p *piece, fillers []*bft.Block)
	// may is set when what is served is good all the same.
	may bool
}

// The pieces are of a world of three blocks in epoch 1, of which the third is its last, and two
// fillers above it, the second of which is finalized.
var lies = []lie{
	{name: "nothing", alter: func(*world, *piece, []*bft.Block) {}, may: true},
	{name: "a filler as a block", alter: func(w *world, p *piece, f []*bft.Block) {
		p.blocks, p.proof.Above = append(p.blocks, f[0]), p.proof.Above[1:]
	}},
	{name: "all fillers as blocks", alter: func(w *world, p *piece, f []*bft.Block) { p.blocks, p.proof.Above = append(p.blocks, f...), nil }},
	{name: "a filler left out", alter: func(w *world, p *piece, f []*bft.Block) { p.proof.Above = p.proof.Above[1:] }},
	{name: "the fillers turned round", alter: func(w *world, p *piece, f []*bft.Block) {
		p.proof.Above[0], p.proof.Above[1] = p.proof.Above[1], p.proof.Above[0]
	}},
	{name: "a certificate of a filler for the last block", alter: func(w *world, p *piece, f []*bft.Block) { p.proof.Above = nil }},
	{name: "a forged certificate", alter: func(w *world, p *piece, f []*bft.Block) { p.proof.Certificate.Signature = []byte("bad") }},
	{name: "a notarization of the last filler", alter: func(w *world, p *piece, f []*bft.Block) { p.proof.Certificate.Kind = bft.Notarize }},
	{name: "a nullification", alter: func(w *world, p *piece, f []*bft.Block) { p.proof.Certificate.Kind = bft.Nullify }},
	{name: "the first block left out", alter: func(w *world, p *piece, f []*bft.Block) { p.blocks = p.blocks[1:] }},
	{name: "a block in the middle left out", alter: func(w *world, p *piece, f []*bft.Block) { p.blocks = append(p.blocks[:1:1], p.blocks[2:]...) }},
	{name: "a leader's signature exchanged", alter: func(w *world, p *piece, f []*bft.Block) {
		b := *p.blocks[1]
		b.Signature = append([]byte(nil), b.Signature...)
		b.Signature[3] ^= 1
		p.blocks[1] = &b
	}},
	{name: "the end of the next epoch too", alter: func(w *world, p *piece, f []*bft.Block) { p.blocks = append(p.blocks, w.blocks[3]) }},
}

// endOfEpoch is a world in which epoch 1, or 0, has ended as the lies need it.
func endOfEpoch(t testing.TB, epoch bft.Epoch) (*world, []*bft.Block) {
	w := newWorld(t, bft.Size{F: 1}, epoch)
	w.order(10)
	fillers := w.end(2)
	w.order(10)
	return w, fillers
}

// checkLies serves each lie to a replica that catches up, first alone and then with honest peers,
// and says what is wrong with what it made of it.
func checkLies(t testing.TB) error {
	for _, lie := range lies {
		w, fillers := endOfEpoch(t, 1)
		p := w.piece(1, 100)
		altered := &piece{append([]*bft.Block(nil), p.blocks...), &bft.Proof{Above: append([]bft.Header(nil), p.proof.Above...), Certificate: p.proof.Certificate}}
		lie.alter(w, altered, fillers)
		raw, err := altered.marshal()
		if err != nil {
			return err
		}
		liar := func(_ context.Context, method string, call []byte) ([]byte, error) {
			if method == methodLog && fromOf(call) == 1 {
				return raw, nil
			}
			return nil, errors.New("no")
		}
		s := w.store()
		network := &peers{serve: map[bft.ReplicaID]func(context.Context, string, []byte) ([]byte, error){2: liar}}
		r, err := w.replica(s, network)
		if err != nil {
			return err
		}
		if _, err := r.catchUp(context.Background()); err != nil {
			return fmt.Errorf("%s: %w", lie.name, err)
		}
		if err := soundAfter(w, s, r, lie.may); err != nil {
			return fmt.Errorf("%s: %w", lie.name, err)
		}
		// Whatever it heard: honest peers lead it to the end, and it starts again from its disk.
		network.serve[3], network.serve[4] = w.honest(100), w.honest(1)
		if _, err := r.catchUp(context.Background()); err != nil {
			return fmt.Errorf("%s, then honest peers: %w", lie.name, err)
		}
		again, err := w.replica(s, network)
		if err != nil {
			return fmt.Errorf("%s, started again: %w", lie.name, err)
		}
		for _, r := range []*Replica{r, again} {
			if got, want := r.ledger.latest.Load(), w.ledger.latest.Load(); got.height != want.height || got.root != want.root {
				return fmt.Errorf("%s: at height %d in the end, not %d", lie.name, got.height, want.height)
			}
			if err := r.checkReplayed(); err != nil {
				return fmt.Errorf("%s: %w", lie.name, err)
			}
		}
	}
	return nil
}

// soundAfter checks that a replica has, of the log and as final, nothing but what is in the world.
func soundAfter(w *world, s *store.Store, r *Replica, may bool) error {
	height := r.ledger.latest.Load().height
	if height > 0 && !may {
		return fmt.Errorf("it believed %d blocks", height)
	}
	for h := range bft.Height(20) {
		block, err := s.BlockAt(h)
		if err != nil {
			return err
		}
		if block != nil && (int(h) > len(w.blocks) || block.Digest() != w.blocks[h-1].Digest()) {
			return fmt.Errorf("it stored a wrong block as final at height %d", h)
		}
		if block != nil && h > height {
			return fmt.Errorf("it stored block %d, which it did not believe", h)
		}
	}
	return nil
}

func TestLiesAboutTheLog(t *testing.T) { require.NoError(t, checkLies(t)) }

// An epoch's end that only a filler's finalization proves leads a replica out of it, also out of
// epoch 0, and whoever came out of it can lead others.
func TestEpochsEndByTheFinalizationOfAFiller(t *testing.T) {
	for _, epoch := range []bft.Epoch{0, 1} {
		for fillers := range 4 {
			w := newWorld(t, bft.Size{F: 1}, epoch)
			w.order(10)
			w.end(fillers)
			first, err := w.replica(w.store(), &peers{serve: map[bft.ReplicaID]func(context.Context, string, []byte) ([]byte, error){2: w.honest(1), 3: w.honest(9)}})
			require.NoError(t, err)
			agreed, err := first.catchUp(t.Context())
			require.NoError(t, err)
			require.True(t, agreed)
			require.Equal(t, epoch+1, first.Membership().Epoch)
			require.NoError(t, first.keepEnd(first.Membership()))
			require.NoError(t, first.cfg.Store.PruneEpoch(epoch+1))

			second, err := w.replica(w.store(), &peers{serve: map[bft.ReplicaID]func(context.Context, string, []byte) ([]byte, error){
				2: func(ctx context.Context, method string, call []byte) ([]byte, error) {
					if method != methodLog {
						return nil, errors.New("no")
					}
					return first.serveLog(ctx, nil, call)
				},
			}})
			require.NoError(t, err)
			_, err = second.catchUp(t.Context())
			require.NoError(t, err)
			require.Equal(t, epoch+1, second.Membership().Epoch, "%d fillers", fillers)
		}
	}
}

// A core leaves the fillers on disk as blocks that are not final; the proof made of them survives
// that they are forgotten.
func TestTheProofOfAnEpochsEndIsKept(t *testing.T) {
	w, fillers := endOfEpoch(t, 1)
	s := w.store()
	batch := s.NewBatch()
	for _, block := range append(w.blocks[:3:3], fillers...) {
		require.NoError(t, batch.PutBlock(block))
	}
	for _, block := range w.blocks[:3] {
		require.NoError(t, batch.PutFinal(block.Height, block.Digest(), block.View))
	}
	require.NoError(t, batch.PutCertificate(w.ends[1].Certificate))
	require.NoError(t, batch.Commit(true))
	r, err := w.replica(s, &peers{})
	require.NoError(t, err)
	require.Equal(t, bft.Epoch(2), r.Membership().Epoch)
	require.NoError(t, r.keepEnd(r.Membership()))
	last, err := s.BlockAt(3)
	require.NoError(t, err)
	proof, err := r.endProof(last)
	require.NoError(t, err)
	require.Equal(t, w.ends[1], proof)
}

// An epoch's run may end when a final block is on disk and not executed yet. That is no damage,
// even when others cannot prove the block at that moment.
func TestAFinalBlockThatTheLastRunDidNotExecuteIsNoDamage(t *testing.T) {
	w, _ := endOfEpoch(t, 1)
	s := w.store()
	put := func(blocks ...*bft.Block) {
		batch := s.NewBatch()
		for _, block := range blocks {
			require.NoError(t, batch.PutBlock(block))
			require.NoError(t, batch.PutFinal(block.Height, block.Digest(), block.View))
		}
		require.NoError(t, batch.Commit(true))
	}
	put(w.blocks[:2]...)
	noMore := func(_ context.Context, method string, call []byte) ([]byte, error) { return new(piece).marshal() }
	r, err := w.replica(s, &peers{serve: map[bft.ReplicaID]serve{2: noMore, 3: noMore, 4: noMore}})
	require.NoError(t, err)
	put(w.blocks[2])
	enough := errors.New("enough")
	r.cfg.Keys = func(context.Context, *Membership) (EpochKeys, error) { return EpochKeys{}, enough }
	require.ErrorIs(t, r.Run(t.Context()), enough, "it goes on to the next run")
	require.EqualValues(t, 3, r.ledger.latest.Load().height)
}

// A store in which an older version, or an intruder, has called a filler or a stranger final gives
// an error that says what to do.
func TestAPoisonedStoreGivesAdvice(t *testing.T) {
	for name, poison := range map[string]func(w *world, fillers []*bft.Block) *bft.Block{
		"a filler": func(_ *world, fillers []*bft.Block) *bft.Block { return fillers[0] },
		"a block of the next epoch before its time": func(w *world, _ []*bft.Block) *bft.Block {
			h := w.headerOn(nil, 9, bft.Digest{}, true)
			h.View, h.Height, h.Parent, h.ParentView = 1, 4, w.blocks[2].Digest(), 0
			return w.sign(h, nil)
		},
		"a block that follows nothing": func(w *world, _ []*bft.Block) *bft.Block {
			h := w.blocks[1].Header
			h.Height, h.View, h.Proposer = 4, 9, 3
			return w.sign(h, w.blocks[1].Payload)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, fillers := endOfEpoch(t, 1)
			s := w.store()
			batch := s.NewBatch()
			for _, block := range append(w.blocks[:3:3], poison(w, fillers)) {
				require.NoError(t, batch.PutBlock(block))
				require.NoError(t, batch.PutFinal(block.Height, block.Digest(), block.View))
			}
			require.NoError(t, batch.Commit(true))
			for range 2 { // and again
				r, err := w.replica(s, &peers{})
				require.NoError(t, err)
				require.Equal(t, bft.Height(3), r.ledger.latest.Load().height)
				require.ErrorIs(t, r.checkReplayed(), store.ErrCorrupt)
				require.ErrorContains(t, r.checkReplayed(), "move the store directory away")
			}
			r, err := w.replica(s, &peers{serve: map[bft.ReplicaID]func(context.Context, string, []byte) ([]byte, error){2: w.honest(9), 3: w.honest(9)}})
			require.NoError(t, err)
			require.NoError(t, r.followOthers(t.Context()), "others mend it")
			require.Equal(t, bft.Height(4), r.ledger.latest.Load().height)
		})
	}
}

// A block on disk that certifies another state than this replica comes to is not executed at a
// start, however well it follows: one of the two is not the cluster's.
func TestReplayComparesCertifiedStates(t *testing.T) {
	for _, change := range []func(h *bft.Header){
		func(h *bft.Header) { h.StateRoot[0] ^= 1 },
		func(h *bft.Header) { h.EpochEnd, h.Payload = true, bft.PayloadDigest(nil) },
	} {
		w := newWorld(t, bft.Size{F: 1}, 1)
		w.order(10)
		w.order(10)
		h := w.header(nil)
		change(&h)
		require.NoError(t, w.tip.Follows(&h), "it is a valid chain")
		s := w.store()
		batch := s.NewBatch()
		for _, block := range append(w.blocks, w.sign(h, nil)) {
			require.NoError(t, batch.PutBlock(block))
			require.NoError(t, batch.PutFinal(block.Height, block.Digest(), block.View))
		}
		require.NoError(t, batch.Commit(true))
		r, err := w.replica(s, &peers{})
		require.NoError(t, err)
		require.EqualValues(t, 2, r.ledger.latest.Load().height)
		require.ErrorIs(t, r.checkReplayed(), store.ErrCorrupt)
	}
}
