package replica

import (
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
