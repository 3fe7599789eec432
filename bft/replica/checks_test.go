package replica

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/store"
)

// What does not follow the state is not executed, whoever calls it final.
func TestTheLedgerExecutesOnlyWhatFollows(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	w.order(10)
	good := w.header(nil)
	for name, change := range map[string]func(h *bft.Header) (last bool){
		"a height left out":                  func(h *bft.Header) bool { h.Height++; return false },
		"the same height again":              func(h *bft.Header) bool { h.Height--; return false },
		"of the next epoch":                  func(h *bft.Header) bool { h.Epoch++; return false },
		"of the epoch before":                func(h *bft.Header) bool { h.Epoch--; return false },
		"an end that the state asks not for": func(*bft.Header) bool { return true },
	} {
		h := good
		last := change(&h)
		require.NotPanics(t, func() {
			_, err := w.ledger.execute(w.sign(h, nil), h.Digest(), nil, last)
			require.Error(t, err, name)
		}, name)
	}
	_, err := w.ledger.execute(w.sign(good, nil), good.Digest(), nil, false)
	require.NoError(t, err)
}

// What epoch 0 certifies proves nothing to clients, and a certified state is never followed by an
// older one.
func TestCertifiedStatesGoForward(t *testing.T) {
	for _, epoch := range []bft.Epoch{0, 1} {
		w := newWorld(t, bft.Size{F: 1}, epoch)
		for range 3 {
			w.order(10)
		}
		older, newer := w.blocks[1].Header, w.blocks[2].Header
		c := w.ledger.certify(newer, certificate(bft.Notarize, &newer))
		if epoch == 0 {
			require.Nil(t, c)
			continue
		}
		require.EqualValues(t, 2, c.height)
		require.Nil(t, w.ledger.certify(newer, certificate(bft.Notarize, &newer)), "no news")
		require.Nil(t, w.ledger.certify(older, certificate(bft.Notarize, &older)))
		require.EqualValues(t, 2, w.ledger.certified.Load().height)
	}
}

// A result is proven as long as its slot has no later record, and held for so many blocks.
func TestHowLongResultsAreHeld(t *testing.T) {
	c := newChain(t, 100, 100)
	first := bound(t, 1, 0, 0, 0)
	c.execute(first)
	second := bound(t, 1, first.Sequence, 0, 1)
	l := c.ledger
	proven := func() *certifiedState { return &certifiedState{state: l.latest.Load()} }
	require.NotNil(t, l.reply(proven(), keyOf(first)))
	c.execute(second)
	require.Nil(t, l.reply(proven(), keyOf(first)), "the slot has moved on")
	require.NotNil(t, l.reply(proven(), keyOf(second)))

	l.remember(keptResults, nil, nil)
	require.Contains(t, l.results, keyOf(first))
	l.remember(keptResults+1, nil, nil)
	require.NotContains(t, l.results, keyOf(first))
}

// A block that executes more than the records that are kept forgets none of its own.
func TestABlockForgetsNothingOfItsOwn(t *testing.T) {
	c := newChain(t, 100, 2)
	var requests []*request.Request
	for client := range uint64(4) {
		requests = append(requests, bound(t, client+1, 0, 0, 0))
	}
	c.execute(requests...)
	for _, r := range requests {
		require.NotZero(t, lastSequence(c.sessions(), r))
	}
	c.execute(bound(t, 9, 0, 0, 1))
	require.Zero(t, lastSequence(c.sessions(), requests[0]))
}

func TestPiecesOfTheLogAreBounded(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	w.order(0)
	p := w.piece(1, 1)
	for len(p.blocks) <= pieceBlocks {
		p.blocks = append(p.blocks, p.blocks[0])
	}
	raw, err := p.marshal()
	require.NoError(t, err)
	_, err = parsePiece(raw)
	require.ErrorContains(t, err, "too many blocks")
	empty, err := (&piece{}).marshal()
	require.NoError(t, err)
	_, err = parsePiece(empty)
	require.NoError(t, err)
	_, err = parsePiece(append(empty, 0))
	require.Error(t, err)
}

// A certificate of a later epoch means nothing before the group key is known.
func TestNoLaterEpochIsVerifiedInTheBeginning(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 0)
	w.order(0)
	r, err := w.replica(w.store(), &peers{})
	require.NoError(t, err)
	c := certificate(bft.Finalize, &w.blocks[0].Header)
	require.NoError(t, r.verifyCertificate(r.Membership(), c))
	c.Epoch = 1
	require.Error(t, r.verifyCertificate(r.Membership(), c))
}

// What a replica serves of its log is what its certificates prove, and no block more: a notarization
// proves the log up to the state that its header certifies.
func TestWhatIsServedIsProven(t *testing.T) {
	for _, kind := range []bft.VoteKind{bft.Notarize, bft.Finalize} {
		w := newWorld(t, bft.Size{F: 1}, 1)
		for range 4 {
			w.order(10)
		}
		s := w.store()
		keep(t, s, w.blocks)
		batch := s.NewBatch()
		for _, b := range w.blocks {
			require.NoError(t, batch.PutCertificate(certificate(kind, &b.Header)))
		}
		require.NoError(t, batch.Commit(true))
		r, err := w.replica(s, &peers{})
		require.NoError(t, err)
		fresh, err := w.replica(w.store(), &peers{})
		require.NoError(t, err)
		p, err := r.provenLog(1)
		require.NoError(t, err)
		_, err = fresh.check(p)
		require.NoError(t, err)
		require.Len(t, p.blocks, map[bft.VoteKind]int{bft.Notarize: 3, bft.Finalize: 4}[kind])
		p, err = r.provenLog(4)
		require.NoError(t, err)
		require.Len(t, p.blocks, map[bft.VoteKind]int{bft.Notarize: 0, bft.Finalize: 1}[kind], "a notarization does not prove its own block final")
	}
}

// Where execution lags behind, the newest notarization may prove nothing of what is asked for.
func TestALaggingStateProvesNothingAboveIt(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	for range 3 {
		w.order(10)
	}
	third := w.blocks[2].Header
	w.view++
	newest := w.sign(w.headerOn(nil, third.StateHeight, third.StateRoot, false), nil)
	require.NoError(t, w.tip.Follows(&newest.Header))
	s := w.store()
	keep(t, s, append(w.blocks, newest))
	batch := s.NewBatch()
	require.NoError(t, batch.PutCertificate(certificate(bft.Notarize, &newest.Header)))
	require.NoError(t, batch.Commit(true))
	r, err := w.replica(s, &peers{})
	require.NoError(t, err)
	for from, blocks := range map[bft.Height]int{1: 2, 2: 1, 3: 0, 4: 0} { // 2 is the state's height
		p, err := r.provenLog(from)
		require.NoError(t, err)
		require.Len(t, p.blocks, blocks, "from block %d", from)
	}
}

// keep puts final blocks on a disk.
func keep(t *testing.T, s *store.Store, blocks []*bft.Block) {
	batch := s.NewBatch()
	for _, block := range blocks {
		require.NoError(t, batch.PutBlock(block))
		require.NoError(t, batch.PutFinal(block.Height, block.Digest(), block.View))
	}
	require.NoError(t, batch.Commit(true))
}

// What the disk calls final and does not follow is not executed at a start.
func TestReplayChecksTheChain(t *testing.T) {
	for name, change := range map[string]func(h *bft.Header){
		"another parent":        func(h *bft.Header) { h.Parent[0] ^= 1 },
		"another parent's view": func(h *bft.Header) { h.ParentView-- },
		"a view that is over":   func(h *bft.Header) { h.View = h.ParentView },
		"time goes backwards":   func(h *bft.Header) { h.Time = 0 },
		"a state of before":     func(h *bft.Header) { h.StateHeight, h.StateRoot = 0, bft.Digest{} },
	} {
		w := newWorld(t, bft.Size{F: 1}, 1)
		w.order(10)
		w.order(10)
		h := w.header(nil)
		change(&h)
		s := w.store()
		keep(t, s, append(w.blocks, w.sign(h, nil)))
		r, err := w.replica(s, &peers{})
		require.NoError(t, err, name)
		require.EqualValues(t, 2, r.ledger.latest.Load().height, name)
		require.ErrorIs(t, r.checkReplayed(), store.ErrCorrupt, name)
	}
}

// A certified state that contradicts this replica's own stops it there, whether a block of a piece
// names it or the header that proves the piece.
func TestNothingIsExecutedBeyondAContradiction(t *testing.T) {
	for _, above := range []bool{false, true} {
		w := newWorld(t, bft.Size{F: 1}, 1)
		w.order(10)
		w.order(10)
		root := w.ledger.latest.Load().root
		root[0] ^= 1
		h := w.headerOn(nil, 2, root, false)
		h.View = w.tip.View() + 1
		h.Proposer = bft.LeaderOf(w.system.Membership().Leaders, worldWindow, h.View)
		p := &piece{blocks: w.blocks[:2:2], proof: &bft.Proof{Certificate: certificate(bft.Finalize, &h)}}
		if above {
			p.proof.Above = []bft.Header{h}
		} else {
			p.blocks = append(p.blocks, w.sign(h, nil))
		}
		r, err := w.replica(w.store(), &peers{})
		require.NoError(t, err)
		c, err := r.check(p)
		require.NoError(t, err)
		require.ErrorIs(t, r.executePiece(c), errFatal)
		require.EqualValues(t, 2, r.ledger.latest.Load().height)
	}
}

// Without its first bytes, or with more, nothing is a call for the log.
func TestCallsForTheLogAreExact(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	r, err := w.replica(w.store(), &peers{})
	require.NoError(t, err)
	call := binary.BigEndian.AppendUint64(nil, 1)
	for _, bad := range [][]byte{nil, call[:7], append(call[:8:8], 0)} {
		_, err := r.serveLog(t.Context(), nil, bad)
		require.ErrorIs(t, err, errMalformedCall)
	}
}
