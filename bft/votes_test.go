package bft

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Tests of how votes are counted and answered: a test for each check. The core is replica 4 of four
// in view 1, which replica 1 leads.

// hand gives the core peers' votes for a statement, and returns what it does.
func hand(core *Core, s Statement, first bool, from ...ReplicaID) (all []Effect) {
	for _, id := range from {
		all = append(all, core.Step(Now{1, 1}, Receive{id, Vote{s, first, []byte{byte(id)}}})...)
	}
	return all
}

func notarize(b *Block) Statement { return Statement{b.Epoch, b.View, Notarize, b.Digest()} }

// A view that was left long ago counts finalize votes for its notarized blocks, and nothing else:
// not even what would not fit any more.
func TestVotesInAViewThatIsShut(t *testing.T) {
	core, say := fresh(t)
	blocks := emptyBlocks(core.cfg, 2)
	for _, b := range blocks {
		say(1, b)
		hand(core, notarize(b), true, 1)
	}
	proves(core, about(Notarize, blocks[1]))
	for v := View(3); v <= 3+BlocksAhead; v++ {
		proves(core, nullification(3, v))
	}
	for v, b := range blocks {
		r := core.at(View(v + 1))
		require.True(t, r.shut)
		require.Empty(t, hand(core, notarize(b), true, 2))
		require.Empty(t, hand(core, Statement{3, b.View, Nullify, Digest{}}, true, 2))
		require.Empty(t, hand(core, Statement{3, b.View, Notarize, Digest{5}}, false, 3))
		require.Equal(t, 1, r.seen)
	}
	require.Empty(t, core.at(1).nodes, "a block that is not notarized")
	require.NotContains(t, core.tree, blocks[0].Digest())
	require.Contains(t, core.tree, blocks[1].Digest())
	for v := View(1); v <= 2; v++ {
		for _, tally := range core.at(v).tallies {
			require.Nil(t, tally.partials, "what is not counted is not kept")
			require.Zero(t, tally.votes)
		}
	}
	hand(core, Statement{3, 1, Finalize, blocks[0].Digest()}, false, 1, 2, 3)
	require.Nil(t, core.at(1).find(Finalize, blocks[0].Digest()))
	require.Len(t, those[Combine](hand(core, Statement{3, 2, Finalize, blocks[1].Digest()}, false, 1, 2, 3)), 1, "it can still be finalized")
}

// Whoever forged a partial signature is dropped from the count, and what it sends later is not
// combined; its first votes are words all the same.
func TestAForgersSignaturesAreNotCombined(t *testing.T) {
	core, say := fresh(t)
	b := emptyBlocks(core.cfg, 1)[0]
	say(1, b)
	nullify := Statement{3, 2, Nullify, Digest{}}
	combine := those[Combine](hand(core, nullify, true, 1, 2, 3))
	require.Len(t, combine, 1)
	require.Empty(t, those[Combine](core.Step(Now{1, 1}, Combined{Statement: nullify, Bad: []ReplicaID{2, 0, 99}})), "two are too few")
	require.Equal(t, 2, core.at(2).find(Nullify, Digest{}).votes)

	hand(core, notarize(b), true, 2)
	x := core.at(1).find(Notarize, b.Digest())
	require.Equal(t, 1, x.firsts)
	require.Zero(t, x.votes)
	hand(core, Statement{3, 1, Nullify, Digest{}}, false, 2)
	require.Nil(t, core.at(1).find(Nullify, Digest{}))
	combine = those[Combine](hand(core, notarize(b), true, 1, 3))
	for _, c := range combine {
		require.NotContains(t, c.Partials, ReplicaID(2))
		require.GreaterOrEqual(t, len(c.Partials), core.cfg.Size.Quorum())
	}
}

// When bad ones are dropped, and there are enough without them, the certificate is combined again.
func TestACertificateIsCombinedWithoutTheBadOnes(t *testing.T) {
	core, _ := fresh(t)
	nullify := Statement{3, 1, Nullify, Digest{}}
	require.Len(t, those[Combine](hand(core, nullify, true, 1, 2, 3)), 1)
	core.clock.deadline[TimerView] = 1
	vote := those[Sign](core.Step(Now{1, 1}, Expired{Timer{1, TimerView}}))[0].Vote
	vote.Partial = []byte{4}
	core.Step(Now{1, 1}, Signed{Vote: vote}) // a fourth, while it is under way
	combine := those[Combine](core.Step(Now{1, 1}, Combined{Statement: nullify, Bad: []ReplicaID{2}}))
	require.Len(t, combine, 1)
	require.Equal(t, map[ReplicaID][]byte{1: {1}, 3: {3}, 4: {4}}, combine[0].Partials)
}

// The own vote may be the last of a quorum: what calls for a fallback vote is seen when it is signed.
func TestTheOwnVoteCallsForAFallbackVote(t *testing.T) {
	core, say := fresh(t)
	core.clock.deadline[TimerView] = 1
	vote := those[Sign](core.Step(Now{1, 1}, Expired{Timer{1, TimerView}}))[0].Vote
	b := emptyBlocks(core.cfg, 1)[0]
	say(1, b)
	hand(core, notarize(b), true, 1)
	require.Empty(t, those[Sign](hand(core, Statement{3, 1, Nullify, Digest{}}, true, 2)))
	vote.Partial = []byte{4}
	signed := those[Sign](core.Step(Now{1, 1}, Signed{Vote: vote}))
	require.Len(t, signed, 1)
	require.Equal(t, Vote{Statement: notarize(b)}, signed[0].Vote)
}

// Of a leader that is proven Byzantine the first vote is no reason for a fallback vote: there are q
// without it.
func TestAConvictedLeadersVoteIsLeftOut(t *testing.T) {
	cfg := keptConfig()
	cfg.Size, cfg.Leaders = Size{1, 1}, ids(1, 6)
	b := emptyBlocks(cfg, 1)[0]
	other := another(b, 1)
	nullify := Statement{3, 1, Nullify, Digest{}}
	for _, leaderVotes := range []bool{true, false} {
		core, _ := restarted(t, cfg, Restored{})
		feed(core, core.Step(Now{1, 1}, Receive{1, b}))
		core.Step(Now{1, 1}, Receive{2, newEvidence(SignedHeader{b.Header, b.Signature}, SignedHeader{other.Header, other.Signature})})
		require.True(t, core.at(1).convicted)
		if leaderVotes {
			require.Empty(t, those[Sign](hand(core, nullify, true, 1)))
		}
		require.Empty(t, those[Sign](hand(core, nullify, true, 2, 3)), "three first votes with its own, beside the leader's")
		signed := those[Sign](hand(core, nullify, true, 5))
		require.Len(t, signed, 1)
		require.Equal(t, Vote{Statement: nullify}, signed[0].Vote)
	}
}

// A block may certify again what its notarized parent does: who has not executed that far votes for
// it. It votes for no other state that it has not executed.
func TestAVoterNeedNotHaveExecutedWhatTheParentCertifies(t *testing.T) {
	for name, c := range map[string]struct {
		height Height
		root   Digest
		good   bool
	}{
		"the parent's state":         {1, Digest{7}, true},
		"the parent's, another root": {1, Digest{8}, false},
		"the state after it":         {2, Digest{7}, false},
	} {
		core, say := fresh(t)
		blocks := emptyBlocks(core.cfg, 3)
		blocks[1].StateHeight, blocks[1].StateRoot = 1, Digest{7}
		blocks[2].Parent, blocks[2].StateHeight, blocks[2].StateRoot = blocks[1].Digest(), c.height, c.root
		for _, b := range blocks[:2] {
			say(1, b)
			proves(core, about(Notarize, b))
		}
		require.Equal(t, View(3), core.View())
		require.Equal(t, c.good, len(those[Sign](say(1, blocks[2]))) == 1, name)
	}
}

// A certificate is combined once, and not while a peer's is being checked; nobody needs the
// nullification of a view below a final block.
func TestWhenACertificateIsCombined(t *testing.T) {
	core, say := fresh(t)
	nullify := Statement{3, 1, Nullify, Digest{}}
	hand(core, nullify, true, 1)
	core.Step(Now{1, 1}, Combined{Statement: nullify, Signature: []byte("certificate")})
	require.Equal(t, View(1), core.View(), "an answer to nothing")
	say(3, Certificate{nullify, []byte("forged")})
	require.Empty(t, those[Combine](hand(core, nullify, true, 1, 2, 3)))
	require.Empty(t, those[Combine](hand(core, nullify, true, 1)), "the same vote again")
	require.Len(t, those[Combine](core.Step(Now{1, 1}, Verified{Certificate{nullify, []byte("forged")}, 3, false})), 1)
	require.Empty(t, those[Combine](hand(core, nullify, false, 2)), "it is under way")
	core.Step(Now{1, 1}, Combined{Statement: nullify, Signature: []byte("certificate")})
	require.Equal(t, View(2), core.View())
	core.Step(Now{1, 1}, Combined{Statement: nullify, Signature: []byte("another")})
	require.Equal(t, []byte("certificate"), core.at(1).find(Nullify, Digest{}).certificate)

	core, say = fresh(t)
	blocks := emptyBlocks(core.cfg, 2)
	for _, b := range blocks {
		say(1, b)
	}
	proves(core, about(Finalize, blocks[1]))
	require.Empty(t, those[Combine](hand(core, nullify, false, 1, 2, 3)))
}

// A peer that first-voted for another block of a leader is shown this replica's header, once: its
// first vote is one.
func TestAPeerWithAnotherBlockIsShownTheHeader(t *testing.T) {
	core, say := fresh(t)
	b := emptyBlocks(core.cfg, 1)[0]
	say(1, b)
	shown := those[Send](hand(core, Statement{3, 1, Notarize, Digest{7}}, true, 2))
	require.Equal(t, []Send{{2, SignedHeader{b.Header, b.Signature}}}, shown)
	require.Empty(t, those[Send](hand(core, Statement{3, 1, Notarize, Digest{8}}, true, 2)), "that is none of its first votes")
	require.Empty(t, those[Send](hand(core, Statement{3, 1, Notarize, Digest{9}}, false, 3)), "a fallback vote")
	require.Empty(t, those[Send](hand(core, notarize(b), true, 3)), "the same block")
}

// A block that comes when its view is over gets a first vote if it is notarized, which helps the
// fast path; otherwise nothing is gained by it.
func TestLateFirstVotes(t *testing.T) {
	for _, late := range []bool{true, false} {
		core, say := fresh(t)
		blocks := emptyBlocks(core.cfg, 2)
		var signed []Sign
		if late {
			proves(core, about(Notarize, blocks[0]))
		} else {
			core.cfg.Voter = false // until the view is over
			say(1, blocks[0])
			core.cfg.Voter = true
			signed = those[Sign](proves(core, nullification(3, 1)))
		}
		require.Equal(t, View(2), core.View())
		for _, e := range [][]Effect{say(1, blocks[0]), core.Step(Now{1, 1}, Fetched{blocks[:1]}), say(1, Status{})} {
			signed = append(signed, those[Sign](e)...)
		}
		core.tryFirst(core.at(1))
		signed = append(signed, those[Sign](core.out)...)
		signed = slices.DeleteFunc(signed, func(s Sign) bool { return s.Vote.View > 1 }) // it gives the rest of the leader's views up
		require.Equal(t, late, len(signed) > 0, "late: %v", late)
		if late {
			require.Equal(t, Vote{Statement: notarize(blocks[0]), First: true}, signed[0].Vote)
		}
	}
}

// A finalize vote says that its sender lacks finality: it is answered once, and to the sender
// alone, unless so many lack it that a correct replica is among them.
func TestWhoLacksFinalityIsAnswered(t *testing.T) {
	core, say := fresh(t)
	b := emptyBlocks(core.cfg, 1)[0]
	feed(core, say(1, b))
	feed(core, hand(core, notarize(b), true, 1, 2))
	require.NotNil(t, core.at(1).certified(Notarize))
	finalize := Statement{3, 1, Finalize, b.Digest()}
	effects := hand(core, finalize, false, 1)
	require.Len(t, those[Sign](effects), 1)
	vote := those[Sign](effects)[0].Vote
	vote.Partial = []byte{4}
	effects = append([]Effect(nil), core.Step(Now{1, 1}, Signed{Vote: vote})...)
	require.Equal(t, []Send{{1, vote}}, those[Send](effects))
	require.Empty(t, those[Broadcast](effects))
	require.Empty(t, hand(core, finalize, false, 1), "it was answered")
	require.Empty(t, those[Send](core.Step(Now{1, 1}, Signed{Vote: vote})), "the same signature again")
	require.Zero(t, core.careful)
	effects = hand(core, finalize, false, 2)
	require.Contains(t, effects, Effect(Broadcast{vote}), "two of three others: one of them is correct")
	require.NotZero(t, core.careful)
}

// A view that this replica voted to nullify gets no finalize vote from it, whoever asks.
func TestNoFinalizeVoteIsLentAgainstTheRules(t *testing.T) {
	core, say := fresh(t)
	b := emptyBlocks(core.cfg, 1)[0]
	core.clock.deadline[TimerView] = 1
	feed(core, core.Step(Now{1, 1}, Expired{Timer{1, TimerView}}))
	require.Equal(t, Nullify, core.at(1).own[0].Kind)
	say(1, b)
	proves(core, about(Notarize, b))
	require.Empty(t, those[Sign](hand(core, Statement{3, 1, Finalize, b.Digest()}, false, 1, 2)))
	require.Empty(t, those[Sign](say(2, Status{Epoch: 3, View: 1, WantFinality: true})))

	core, _ = fresh(t)
	require.Empty(t, those[Sign](hand(core, Statement{3, 1, Finalize, b.Digest()}, false, 1, 2)), "of a block that is not notarized")
	require.Len(t, those[Sign](proves(core, about(Notarize, b))), 1, "they are answered once it is")
}

// What the key did not sign is not sent, nor counted.
func TestAVoteWithoutASignatureIsNotSent(t *testing.T) {
	core, say := fresh(t)
	b := emptyBlocks(core.cfg, 1)[0]
	vote := those[Sign](say(1, b))[0].Vote
	require.Empty(t, core.Step(Now{1, 1}, Signed{Vote: vote}))
	require.Nil(t, core.at(1).find(Notarize, b.Digest()))
	signed := vote
	signed.Partial = []byte{4}
	other := signed
	other.Block = Digest{9}
	require.Empty(t, core.Step(Now{1, 1}, Signed{Vote: other}), "it was not asked for")
	require.Equal(t, []Broadcast{{signed}}, those[Broadcast](core.Step(Now{1, 1}, Signed{Vote: signed})))
	require.Empty(t, core.Step(Now{1, 1}, Signed{Vote: signed}), "once")
}
