package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/merkle"
)

// follower is a replica that has executed a world's log one block at a time, as one that follows
// does: there is a certificate of each state then.
func follower(t testing.TB, w *world) *Replica {
	r, err := w.replica(w.store(), &peers{})
	require.NoError(t, err)
	follow(t, w, r, len(w.blocks))
	return r
}

func follow(t testing.TB, w *world, r *Replica, blocks int) {
	for range blocks {
		c, err := r.check(w.piece(r.ledger.latest.Load().height+1, 1))
		require.NoError(t, err)
		require.NoError(t, r.executePiece(c))
	}
}

// A state of which the head already tells that it is another one is not shown to the application,
// nor to the system: neither is restored, and nothing of it is stored.
func TestNothingIsRestoredThatTheHeadDoesNotName(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	for range 3 {
		w.order(10)
	}
	honest := follower(t, w)
	c := honest.ledger.certified.Load()
	block, err := honest.cfg.Store.BlockAt(c.height)
	require.NoError(t, err)
	for name, change := range map[string]func(s *state){
		"": func(*state) {},
		"another system state": func(s *state) {
			s.systemSnapshot = bytes.Clone(s.systemSnapshot)
			s.systemSnapshot[len(s.systemSnapshot)-1] ^= 1
		},
		"other sessions": func(s *state) { s.sessions = merkle.Map{} },
	} {
		h, err := honest.headOf(c)
		require.NoError(t, err)
		s := *c.state
		change(&s)
		var content bytes.Buffer
		_, err = snapshotOf{t.Context(), &s, h, block}.WriteTo(&content)
		require.NoError(t, err)
		_, err = readPart(&content, maxHead)
		require.NoError(t, err)

		app := &restorations{Store: kv.New()}
		r, err := w.replicaOf(app, w.store(), &peers{})
		require.NoError(t, err)
		err = r.adopt(h, &content, r.restoreApplication)
		if name == "" {
			require.NoError(t, err)
			require.Equal(t, 1, app.n)
			continue
		}
		require.ErrorContains(t, err, "its root is not the certified one", name)
		require.Zero(t, app.n, name)
		require.Len(t, r.cfg.System.(*epochs).history, 1, name)
		stored, err := r.cfg.Store.BlockAt(c.height)
		require.NoError(t, err)
		require.Nil(t, stored, name)
	}
}

// The system's state has to be the one that the head names, and of the epoch that the certificate is
// of: also if the system cannot tell before it has restored it.
func TestTheSystemsStateIsThatOfTheHead(t *testing.T) {
	w, _ := endOfEpoch(t, 1)
	for want, change := range map[string]func(h *head){
		"":                        func(*head) {},
		"not the certified one":   func(h *head) { h.system[0] ^= 1 },
		"of another epoch":        func(h *head) { h.proof.Certificate.Epoch-- },
		"another epoch than its":  func(h *head) { h.block.Time++ }, // the epoch began above another block
		"names another group key": func(h *head) { h.groupKey = []byte("evil") },
	} {
		h := &head{block: w.blocks[2].Header, system: w.system.Root(), groupKey: w.system.Membership().GroupKey}
		h.proof.Certificate.Epoch = 2
		change(h)
		r, err := w.replica(w.store(), &peers{})
		require.NoError(t, err)
		if err := r.exchange(h, w.system.Snapshot()); want != "" {
			require.ErrorContains(t, err, want)
		} else {
			require.NoError(t, err)
		}
	}
}

// A file under another height's name is no snapshot of that height: others would be offered one
// height and served another.
func TestASnapshotIsOfTheHeightThatItsNameSays(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	for range 3 {
		w.order(10)
	}
	honest := follower(t, w)
	c := honest.ledger.certified.Load()
	require.NoError(t, honest.saveSnapshot(t.Context(), c))
	for _, height := range []bft.Height{c.height + 1, c.height} {
		r, err := w.replica(w.store(), &peers{})
		require.NoError(t, err)
		file, err := honest.cfg.Store.OpenSnapshot(c.height)
		require.NoError(t, err)
		err = r.restore(height, file, r.restoreApplication)
		require.NoError(t, file.Close())
		require.Equal(t, height == c.height, err == nil, err)
	}
}

// A snapshot on the disk is believed no more than one of a peer: its certificate is verified, and its
// block is the one of the head, before anything is restored.
func TestASnapshotOnTheDiskIsProven(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	for range 3 {
		w.order(10)
	}
	honest := follower(t, w)
	c := honest.ledger.certified.Load()
	for name, change := range map[string]func(h *head, block **bft.Block){
		"":                     func(*head, **bft.Block) {},
		"a forged certificate": func(h *head, _ **bft.Block) { h.proof.Certificate.Signature = []byte("forged") },
		"another block":        func(_ *head, block **bft.Block) { *block = w.blocks[c.height-2] },
	} {
		h, err := honest.headOf(c)
		require.NoError(t, err)
		block, err := honest.cfg.Store.BlockAt(c.height)
		require.NoError(t, err)
		change(h, &block)
		var content bytes.Buffer
		_, err = snapshotOf{t.Context(), c.state, h, block}.WriteTo(&content)
		require.NoError(t, err)
		app := &restorations{Store: kv.New()}
		r, err := w.replicaOf(app, w.store(), &peers{})
		require.NoError(t, err)
		err = r.restore(c.height, &content, r.restoreApplication)
		require.Equal(t, name == "", err == nil, "%s: %v", name, err)
		require.Equal(t, name == "", app.n == 1, name)
	}
}

// Epoch 0 has no group key: whoever says that it certifies a state may have made the key himself.
func TestEpoch0CertifiesNoSnapshot(t *testing.T) {
	for _, epoch := range []bft.Epoch{0, 1} {
		w := newWorld(t, bft.Size{F: 1}, epoch)
		for range 3 {
			w.order(10)
		}
		s := w.store()
		keep(t, s, w.blocks)
		r, err := w.replica(s, &peers{})
		require.NoError(t, err)
		last := w.blocks[2].Header
		h, err := r.headOf(&certifiedState{w.ledger.stateAt(2), last, certificate(bft.Finalize, &last)})
		require.NoError(t, err)
		err = h.verify(r, withGroupKey(r.Membership(), []byte("the group key")))
		require.Equal(t, epoch == 1, err == nil, err)
	}
}

// The log is kept from the older of the two snapshots on: the newest may turn out to be damaged.
func TestTheLogIsKeptFromTheOlderSnapshotOn(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	for range 10 {
		w.order(10)
	}
	r, err := w.replica(w.store(), &peers{})
	require.NoError(t, err)
	r.cfg.Retention.Kept = 1
	var heights []bft.Height
	for range 2 {
		follow(t, w, r, 5)
		c := r.ledger.certified.Load()
		heights = append(heights, c.height)
		require.NoError(t, r.saveSnapshot(t.Context(), c))
		r.forget(c)
	}
	require.Equal(t, []bft.Height{4, 9}, heights)
	for height, kept := range map[bft.Height]bool{2: false, 3: true, 4: true, 9: true} {
		block, err := r.cfg.Store.BlockAt(height)
		require.NoError(t, err)
		require.Equal(t, kept, block != nil, "block %d", height)
	}
}

// Only what proves right makes a running replica stop to catch up: neither a piece of the log nor
// the head of a snapshot under a bad certificate does.
func TestOnlyProofStopsTheCore(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	for range farBehind / 2 {
		w.order(0)
	}
	log := func(signature string) serve {
		p := w.piece(1, farBehind/2)
		p.proof = &bft.Proof{Certificate: p.proof.Certificate}
		p.proof.Certificate.Signature = []byte(signature)
		return answers(methodLog, p.marshal)
	}
	snapshot := func(height bft.Height, signature string) serve {
		h := &head{block: bft.Header{Epoch: 1, View: 1, Height: height, StateHeight: height - 1}, groupKey: []byte("the group key")}
		above := bft.Header{
			Epoch: 1, View: 2, Height: height + 1, Parent: h.block.Digest(), ParentView: 1, Payload: bft.PayloadDigest(nil),
			StateHeight: height, StateRoot: h.root(),
		}
		h.proof = bft.Proof{Above: []bft.Header{above}, Certificate: certificate(bft.Finalize, &above)}
		h.proof.Certificate.Signature = []byte(signature)
		return answers(methodHead, func() ([]byte, error) {
			raw, err := h.marshal()
			return append(binary.BigEndian.AppendUint64(nil, 1<<20), raw...), err
		})
	}
	for name, c := range map[string]struct {
		serve serve
		final uint64 // what the core knows to be final, and is not executed
		ahead bool
	}{
		"much of the log":                    {log("good"), 0, true},
		"much of the log, badly proven":      {log("bad"), 0, false},
		"much of the log, and known":         {log("good"), 1, false},
		"a snapshot far ahead":               {snapshot(farBehind+1, "good"), 0, true},
		"a snapshot far ahead, badly proven": {snapshot(farBehind+1, "bad"), 0, false},
		"a snapshot that is near":            {snapshot(farBehind, "good"), 0, false},
		"a snapshot near what is known":      {snapshot(farBehind+1, "good"), 1, false},
	} {
		r, err := w.replica(w.store(), &peers{serve: map[bft.ReplicaID]serve{2: c.serve}})
		require.NoError(t, err)
		run := new(epochRun)
		run.final.Store(c.final)
		r.run.Store(run)
		require.Equal(t, c.ahead, r.isAhead(t.Context(), 2), name)
	}
}

// answers is a peer that answers one method only.
func answers(method string, answer func() ([]byte, error)) serve {
	return func(_ context.Context, called string, _ []byte) ([]byte, error) {
		if called != method {
			return nil, errors.New("no")
		}
		return answer()
	}
}

// Few blocks are much when they are large: the log is followed beyond them.
func TestFewLargeBlocksAreFollowed(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	for range 4 {
		w.order(littleBehindBytes / 2)
	}
	r, err := w.replica(w.store(), &peers{serve: map[bft.ReplicaID]serve{2: w.honest(2)}})
	require.NoError(t, err)
	require.NoError(t, r.followLog(t.Context(), 2, newPatience(firstPatience)))
	require.EqualValues(t, 4, r.ledger.latest.Load().height)
}
