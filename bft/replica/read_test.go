package replica

import (
	"encoding/binary"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/store"
)

// reader is a replica, number 1 of a world with three blocks, as far as reads are concerned; it votes.
func reader(t *testing.T) (*world, *Replica, *epochRun) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	for range 3 {
		w.order(10)
	}
	r := &Replica{ledger: w.ledger, log: slog.New(slog.DiscardHandler)}
	e := &epochRun{r: r, headers: newHeaderCache(), config: bft.Config{Voter: true}}
	r.run.Store(e)
	return w, r, e
}

// certify proves the state of a height to the replica.
func (w *world) certify(height bft.Height) {
	h := bft.Header{Epoch: 1, View: bft.View(height) + 1, Height: height + 1, StateHeight: height, StateRoot: w.ledger.stateAt(height).root}
	statement := bft.Statement{Epoch: 1, View: h.View, Kind: bft.Notarize, Block: h.Digest()}
	require.NotNil(w.t, w.ledger.certify(h, bft.Certificate{Statement: statement, Signature: []byte("good")}))
}

// vote is a vote for a block that certifies the state of a height; the replica knows the block.
func (e *epochRun) vote(height bft.Height) bft.Vote {
	h := bft.Header{Epoch: 1, View: bft.View(height) + 10, Height: height + 5, StateHeight: height}
	e.headers.add(h.Digest(), &bft.Block{Header: h})
	return bft.Vote{Statement: bft.Statement{Epoch: 1, View: h.View, Kind: bft.Notarize, Block: h.Digest()}}
}

// Whoever was told that a state is proven was told so with the votes of a quorum: each correct
// replica of it answers with that state or a later one, and if it must wait for the certificate.
func TestAReplicaProvesWhatItHasVotedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, e := reader(t)
		w.certify(1)
		require.Equal(t, bft.Height(1), claimed(t, r, nil))

		e.pledge(e.vote(2))
		e.pledge(e.vote(1)) // an older state does not take it back
		finalize := e.vote(3)
		finalize.Kind = bft.Finalize
		e.pledge(finalize) // whoever was shown a finalization was shown what a quorum had voted to notarize
		time.AfterFunc(time.Second, func() { w.certify(2) })
		began := time.Now()
		require.Equal(t, bft.Height(2), claimed(t, r, nil))
		require.Equal(t, time.Second, time.Since(began))
		synctest.Wait()

		e.pledge(e.vote(3))
		claimed(t, r, ErrBehind)
		e.config.Voter = false
		_, err := r.serveHeight(t.Context(), nil, nil)
		require.ErrorContains(t, err, "does not vote now", "it may have forgotten what it has voted for")
	})
}

func claimed(t *testing.T, r *Replica, fails error) bft.Height {
	t.Helper()
	began := time.Now()
	data, err := r.serveHeight(t.Context(), nil, nil)
	if fails != nil {
		require.ErrorIs(t, err, fails)
		require.Equal(t, readPatience, time.Since(began))
		return 0
	}
	require.NoError(t, err)
	anchor, err := request.ParseAnchor(data)
	require.NoError(t, err)
	return anchor.Header.StateHeight
}

func TestAReadWaitsForItsState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r, _ := reader(t)
		read := func(height uint64) (*request.ReadReply, error) {
			data, err := r.serveRead(t.Context(), nil, append(binary.BigEndian.AppendUint64(nil, height), "key"...))
			if err != nil {
				return nil, err
			}
			return request.ParseReadReply(data)
		}
		_, err := read(0)
		require.ErrorIs(t, err, ErrBehind, "nothing is certified yet")
		w.certify(1)
		reply, err := read(0)
		require.NoError(t, err)
		require.Equal(t, bft.Height(1), reply.Header.StateHeight)
		time.AfterFunc(time.Second, func() { w.certify(3) })
		reply, err = read(2)
		require.NoError(t, err)
		require.Equal(t, bft.Height(3), reply.Header.StateHeight)
		_, err = read(math.MaxUint64)
		require.ErrorIs(t, err, ErrBehind)
		_, err = r.serveRead(t.Context(), nil, []byte("short"))
		require.ErrorIs(t, err, errMalformedCall)
	})
}

func TestThePledgeSurvivesARestart(t *testing.T) {
	_, r, e := reader(t)
	s, err := store.Open(t.TempDir(), bft.Digest{7}, store.Options{})
	require.NoError(t, err)
	defer s.Close()
	r.cfg.Store = s
	above, below := e.vote(40), e.vote(90)
	below.View = 20
	restored := bft.Restored{FinalView: 20, Votes: []bft.Vote{below, above}}
	restored.Final.Height = 30
	e.restorePledge(&restored)
	require.EqualValues(t, 40, e.pledged.Load())
	restored.Votes = []bft.Vote{below}
	e.restorePledge(&restored)
	require.EqualValues(t, 30, e.pledged.Load(), "what is above may have been certified of what is final")

	above.Block = bft.Digest{1}
	restored.Votes = []bft.Vote{above, e.vote(50)}
	e.restorePledge(&restored)
	require.EqualValues(t, uint64(math.MaxUint64), e.pledged.Load(), "a vote whose block is not there may have certified anything")
}
