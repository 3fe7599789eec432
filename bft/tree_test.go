package bft

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// Blocks that come before their parents wait for them, and are linked in one go.
func TestBlocksWaitForTheirParents(t *testing.T) {
	core, say := fresh(t)
	blocks := emptyBlocks(core.cfg, 4)
	blocks[1].Header.Payload = Digest{1}
	for i := range blocks[2:] { // the digests have changed
		blocks[i+2].Parent = blocks[i+1].Digest()
	}
	for _, i := range []int{3, 1, 2} {
		say(1, blocks[i])
		require.False(t, core.tree[blocks[i].Digest()].linked)
	}
	say(1, blocks[0])
	for i, b := range blocks {
		n := core.tree[b.Digest()]
		require.True(t, n.linked)
		require.Equal(t, []Height{0, 2, 2, 2}[i], n.full, "the last operations up to here")
	}
	require.Empty(t, core.orphans)
}

// The epoch's last block is the first that ends it, for all fillers above.
func TestFillersKnowTheLastBlock(t *testing.T) {
	core, blocks := ending(t)
	proves(core, about(Notarize, blocks[6]))
	core.Step(Now{1, 1}, Fetched{blocks})
	for i, b := range blocks[4:] {
		n := core.tree[b.Digest()]
		require.NotNil(t, n, i)
		require.Equal(t, Height(15), n.last.Height)
		require.Equal(t, Height(15), core.tip(n).Last)
	}
}

// Blocks are held within bounds, also those that nobody has linked.
func TestHowManyBlocksAreHeld(t *testing.T) {
	core, _ := fresh(t)
	b := emptyBlocks(core.cfg, 1)[0]
	b.Parent = Digest{9}
	for height, good := range map[Height]bool{0: false, 1: true, maxViews: true, maxViews + 1: false} {
		high := another(b, int64(height))
		high.Height = height
		require.Equal(t, good, core.add(high, high.Digest()) != nil, "height %d", height)
	}
	for i := uint32(0); len(core.tree) < maxNodes; i++ {
		var d Digest
		binary.BigEndian.PutUint32(d[:], i)
		core.tree[d] = &node{}
	}
	more := another(b, -7)
	require.Nil(t, core.add(more, more.Digest()))
	require.Len(t, core.tree, maxNodes)
}

// A block that is not known to be notarized is let go of when its view is long over. When it turns
// out to be final, and is fetched again, what was built on it before is final in its turn.
func TestABlockThatIsFetchedAgainKeepsItsChildren(t *testing.T) {
	core, say := fresh(t)
	blocks := emptyBlocks(core.cfg, 2)
	say(1, blocks[0])
	say(1, blocks[1])
	feed(core, proves(core, about(Notarize, blocks[1])))
	for v := View(3); v <= 3+BlocksAhead; v++ {
		feed(core, proves(core, nullification(3, v)))
	}
	require.NotContains(t, core.tree, blocks[0].Digest())
	feed(core, proves(core, about(Finalize, blocks[0])))
	feed(core, core.Step(Now{core.now, 1}, Fetched{blocks[:1]}))
	height, _ := core.Final()
	require.Equal(t, Height(1), height)
	feed(core, proves(core, about(Finalize, blocks[1])))
	height, _ = core.Final()
	require.Equal(t, Height(2), height)
}
