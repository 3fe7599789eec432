package bft

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// leading is replica 1 of four, which leads the views 1 to 4, and what it is asked to propose at first.
func leading(t *testing.T) (*Core, Propose) {
	cfg := keptConfig()
	cfg.Self = 1
	core, effects := restarted(t, cfg, Restored{})
	asked := those[Propose](effects)
	require.Len(t, asked, 1)
	return core, asked[0]
}

// made is the block that answers a proposal.
func made(p Propose) *Block {
	b := &Block{Header: p.Header, Signature: make([]byte, SignatureSize)}
	b.Payload, b.Header.Payload, b.Time = nil, emptyPayload, max(p.MinTime, 1)
	return b
}

// Others see a leader's block only once a restart would find it again: otherwise it would make
// another one.
func TestALeadersBlockIsStoredBeforeItIsSent(t *testing.T) {
	core, p := leading(t)
	b := made(p)
	for _, e := range core.Step(Now{1, 1}, Proposed{b}) {
		switch e := e.(type) {
		case StoreBlock:
			require.Equal(t, b, e.Block)
			return
		case Broadcast, Send, Sign:
			require.Fail(t, "it is sent, or voted for, before it is stored")
		}
	}
	require.Fail(t, "it is not stored")
}

// A block that is not what was asked for, or comes when its view is over, is not sent.
func TestAProposalIsWhatWasAskedFor(t *testing.T) {
	for name, alter := range map[string]func(b *Block){
		"before its parent's time":   func(b *Block) { b.Time = -1 },
		"another view":               func(b *Block) { b.View++ },
		"another parent":             func(b *Block) { b.Parent[0]++ },
		"another state":              func(b *Block) { b.StateRoot[0]++ },
		"another leader's":           func(b *Block) { b.Proposer++ },
		"the epoch's end":            func(b *Block) { b.EpochEnd = true },
		"operations in a last block": func(b *Block) { b.Header.Payload[0]++ },
	} {
		core, p := leading(t)
		if name == "operations in a last block" {
			core.asked.Empty = true
		}
		b := made(p)
		alter(b)
		require.Empty(t, core.Step(Now{1, 1}, Proposed{b}), name)
	}
	core, p := leading(t)
	require.Empty(t, core.Step(Now{1, 1}, Proposed{nil}))
	for v := View(1); v <= 4; v++ {
		proves(core, nullification(3, v))
	}
	core.asked = &p // the last that it was asked for
	require.Empty(t, core.Step(Now{1, 1}, Proposed{made(p)}), "its view is over")
	require.False(t, core.at(1).proposed)
}

// A leader makes one block of a view, and builds on it at once: it need not wait for the notarization.
func TestALeaderBuildsOnItsOwnBlock(t *testing.T) {
	core, p := leading(t)
	b := made(p)
	effects := append([]Effect(nil), core.Step(Now{1, 1}, Proposed{b})...)
	next := those[Propose](effects)
	require.Len(t, next, 1)
	require.Equal(t, View(2), next[0].Header.View)
	require.Equal(t, b.Digest(), next[0].Header.Parent)
	require.Empty(t, core.Step(Now{1, 1}, Proposed{another(b, 1)}), "a second block of the view")
	require.Len(t, core.at(1).nodes, 1)
}

// A leader that has given its view up makes no block on one that it helped to nullify.
func TestALeaderThatGaveUpProposesNothing(t *testing.T) {
	core, p := leading(t)
	core.clock.deadline[TimerView] = 1
	signed := those[Sign](core.Step(Now{1, 1}, Expired{Timer{1, TimerView}}))
	require.Equal(t, Nullify, signed[0].Vote.Kind)
	require.Empty(t, those[Propose](core.Step(Now{1, 1}, Proposed{made(p)})), "a block on the one whose view it gave up")

	cfg := keptConfig()
	cfg.Self = 2 // it leads the views from 5 on
	core, _ = restarted(t, cfg, Restored{})
	blocks := emptyBlocks(cfg, 4)
	proves(core, about(Notarize, blocks[3]))
	require.Equal(t, View(5), core.View())
	core.clock.deadline[TimerView] = 1
	require.Len(t, those[Sign](core.Step(Now{1, 1}, Expired{Timer{5, TimerView}})), 1)
	require.Empty(t, those[Propose](core.Step(Now{1, 1}, Fetched{blocks})), "it gave up while the parent was missing")

	core, _ = restarted(t, cfg, Restored{})
	proves(core, about(Notarize, blocks[3]))
	require.Len(t, those[Propose](core.Step(Now{1, 1}, Fetched{blocks})), 1)
}

// A leader asks for an empty block exactly where one with operations would be refused.
func TestALeaderAsksForEmptyBlocksWhereOthersAreRefused(t *testing.T) {
	core, _ := leading(t)
	for _, height := range []Height{1, MaxStateLag - 1, MaxStateLag, MaxStateLag + 1} { // of the parent; the state is that of height 0
		parent := &node{Block: &Block{Header: Header{Epoch: 3, View: View(height), Height: height, Proposer: 1, Time: 1}}, linked: true}
		core.ask(View(height)+1, parent)
		h := core.asked.Header
		h.Time, h.Payload = 1, Digest{1}
		tip := core.tip(parent)
		require.Equal(t, tip.Follows(&h) != nil, core.asked.Empty, "height %d", height)
	}
}

// What a leader certifies is the newest state, but where voters may lack what proves it: then one
// that a finalization covers, or the parent's.
func TestWhatALeaderCertifies(t *testing.T) {
	core, _ := leading(t)
	core.executed = []Executed{{Height: 0}, {Height: 1, Root: labRoot(1)}, {Height: 2, Root: labRoot(2)}, {Height: 3, Root: labRoot(3)}}
	core.firm, core.provenHeight, core.view = 3, 1, 9
	parent := &node{Block: &Block{Header: Header{Height: 3}}}
	require.Equal(t, Height(3), core.claim(parent).Height)
	for name, at := range map[string]*View{"trouble": &core.trouble, "peers that know less": &core.careful} {
		*at = 9
		require.Equal(t, Executed{Height: 1, Root: labRoot(1)}, core.claim(parent), name)
		*at = 8
		require.Equal(t, Height(3), core.claim(parent).Height, "after %s", name)
	}
	core.firm = 2
	require.Equal(t, Height(2), core.claim(parent).Height, "with c = 0, what anybody can be shown to be final")
	core.firm = 3
	parent.Height = 2
	require.Equal(t, Height(2), core.claim(parent).Height, "no state above the parent")
	parent.StateHeight, parent.StateRoot = 2, Digest{7}
	require.Equal(t, inherited(parent), core.claim(parent), "the parent's, as it certified it")

	// A filler ends the epoch as its parent does, or every voter refuses it.
	filler := &node{Block: &Block{Header: Header{Height: 4, StateHeight: 1, StateRoot: labRoot(1)}}, last: parent}
	require.Equal(t, inherited(filler), core.claim(filler), "no state that ends nothing")
	core.executed[3].HandoffReady = true
	require.Equal(t, core.executed[3], core.claim(filler))
}

// A leader does not wait for operations when its block is what a client's proof waits for.
func TestABlockThatProvesAResultIsMadeAtOnce(t *testing.T) {
	core, _ := leading(t)
	parent := &node{Block: &Block{Header: Header{Height: 5, StateHeight: 3}}, full: 4} // the last operations are at height 4, no block certifies them yet
	require.Zero(t, core.mayIdle(parent, Executed{Height: 4}))
	require.Equal(t, labTimeouts.Idle, core.mayIdle(parent, Executed{Height: 3}), "they are not executed")
	parent.full = 3
	require.Equal(t, labTimeouts.Idle, core.mayIdle(parent, Executed{Height: 5}), "they are certified")
	require.Zero(t, core.mayIdle(parent, Executed{Height: 5, HandoffReady: true}), "the epoch ends")
	core.view = core.finalView + strainViews
	require.Equal(t, 2*labTimeouts.Idle, core.mayIdle(parent, Executed{Height: 5}), "nothing becomes final")
}
