package replica

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// What parses as a piece of the log has one encoding, and is safe to check.
func FuzzParsePiece(f *testing.F) {
	w, _ := endOfEpoch(f, 1)
	raw, err := w.piece(1, 9).marshal()
	require.NoError(f, err)
	f.Add(raw)
	f.Add([]byte{0, 0})
	f.Add([]byte{0xff, 0xff, 0, 0, 0})
	r, err := w.replica(w.store(), &peers{})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parsePiece(data)
		if err != nil {
			return
		}
		again, err := p.marshal()
		require.NoError(t, err)
		require.Equal(t, data, again)
		if p.proof != nil {
			_, _ = r.check(p)
		}
	})
}

// What parses as the head of a snapshot has one encoding, and is safe to verify.
func FuzzParseHead(f *testing.F) {
	w, fillers := endOfEpoch(f, 1)
	h := head{block: w.blocks[2].Header, groupKey: []byte("key")}
	h.proof.Above = append(h.proof.Above, fillers[0].Header, w.blocks[3].Header)
	h.proof.Certificate = certificate(bft.Finalize, &w.blocks[3].Header)
	raw, err := h.marshal()
	require.NoError(f, err)
	f.Add(raw)
	f.Add([]byte{})
	r, err := w.replica(w.store(), &peers{})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseHead(data)
		if err != nil {
			return
		}
		again, err := h.marshal()
		require.NoError(t, err)
		require.Equal(t, data, again)
		_ = h.verify(r, r.Membership())
	})
}

func FuzzParseRecalled(f *testing.F) {
	f.Add([]byte{})
	f.Add(bft.MarshalMessage(bft.Vote{Statement: bft.Statement{Epoch: 1, View: 9, Kind: bft.Nullify}, First: true, Partial: []byte("partial")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if v, err := parseRecalled(data); err == nil && len(data) > 0 {
			require.Equal(t, data, bft.MarshalMessage(v), "one encoding")
		}
	})
}

// What parses as a list of blocks that a peer was asked for has one encoding.
func FuzzParseBlocks(f *testing.F) {
	w := newWorld(f, bft.Size{F: 1}, 1)
	list := []byte{0, 2}
	for _, block := range []*bft.Block{w.order(100), w.order(0)} {
		raw, err := block.MarshalBinary()
		require.NoError(f, err)
		list = append(append(list, 0, byte(len(raw)>>8), byte(len(raw))), raw...)
	}
	f.Add(list)
	f.Add([]byte{0, 0})
	f.Add([]byte{0xff, 0xff, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, err := parseBlocks(data)
		if err != nil {
			return
		}
		again := []byte{byte(len(blocks) >> 8), byte(len(blocks))}
		for _, block := range blocks {
			raw, err := block.MarshalBinary()
			require.NoError(t, err)
			again = append(append(again, byte(len(raw)>>16), byte(len(raw)>>8), byte(len(raw))), raw...)
		}
		require.Equal(t, data, again)
	})
}

// Of whatever a peer offers as a snapshot, or the disk holds as one, nothing becomes a replica's
// state but what is certified; and what is refused changes nothing.
func FuzzSnapshotContent(f *testing.F) {
	w := newWorld(f, bft.Size{F: 1}, 1)
	for range 4 {
		w.order(100)
	}
	honest := follower(f, w)
	c := honest.ledger.certified.Load()
	block, err := honest.cfg.Store.BlockAt(c.height)
	require.NoError(f, err)
	h, err := honest.headOf(c)
	require.NoError(f, err)
	var content bytes.Buffer
	_, err = snapshotOf{f.Context(), c.state, h, block}.WriteTo(&content)
	require.NoError(f, err)
	good := content.Bytes()
	f.Add(good)
	f.Add([]byte{})
	f.Add(good[:len(good)-1])
	r, err := w.replica(w.store(), &peers{})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, data []byte) {
		before := r.ledger.latest.Load()
		err := r.restore(c.height, bytes.NewReader(data), r.restoreApplication)
		if err == nil {
			raw, err := readPart(bytes.NewReader(data), maxHead)
			require.NoError(t, err)
			h, err := parseHead(raw)
			require.NoError(t, err)
			require.Equal(t, h.app, r.cfg.Application.State().Root())
			require.Equal(t, h.system, r.cfg.System.Root())
			require.Equal(t, h.sessions, bft.Digest(r.ledger.latest.Load().sessions.Root()))
			return
		}
		require.NotErrorIs(t, err, errFatal)
		require.Same(t, before, r.ledger.latest.Load())
		require.Equal(t, before.appRoot, r.cfg.Application.State().Root())
		require.Equal(t, before.systemRoot, r.cfg.System.Root())
	})
}
