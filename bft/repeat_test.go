package bft

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// Tests of what a replica says again when nothing moves, and to a peer that says where it stands.
// The core is replica 4 of four in view 1, which replica 1 leads.

// stands lets the resend timer expire, twice if the first must see that nothing moved, and returns
// what the core does then.
func stands(core *Core, times int) (effects []Effect) {
	for range times {
		core.clock.deadline[TimerResend] = core.now
		effects = append([]Effect(nil), core.Step(Now{core.now, 1}, Expired{Timer{core.View(), TimerResend}})...)
	}
	return effects
}

// broadcasts are the messages to all.
func broadcasts(effects []Effect) (messages []Message) {
	for _, b := range those[Broadcast](effects) {
		messages = append(messages, b.Message)
	}
	return messages
}

func TestWhatIsSaidAgainWhenNothingMoves(t *testing.T) {
	core, p := leading(t)
	b := made(p)
	feed(core, core.Step(Now{1, 1}, Proposed{b}))
	require.Empty(t, broadcasts(stands(core, 1)), "it has moved since the start")
	again := broadcasts(stands(core, 1))
	require.Contains(t, again, Message(Status{Epoch: 3, View: 1}), "where it stands")
	require.Contains(t, again, Message(b), "the leader's block")
	require.Contains(t, again, Message(Vote{notarize(b), true, []byte{1}}), "its vote")

	core, say := fresh(t)
	first, second := emptyBlocks(core.cfg, 1)[0], another(emptyBlocks(core.cfg, 1)[0], 1)
	header := SignedHeader{first.Header, first.Signature}
	feed(core, say(1, first))
	require.NotContains(t, broadcasts(stands(core, 2)), Message(header), "nobody has another")
	hand(core, notarize(second), true, 2)
	require.Contains(t, broadcasts(stands(core, 1)), Message(header), "who has the other one can prove the leader Byzantine")
	evidence := newEvidence(header, SignedHeader{second.Header, second.Signature})
	say(2, evidence)
	require.Contains(t, broadcasts(stands(core, 1)), Message(evidence))
}

// What others need to vote as this replica did are the certificates from its block's parent on.
func TestWhatAVoteStandsOnIsSaidAgain(t *testing.T) {
	core, say := fresh(t)
	blocks := emptyBlocks(core.cfg, 2)
	say(1, blocks[0])
	feed(core, proves(core, about(Notarize, blocks[0])))
	for v := View(2); v <= 4; v++ {
		feed(core, proves(core, nullification(3, v)))
	}
	b := blocks[1]
	b.View, b.Proposer = 5, core.cfg.LeaderOf(5)
	feed(core, say(b.Proposer, b))
	require.Len(t, core.at(5).own, 1)
	again := broadcasts(stands(core, 2))
	require.Contains(t, again, Message(about(Notarize, blocks[0])))
	for v := View(2); v <= 4; v++ {
		require.Contains(t, again, Message(nullification(3, v)))
	}
}

// A replica that goes on, and lacks finality or a certificate, says so.
func TestAReplicaThatGoesOnSaysWhatItLacks(t *testing.T) {
	status := func(core *Core) (found []Status) {
		for _, m := range broadcasts(stands(core, 1)) {
			if s, ok := m.(Status); ok {
				found = append(found, s)
			}
		}
		return found
	}
	core, say := fresh(t)
	b := emptyBlocks(core.cfg, 1)[0]
	say(1, b)
	proves(core, nullification(3, 3))
	require.Equal(t, []Status{{Epoch: 3, View: 1}}, status(core), "a gap")
	proves(core, about(Notarize, b))
	proves(core, nullification(3, 2))
	proves(core, nullification(3, 4))
	require.Equal(t, View(5), core.unresolved())
	require.Equal(t, []Status{{Epoch: 3, View: 5, WantFinality: true}}, status(core), "a block that is open")
	proves(core, about(Finalize, b))
	proves(core, nullification(3, 5))
	require.Empty(t, status(core), "nothing")
}

// The blocks that are asked for again include those that lie between a notarized block and the
// final one.
func TestWhatIsMissingBelowABlockIsAskedForAgain(t *testing.T) {
	core, _ := fresh(t)
	blocks := emptyBlocks(core.cfg, 3)
	proves(core, about(Notarize, blocks[2]))
	core.Step(Now{1, 1}, Receive{1, blocks[2]})
	core.missing = nil // as if there had been no room
	fetch := those[Fetch](stands(core, 1))
	require.Len(t, fetch, 1)
	require.Equal(t, blocks[1].Digest(), fetch[0].Block)
}

// A vote that the key refused is signed later, but not by a replica that has lost its say.
func TestARefusedVoteIsSignedLater(t *testing.T) {
	core, say := fresh(t)
	b := emptyBlocks(core.cfg, 1)[0]
	vote := those[Sign](say(1, b))[0].Vote
	require.Empty(t, core.Step(Now{1, 1}, Signed{Vote: vote, Err: errors.New("locked")}))
	require.Equal(t, []Sign{{vote}}, those[Sign](stands(core, 1)))
	core.diverged = true
	require.Empty(t, those[Sign](stands(core, 1)))
}

// A peer that is far behind is shown the highest notarized block and what lies above it: it needs
// nothing below.
func TestAPeerIsShownTheHighestNotarizedBlock(t *testing.T) {
	core, say := fresh(t)
	for v := View(1); v <= 9; v++ {
		proves(core, nullification(3, v))
	}
	b := emptyBlocks(core.cfg, 1)[0]
	b.View, b.Proposer = 10, core.cfg.LeaderOf(10)
	proves(core, about(Notarize, b))
	proves(core, nullification(3, 11))
	var shown []Message
	for _, s := range those[Send](say(2, Status{Epoch: 3, View: 1})) {
		shown = append(shown, s.Message)
	}
	require.Equal(t, []Message{about(Notarize, b), nullification(3, 11), nullification(3, 11)}, shown)
}

// A peer that lacks finality is given finalize votes in the highest views of notarized blocks, in
// so many.
func TestFinalizeVotesAreLentInTheHighestViews(t *testing.T) {
	core, say := fresh(t)
	for v := View(1); v <= 2*lentViews; v++ {
		proves(core, Certificate{Statement{3, v, Notarize, Digest{byte(v)}}, []byte("certificate")})
	}
	var views []View
	for _, s := range those[Sign](say(2, Status{Epoch: 3, View: core.View(), WantFinality: true})) {
		require.Equal(t, Finalize, s.Vote.Kind)
		views = append(views, s.Vote.View)
		core.Step(Now{1, 1}, Receive{1, Vote{Statement{3, s.Vote.View, Finalize, s.Vote.Block}, false, []byte{1}}}) // another asks while the key signs
		vote := s.Vote
		vote.Partial = []byte{4}
		require.Equal(t, []Send{{2, vote}, {1, vote}}, those[Send](core.Step(Now{1, 1}, Signed{Vote: vote})))
	}
	require.Equal(t, []View{8, 7, 6, 5}, views)
}

// Each view whose fast path was lost gets finalize votes when its time has come, one after the other.
func TestEachOpenViewIsFinalizedInItsTime(t *testing.T) {
	core, _ := fresh(t)
	at := func(ms int64, ev Event) []Effect { return append([]Effect(nil), core.Step(Now{ms, 1}, ev)...) }
	for i, v := range []View{1, 2} {
		cert := Certificate{Statement{3, v, Notarize, Digest{byte(v)}}, []byte("certificate")}
		at(1+int64(i)*20, Receive{3, cert})
		at(1+int64(i)*20, Verified{cert, 3, true})
	}
	wait := labTimeouts.Finalize.Milliseconds()
	signed := those[Sign](at(1+wait, Expired{Timer{3, TimerFinalize}}))
	require.Len(t, signed, 1)
	require.Equal(t, View(1), signed[0].Vote.View)
	require.Equal(t, int64(1+20+wait), core.clock.deadline[TimerFinalize], "the next one")
	signed = those[Sign](at(1+20+wait, Expired{Timer{3, TimerFinalize}}))
	require.Len(t, signed, 1)
	require.Equal(t, View(2), signed[0].Vote.View)
}

// A fallback vote goes to a block that is held, extends a notarized parent, is stored before, and
// whose time others may have found right.
func TestWhatAFallbackVoteNeeds(t *testing.T) {
	ahead := labTimeouts.Ahead.Milliseconds()
	for name, c := range map[string]struct {
		alter func(core *Core, b *Block)
		good  bool
	}{
		"a good block":                   {func(*Core, *Block) {}, true},
		"its parent is not notarized":    {func(core *Core, b *Block) { b.ParentView, b.Parent = 0, Digest{3} }, false},
		"time as late as others believe": {func(core *Core, b *Block) { b.Time = 1 + 2*ahead }, true},
		"time that nobody believes":      {func(core *Core, b *Block) { b.Time = 2 + 2*ahead }, false},
		"a state that is not known":      {func(core *Core, b *Block) { b.StateRoot[0] ^= 1 }, false},
	} {
		core, say := fresh(t)
		b := emptyBlocks(core.cfg, 1)[0]
		c.alter(core, b)
		core.clock.deadline[TimerView] = 1
		feed(core, core.Step(Now{1, 1}, Expired{Timer{1, TimerView}})) // it first-votes to nullify
		say(1, b)
		hand(core, notarize(b), true, 1)
		effects := hand(core, Statement{3, 1, Nullify, Digest{}}, true, 2) // q first votes are seen: one for the block, which is not ruled out
		signed := those[Sign](effects)
		require.Equal(t, c.good, len(signed) == 1 && signed[0].Vote.Statement == notarize(b), name)
		stored := false
		for _, e := range effects {
			switch e.(type) {
			case StoreBlock:
				stored = true
			case Sign:
				require.True(t, stored, "the vote comes before the block is stored")
			}
		}
	}
}

// A block on one that is not notarized gets no fallback vote, nor does a view that was left,
// whatever is learnt of it later.
func TestWhereNoFallbackVoteGoes(t *testing.T) {
	core, say := fresh(t)
	blocks := emptyBlocks(core.cfg, 2)
	feed(core, say(1, blocks[0]))
	hand(core, Statement{3, 1, Nullify, Digest{}}, true, 2)
	feed(core, proves(core, nullification(3, 1)))
	core.clock.deadline[TimerView] = 1
	feed(core, core.Step(Now{1, 1}, Expired{Timer{2, TimerView}}))
	say(1, blocks[1])
	require.True(t, core.tree[blocks[1].Digest()].linked)
	hand(core, notarize(blocks[1]), true, 1)
	require.Empty(t, those[Sign](hand(core, Statement{3, 2, Nullify, Digest{}}, true, 2)), "its parent is not notarized")

	hand(core, Statement{3, 1, Nullify, Digest{}}, true, 3) // q first votes of view 1 are seen: it was left
	other := another(blocks[0], 1)
	require.Empty(t, those[Sign](say(2, newEvidence(SignedHeader{blocks[0].Header, blocks[0].Signature}, SignedHeader{other.Header, other.Signature}))))
	require.True(t, core.at(1).convicted)
}
