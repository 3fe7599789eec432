package bft

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Tests of what becomes final, in what order that is done, and what is kept of it. Certificates
// come from peers and are good.

// proves hands a core a good certificate and returns all that it does.
func proves(core *Core, cert Certificate) []Effect {
	effects := append([]Effect(nil), core.Step(Now{1, 1}, Receive{3, cert})...)
	return append(effects, core.Step(Now{1, 1}, Verified{cert, 3, true})...)
}

// ending is a core whose epoch's blocks are those of chainOf(4, 2): five, of which the last is the
// epoch's last, and two fillers.
func ending(t *testing.T) (*Core, []*Block) {
	tip, headers := chainOf(4, 2)
	cfg := keptConfig()
	cfg.Epoch = tip.Epoch
	cfg.Base = Base{Height: tip.Header.Height, Digest: tip.Digest, Time: tip.Header.Time, Root: tip.Header.StateRoot}
	var blocks []*Block
	for _, h := range headers {
		blocks = append(blocks, &Block{Header: *h, Signature: make([]byte, SignatureSize)})
	}
	core, _ := restarted(t, cfg, Restored{})
	return core, blocks
}

// What a replica announces as final it has stored before, and the epoch's last block only once it
// has told the others how to follow.
func TestTheOrderOfAnEpochsEnd(t *testing.T) {
	core, blocks := ending(t)
	top := blocks[6]
	require.NotEmpty(t, those[Fetch](proves(core, about(Finalize, top))))
	effects := append([]Effect(nil), core.Step(Now{1, 1}, Fetched{blocks})...)

	stored, sent, heights := make(map[Digest]bool), false, []Height(nil)
	for _, e := range effects {
		switch e := e.(type) {
		case StoreBlock:
			stored[e.Block.Digest()] = true
		case Broadcast:
			sent = sent || certificateOf(e.Message) == about(Finalize, top).Statement
		case Finalized:
			require.True(t, stored[e.Block.Digest()], "height %d is announced before it is stored", e.Block.Height)
			heights = append(heights, e.Block.Height)
			require.Equal(t, e.Block.Height == 15, e.Last)
			if e.Last {
				require.True(t, sent, "the proof of the end goes to the others first")
				require.True(t, stored[blocks[5].Digest()] && stored[top.Digest()], "the fillers are a part of the proof")
			}
		}
	}
	require.Equal(t, []Height{11, 12, 13, 14, 15}, heights, "fillers are no blocks of the log")
	require.Empty(t, core.Step(Now{1, 1}, Expired{Timer{core.View(), TimerResend}}), "the epoch is over")
}

func certificateOf(m Message) Statement {
	if c, ok := m.(Certificate); ok {
		return c.Statement
	}
	return Statement{}
}

// The epoch's last block waits for a finalization; the blocks below it do not.
func TestCountedBlocksEndNoEpoch(t *testing.T) {
	core, blocks := ending(t)
	for _, b := range blocks[:5] {
		proves(core, about(Notarize, b))
	}
	final := those[Finalized](core.Step(Now{1, 1}, Fetched{blocks[:5]}))
	last := blocks[4]
	for from := ReplicaID(1); from <= 3; from++ {
		final = append(final, those[Finalized](core.Step(Now{1, 1}, Receive{from, Vote{Statement{last.Epoch, last.View, Notarize, last.Digest()}, true, []byte{1}}}))...)
	}
	height, _ := core.Final()
	require.Equal(t, Height(14), height)
	for _, f := range final {
		require.False(t, f.Last)
	}
}

// A notarized block proves the state that it certifies: the block of that height is final, and no
// block above it.
func TestANotarizedBlockMakesFinalWhatItCertifies(t *testing.T) {
	core, blocks := ending(t)
	proves(core, about(Notarize, blocks[3])) // of height 14, it certifies the state after 12
	require.Equal(t, Height(12), blocks[3].StateHeight)
	final := those[Finalized](core.Step(Now{1, 1}, Fetched{blocks[:4]}))
	require.Len(t, final, 2)
	require.Equal(t, Height(12), final[1].Block.Height)
}

// More than f replicas are Byzantine, and a fork has its finalization. What was announced stays;
// nothing of the fork is announced.
func TestAForkIsNotAnnounced(t *testing.T) {
	core, say := fresh(t)
	blocks := emptyBlocks(core.cfg, 3)
	fork := another(blocks[2], 1) // held, and linked, when the block that it leaves out becomes final
	fork.Parent, fork.ParentView, fork.Height = blocks[0].Digest(), 1, 2
	for _, b := range []*Block{blocks[0], blocks[1], fork} {
		say(b.Proposer, b)
	}
	require.Len(t, those[Finalized](proves(core, about(Finalize, blocks[1]))), 2)
	require.Empty(t, those[Finalized](proves(core, about(Finalize, fork))))
	fork = another(blocks[2], 2)
	fork.Parent, fork.ParentView, fork.Height = blocks[0].Digest(), 1, 3
	say(fork.Proposer, fork)
	require.Empty(t, those[Finalized](proves(core, about(Finalize, fork))))
	height, _ := core.Final()
	require.Equal(t, Height(2), height)
}

// What a final block has decided is forgotten: blocks beside and below it, blocks that waited for
// others, what was asked for.
func TestWhatIsForgottenBelowAFinalBlock(t *testing.T) {
	core, say := fresh(t)
	blocks := emptyBlocks(core.cfg, 4)
	beside := another(blocks[1], 1)
	for _, b := range blocks {
		say(b.Proposer, b)
	}
	say(beside.Proposer, beside)
	lost := another(blocks[2], 1)
	lost.Parent = Digest{9}
	say(lost.Proposer, lost)
	proves(core, Certificate{Statement{3, 2, Notarize, Digest{8}}, []byte("certificate")})
	require.NotEmpty(t, core.orphans)
	require.NotEmpty(t, core.missing)
	require.Len(t, those[Finalized](proves(core, about(Finalize, blocks[3]))), 4)
	_, held := core.Held()
	require.Equal(t, 1, held)
	require.Empty(t, core.orphans)
	require.Empty(t, core.missing)
}

// Executed states are taken in one by one, up to the final block.
func TestStatesAreTakenInInOrder(t *testing.T) {
	core, say := fresh(t)
	blocks := emptyBlocks(core.cfg, 2)
	for _, b := range blocks {
		say(b.Proposer, b)
	}
	core.Step(Now{1, 1}, Executed{Height: 1, Root: labRoot(1)})
	require.Zero(t, core.executedHeight(), "of a block that is not final")
	proves(core, about(Finalize, blocks[1]))
	core.Step(Now{1, 1}, Executed{Height: 2, Root: labRoot(2)})
	require.Zero(t, core.executedHeight(), "one is left out")
	for h := Height(1); h <= 3; h++ {
		core.Step(Now{1, 1}, Executed{Height: h, Root: labRoot(h)})
	}
	require.Equal(t, Height(2), core.executedHeight())
}

// A quorum certified another state than this replica comes to later: it says so, and votes no more.
func TestAStateThatDiffersFromACertifiedOneIsNoticedLater(t *testing.T) {
	core, blocks := ending(t)
	proves(core, about(Notarize, blocks[3]))
	core.Step(Now{1, 1}, Fetched{blocks[:4]})
	require.Empty(t, those[Diverged](core.Step(Now{1, 1}, Executed{Height: 11, Root: stateRoot(11)})))
	require.True(t, core.mayVote())
	require.Equal(t, []Diverged{{12, stateRoot(12), Digest{1}}}, those[Diverged](core.Step(Now{1, 1}, Executed{Height: 12, Root: Digest{1}})))
	require.False(t, core.mayVote())
	require.Empty(t, those[Sign](core.Step(Now{1 << 40, 1}, Expired{Timer{core.View(), TimerView}})))
}

// What is certified ahead of the own state is remembered, within a bound.
func TestClaimsHaveABound(t *testing.T) {
	core, _ := fresh(t)
	for i := range 2 * MaxFetch {
		core.checkClaim(&Header{StateHeight: Height(i + 1)})
	}
	require.Len(t, core.claims, MaxFetch)
}

// A block that is known to be final by its votes, and is missing, is asked for however far the
// views have gone on.
func TestAFinalBlockStaysAskedFor(t *testing.T) {
	cfg := keptConfig()
	cfg.Size, cfg.Self, cfg.Leaders = Size{1, 1}, 6, ids(1, 6)
	core, _ := restarted(t, cfg, Restored{})
	blocks := emptyBlocks(cfg, 3)
	for from := ReplicaID(1); from <= 5; from++ {
		core.Step(Now{1, 1}, Receive{from, Vote{Statement{3, 1, Notarize, blocks[0].Digest()}, true, []byte{byte(from)}}})
	}
	require.NotNil(t, core.sought(blocks[0].Digest()))
	core.Step(Now{1, 1}, Receive{1, Vote{Statement{3, 2, Notarize, Digest{7}}, true, []byte{1}}})
	core.request(Digest{7}, 2, false)
	for _, f := range those[Fetch](proves(core, about(Notarize, blocks[2]))) {
		require.Equal(t, blocks[2].Digest(), f.Block, "it was asked for already")
	}
	require.Equal(t, View(4), core.View())
	require.NotNil(t, core.sought(blocks[0].Digest()))
	require.Nil(t, core.sought(Digest{7}), "nobody needs it any more")

	core.Step(Now{1, 1}, Receive{1, blocks[2]})
	require.Nil(t, core.sought(blocks[2].Digest()), "it has come by itself")
	core.Step(Now{1, 1}, Receive{1, blocks[0]})
	height, _ := core.Final()
	require.Equal(t, Height(1), height)
}
