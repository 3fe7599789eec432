package bft

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// forge makes a chain of blocks that a Byzantine leader signed and nobody else has seen, and has it
// serve them. The highest is of the view that it is voted for in; those below are of a view far ahead.
func forge(leader *machine, voted View, top Height, count int) Digest {
	const ahead = maxViews - 4
	parent := Digest{66, byte(voted)}
	for h := top - Height(count) + 1; h <= top; h++ {
		b := &Block{Header: Header{View: ahead, Height: h, Proposer: leader.id, Parent: parent, ParentView: ahead}, Signature: make([]byte, SignatureSize)}
		b.Header.Payload = emptyPayload
		if h == top {
			b.View = voted
		}
		parent = b.Digest()
		leader.byName[parent] = b
	}
	return parent
}

// In its views a Byzantine leader first-votes for a block that nobody else has seen, which at n = 4 is
// enough for it to be asked for, and serves it with ancestors without end. A network that holds back
// what one correct replica says for a while gives it the time. Whoever took them all would have no
// room for a block any more.
func TestAncestorsThatNobodyVotedForAreNotKept(t *testing.T) {
	l := newLab(t, Size{F: 1}, 1)
	liar := l.nodes[4]
	liar.mute = true
	began := make(map[View]int64)
	l.pass = func(from, to ReplicaID, m Message) Message {
		v := l.nodes[to].core.view
		if began[v] == 0 {
			began[v] = l.now
		}
		if from >= 3 && (v == 4 || v == 16) && l.now < began[v]+3000 {
			return nil
		}
		return m
	}
	asked := 0
	l.nodes[1].effects = func(e Effect) {
		if f, ok := e.(Fetch); ok && liar.byName[f.Block] != nil && liar.byName[f.Block].Proposer == 4 {
			asked++
		}
	}
	l.start()
	const chain = maxViews - 512
	for _, v := range []View{4, 16} {
		lie := Vote{Statement: Statement{View: v, Kind: Notarize, Block: forge(liar, v, chain+100, chain)}, First: true, Partial: []byte{4}}
		for _, to := range ids(1, 3) {
			l.nodes[to].step(Receive{4, lie}) // votes ahead are counted
		}
	}
	for range 300 {
		l.run(100*time.Millisecond, never)
		_, blocks := l.nodes[1].core.Held()
		require.LessOrEqual(t, blocks, 64)
	}
	require.Positive(t, asked)
	before := l.final(ids(1, 3)...)
	l.run(time.Minute, never)
	require.Greater(t, l.final(ids(1, 3)...), before+50)
}

// What hangs on a block that never comes is let go of with its view.
func TestOrphansAreLetGoOf(t *testing.T) {
	core, _ := fresh(t)
	for v := View(1); v < 200; v++ {
		b := &Block{Header: Header{Epoch: core.cfg.Epoch, View: v, Height: 9, Proposer: core.cfg.LeaderOf(v), Parent: Digest{byte(v)}, Payload: emptyPayload}, Signature: make([]byte, SignatureSize)}
		core.Step(Now{}, Receive{2, b})
		core.enter(v + 1)
	}
	require.Greater(t, len(core.tree), BlocksAhead)
	require.LessOrEqual(t, len(core.tree), 2*BlocksAhead+2)
	require.LessOrEqual(t, len(core.orphans), 2*BlocksAhead+2)
}

// A block that was asked for because of a vote is taken in its view only; when it turns out to be
// notarized, it is, with its ancestors, whichever view the vote was for.
func TestAVoteDoesNotKeepABlockFromBeingFetched(t *testing.T) {
	core, _ := fresh(t)
	blocks := emptyBlocks(core.cfg, 3)
	top := blocks[2]
	core.enter(7)
	core.request(top.Digest(), 7, false)
	core.fetched(slices.Clone(blocks))
	require.Len(t, core.tree, 1)
	core.request(top.Digest(), top.View, true)
	core.enter(8)
	require.NotNil(t, core.sought(top.Digest()))
	core.fetched(slices.Clone(blocks))
	require.Len(t, core.tree, 4)
}
