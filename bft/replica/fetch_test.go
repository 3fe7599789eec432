package replica

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
)

// someTimeouts are what a core asks for that never runs.
var someTimeouts = bft.Timeouts{
	View: time.Second, ViewMax: time.Minute, Finalize: 100 * time.Millisecond, Idle: 10 * time.Millisecond, Resend: time.Second, Ahead: time.Second,
}

// A peer that is asked for a block and its ancestors serves blocks that are all real, signed by
// their leaders: the answer is taken only if they are the ones that were asked for, in order, and
// of this epoch.
func TestLiesAboutAncestors(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	for range 5 {
		w.order(10)
	}
	forged := func(change func(b *bft.Block)) *bft.Block {
		b := *w.blocks[4]
		b.Signature = bytes.Clone(b.Signature)
		change(&b)
		return &b
	}
	for _, lie := range []struct {
		name   string
		blocks []*bft.Block
		good   bool
	}{
		{"none", w.blocks[2:5], true},
		{"the block alone", w.blocks[4:5], true},
		{"nothing", nil, true}, // taken as not having it
		{"another block", w.blocks[1:4], false},
		{"a block above the one asked for", w.blocks, false},
		{"one left out", []*bft.Block{w.blocks[2], w.blocks[4]}, false},
		{"one twice", []*bft.Block{w.blocks[3], w.blocks[3], w.blocks[4]}, false},
		{"in the wrong order", []*bft.Block{w.blocks[3], w.blocks[2], w.blocks[4]}, false},
		{"a bad signature", []*bft.Block{forged(func(b *bft.Block) { b.Signature[3] ^= 1 })}, false},
		{"another payload", []*bft.Block{forged(func(b *bft.Block) { b.Payload = w.payload(9) })}, false},
	} {
		t.Run(lie.name, func(t *testing.T) {
			wanted := w.blocks[4]
			if lie.name == "a block above the one asked for" {
				wanted = w.blocks[3]
			}
			network := &peers{serve: map[bft.ReplicaID]serve{2: func(context.Context, string, []byte) ([]byte, error) {
				var b cryptobyte.Builder
				err := appendBlocks(&b, lie.blocks)
				return b.BytesOrPanic(), err
			}}}
			r, err := w.replica(w.store(), network)
			require.NoError(t, err)
			r.cfg.Timeouts = someTimeouts
			e, err := r.newRun(t.Context(), r.Membership(), EpochKeys{})
			require.NoError(t, err)
			e.ctx = t.Context()
			blocks, err := e.fetchFrom(2, bft.Fetch{Block: wanted.Digest()})
			if lie.good {
				require.NoError(t, err)
				require.True(t, slices.EqualFunc(lie.blocks, blocks, func(a, b *bft.Block) bool { return a.Digest() == b.Digest() }))
				return
			}
			require.Error(t, err)
			require.Empty(t, blocks)
		})
	}
}
