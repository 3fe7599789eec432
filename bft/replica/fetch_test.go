package replica

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"testing/synctest"
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
			blocks, err := e.fetchFrom(t.Context(), 2, bft.Fetch{Block: wanted.Digest()})
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

// A peer that has voted for a block, and is silent when it is asked for it, costs a moment once: the
// next one is asked beside it, and it comes last from then on. One that serves something wrong costs
// nothing, and comes last too.
func TestWhoKeepsABlockBackDelaysItOnce(t *testing.T) {
	for name, bad := range map[string]serve{
		"silent": silent,
		"wrong":  func(context.Context, string, []byte) ([]byte, error) { return []byte("no list of blocks"), nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, bft.Size{F: 2}, 1)
				block := w.order(10)
				good := func(context.Context, string, []byte) ([]byte, error) {
					var b cryptobyte.Builder
					err := appendBlocks(&b, []*bft.Block{block})
					return b.BytesOrPanic(), err
				}
				network := &peers{serve: map[bft.ReplicaID]serve{2: bad, 3: bad, 4: good, 5: good}}
				r, err := w.replica(w.store(), network)
				require.NoError(t, err)
				r.cfg.Timeouts = someTimeouts
				e, err := r.newRun(t.Context(), r.Membership(), EpochKeys{})
				require.NoError(t, err)
				e.ctx = t.Context()
				for _, bound := range []time.Duration{2*fetchPatience + time.Millisecond, time.Millisecond, time.Millisecond} {
					began := time.Now()
					require.True(t, e.fetch(bft.Fetch{Block: block.Digest(), Hint: []bft.ReplicaID{2, 3, 4}}))
					require.Less(t, time.Since(began), bound)
				}
				require.Len(t, e.events.items, 3)
			})
		})
	}
}

// Where all are slow, all are waited for.
func TestASlowNetworkBringsABlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, bft.Size{F: 1}, 1)
		block := w.order(10)
		slow := func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			if wait(ctx, callTimeout-10*time.Millisecond); ctx.Err() != nil {
				return nil, ctx.Err()
			}
			var b cryptobyte.Builder
			err := appendBlocks(&b, []*bft.Block{block})
			return b.BytesOrPanic(), err
		}
		r, err := w.replica(w.store(), &peers{serve: map[bft.ReplicaID]serve{2: slow, 3: slow, 4: slow}})
		require.NoError(t, err)
		r.cfg.Timeouts = someTimeouts
		e, err := r.newRun(t.Context(), r.Membership(), EpochKeys{})
		require.NoError(t, err)
		e.ctx = t.Context()
		require.True(t, e.fetch(bft.Fetch{Block: block.Digest()}))
	})
}

// A leader that signs many blocks, of views and heights far above, or of one view, takes neither the
// memory nor the place that the blocks of others have between the gateway and their execution.
func TestParsedBlocksAreNotCrowdedOut(t *testing.T) {
	w, e := examined(t)
	r := e.r
	for i := range 128 {
		for _, view := range []bft.View{1 << 40, 1 + parsedAhead, bft.View(i) + 1 + parsedAhead} {
			payload := w.payload(10)
			h := bft.Header{
				Epoch: 1, View: view, Height: 1 << 50, Proposer: bft.LeaderOf(r.Membership().Leaders, worldWindow, view),
				Time: int64(i), Payload: bft.PayloadDigest(payload),
			}
			require.NoError(t, e.validate(w.sign(h, payload)))
		}
	}
	require.LessOrEqual(t, len(r.parsed.blocks), parsedOfView*parsedAhead)
	for range 5 {
		b := w.order(10)
		require.NoError(t, e.validate(b))
		_, kept := r.parsed.take(position{b.Epoch, b.View}, b.Digest())
		require.True(t, kept)
	}
	r.parsed.take(position{2, 1}, bft.Digest{})
	require.Empty(t, r.parsed.blocks, "what was kept of an epoch ends with it")
}
