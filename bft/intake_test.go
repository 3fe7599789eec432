package bft

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// What one peer may say, and how much of it: a test for each check on what comes in. The core is
// replica 4 of four in view 1, which replica 1 leads.

// fresh is such a core, and a function that hands it a message and returns what it does.
func fresh(t *testing.T) (*Core, func(from ReplicaID, m Message) []Effect) {
	core, _ := restarted(t, keptConfig(), Restored{})
	return core, func(from ReplicaID, m Message) []Effect {
		return append([]Effect(nil), core.Step(Now{1, 1}, Receive{from, m})...)
	}
}

// another is a block like b, and not the same.
func another(b *Block, more int64) *Block {
	other := *b
	other.Time += more
	return &other
}

func TestNobodySpeaksForThisReplica(t *testing.T) {
	core, say := fresh(t)
	b := emptyBlocks(core.cfg, 1)[0]
	say(1, b)
	before := len(core.at(1).own)
	say(4, Vote{Statement{3, 1, Nullify, Digest{}}, true, []byte{4}})
	say(4, about(Notarize, b))
	require.Equal(t, View(1), core.View())
	require.Len(t, core.at(1).own, before)
	require.Nil(t, core.at(1).find(Nullify, Digest{}), "a vote that it has not cast is counted as its own")
}

func TestOnlyTheLeaderOfAViewMakesItsBlock(t *testing.T) {
	core, say := fresh(t)
	b := emptyBlocks(core.cfg, 1)[0]
	b.Proposer = 2
	say(2, b)
	say(2, SignedHeader{another(b, 1).Header, b.Signature})
	require.False(t, core.at(1).heard)
	require.Empty(t, core.at(1).nodes)

	a, c := SignedHeader{b.Header, b.Signature}, SignedHeader{another(b, 1).Header, b.Signature}
	require.Empty(t, say(2, newEvidence(a, c)), "it signed two headers, of a view that is another's: that proves nothing of the leader")
	require.False(t, core.at(1).convicted)
	a.Proposer, c.Proposer = 1, 1
	require.Len(t, those[Accuse](say(2, newEvidence(a, c))), 1)
	require.Empty(t, say(3, newEvidence(a, c)), "once")
	a.View, c.View = 2, 2
	require.Empty(t, those[Accuse](say(3, newEvidence(a, c))), "a culprit is named once in an epoch")
	require.True(t, core.at(2).convicted)
}

// Views ahead of the own one hold memory: blocks and headers count for a few of them, votes and
// evidence for more.
func TestHowFarAheadPeersMaySpeak(t *testing.T) {
	core, say := fresh(t)
	at := func(v View) *Block {
		b := emptyBlocks(core.cfg, 1)[0]
		b.View, b.Proposer = v, core.cfg.LeaderOf(v)
		return b
	}
	for _, ahead := range []View{BlocksAhead, BlocksAhead + 1} {
		v := core.View() + ahead
		b := at(v)
		say(b.Proposer, b)
		say(b.Proposer, SignedHeader{b.Header, b.Signature})
		r := core.at(v)
		require.Equal(t, ahead == BlocksAhead, r != nil && r.heard && len(r.nodes) == 1, "a block %d views ahead", ahead)
	}
	for _, ahead := range []View{VotesAhead, VotesAhead + 1} {
		v := core.View() + ahead
		say(1, Vote{Statement{3, v, Nullify, Digest{}}, true, []byte{1}})
		b := at(v)
		say(1, newEvidence(SignedHeader{b.Header, b.Signature}, SignedHeader{another(b, 1).Header, b.Signature}))
		r := core.at(v)
		require.Equal(t, ahead == VotesAhead, r != nil && r.seen == 1, "a vote %d views ahead", ahead)
		require.Equal(t, ahead == VotesAhead, r != nil && r.convicted, "evidence %d views ahead", ahead)
	}
	_, views := core.Held()
	require.LessOrEqual(t, views, 2)
}

// A Byzantine leader makes as many blocks as it likes. Two of a view are kept, unless one is known
// to be notarized; of a view that is over, none.
func TestHowManyBlocksOfAViewAreKept(t *testing.T) {
	core, say := fresh(t)
	b := emptyBlocks(core.cfg, 1)[0]
	for more := range int64(5) {
		say(1, another(b, more))
	}
	require.Len(t, core.at(1).nodes, 2)
	say(2, nullification(3, 1))
	core.Step(Now{1, 1}, Verified{nullification(3, 1), 2, true})
	require.Equal(t, View(2), core.View())

	next := emptyBlocks(core.cfg, 2)[1]
	say(3, nullification(3, 2))
	core.Step(Now{1, 1}, Verified{nullification(3, 2), 3, true})
	require.Equal(t, View(3), core.View())
	say(1, next)
	require.Empty(t, core.at(2).nodes, "it can get no first vote any more")
	say(2, about(Notarize, next))
	core.Step(Now{1, 1}, Verified{about(Notarize, next), 2, true})
	say(1, next)
	require.Len(t, core.at(2).nodes, 1, "it is notarized")
}

func TestEvidenceProvesEquivocationOnly(t *testing.T) {
	b := emptyBlocks(keptConfig(), 1)[0]
	a, c := SignedHeader{b.Header, b.Signature}, SignedHeader{another(b, 1).Header, b.Signature}
	good := newEvidence(a, c)
	require.NoError(t, good.Validate())
	require.Equal(t, good, newEvidence(c, a), "one form")
	for name, alter := range map[string]func(e *Evidence){
		"another view":     func(e *Evidence) { e.B.View++ },
		"another epoch":    func(e *Evidence) { e.B.Epoch++ },
		"another proposer": func(e *Evidence) { e.B.Proposer++ },
		"one header twice": func(e *Evidence) { e.B = e.A },
		"not in order":     func(e *Evidence) { e.A, e.B = e.B, e.A },
	} {
		for _, e := range []Evidence{newEvidence(a, c), newEvidence(c, a)} {
			alter(&e)
			if name != "one header twice" && name != "not in order" {
				e = newEvidence(e.A, e.B)
			}
			require.Error(t, e.Validate(), name)
		}
	}
}

// To check a certificate costs a pairing. A peer that sent a bad one is not believed again; of one
// peer, and about one statement, so many are under way at most.
func TestHowManyCertificatesAreChecked(t *testing.T) {
	core, say := fresh(t)
	b := emptyBlocks(core.cfg, 1)[0]
	cert := about(Notarize, b)
	require.Len(t, those[Verify](say(1, cert)), 1)
	require.Len(t, those[Verify](say(2, cert)), 1)
	require.Empty(t, those[Verify](say(3, cert)), "two of a statement")
	core.Step(Now{1, 1}, Verified{cert, 1, false})
	require.Len(t, those[Verify](say(3, cert)), 1, "a bad one makes room")
	require.Empty(t, those[Verify](say(1, nullification(3, 1))), "who forged is not believed again")
	require.Empty(t, those[Verify](say(2, Certificate{cert.Statement, nil})), "no signature")

	for v := View(2); v <= maxPeerVerifying; v++ {
		require.Len(t, those[Verify](say(2, nullification(3, v))), 1, "view %d", v)
	}
	require.Empty(t, those[Verify](say(2, nullification(3, 1))), "a peer has so many under way")
	require.Len(t, those[Verify](say(3, nullification(3, 1))), 1)
	core.Step(Now{1, 1}, Verified{nullification(3, 2), 2, true})
	require.Len(t, those[Verify](say(2, nullification(3, 1))), 1, "one is done")
	for range 2 * maxPeerVerifying {
		core.Step(Now{1, 1}, Verified{nullification(3, 1), 3, true})
	}
	require.Empty(t, those[Verify](say(3, nullification(3, 1))), "it is known")
}

// The statements of one view are bounded, whatever is certified or voted for in it.
func TestHowManyStatementsAViewHas(t *testing.T) {
	core, say := fresh(t)
	for i := range 200 {
		for _, kind := range []VoteKind{Notarize, Finalize} {
			s := Statement{3, 2, kind, Digest{byte(kind), byte(i)}}
			for from := ReplicaID(1); from <= 3; from++ {
				say(from, Vote{s, false, []byte{byte(from)}})
				say(from, Vote{s, true, []byte{byte(from)}})
				say(from, Certificate{s, []byte("certificate")}) // that are being checked for ever
			}
		}
	}
	require.LessOrEqual(t, len(core.at(2).tallies), len(core.peers)*(maxFallback+2)+1)
	for from := ReplicaID(1); from <= 3; from++ {
		require.LessOrEqual(t, core.at(2).notarizes[from], uint8(maxFallback))
	}
}

// A replica's votes for blocks as fallback are bounded, and it finalizes one block of a view.
func TestHowManyVotesOfAPeerCount(t *testing.T) {
	core, say := fresh(t)
	for i := range byte(2 * maxFallback) {
		say(2, Vote{Statement{3, 1, Notarize, Digest{i + 1}}, false, []byte{2}})
		say(2, Vote{Statement{3, 1, Finalize, Digest{i + 1}}, false, []byte{2}})
	}
	notarize, finalize := 0, 0
	for _, x := range core.at(1).tallies {
		require.Equal(t, 1, x.votes)
		if x.Kind == Notarize {
			notarize++
		} else {
			finalize++
		}
	}
	require.Equal(t, maxFallback, notarize)
	require.Equal(t, 1, finalize)
	say(2, Vote{Statement{3, 1, 7, Digest{}}, false, []byte{2}})
	require.Len(t, core.at(1).tallies, maxFallback+1, "a kind that there is not")
	say(2, Vote{Statement{3, 1, Nullify, Digest{}}, true, nil})
	require.Len(t, core.at(1).tallies, maxFallback+1, "a vote without a signature")
}

// Only what was asked for is taken in from a peer's answer: the block with the digest, and
// ancestors that hang together with it.
func TestFetchedBlocksAreThoseThatWereAskedFor(t *testing.T) {
	core, say := fresh(t)
	blocks := emptyBlocks(core.cfg, 5)
	held := func() int { _, n := core.Held(); return n }
	core.Step(Now{1, 1}, Fetched{blocks[:3]})
	require.Equal(t, 1, held(), "nobody asked for it")

	say(1, about(Notarize, blocks[4]))
	fetch := those[Fetch](core.Step(Now{1, 1}, Verified{about(Notarize, blocks[4]), 1, true}))
	require.Len(t, fetch, 1)
	require.Equal(t, blocks[4].Digest(), fetch[0].Block)
	require.NotEmpty(t, fetch[0].Hint, "the view's leader should have it")
	require.NotContains(t, fetch[0].Hint, core.cfg.Self)

	core.Step(Now{1, 1}, Fetched{slices.Repeat(blocks[4:], MaxFetch+1)})
	require.Equal(t, 1, held(), "more than an answer has")
	core.Step(Now{1, 1}, Fetched{[]*Block{blocks[3]}})
	require.Equal(t, 1, held(), "another block")
	core.Step(Now{1, 1}, Fetched{nil})

	stranger := another(blocks[1], 7)
	fetch = those[Fetch](core.Step(Now{1, 1}, Fetched{[]*Block{blocks[0], stranger, blocks[3], blocks[4]}}))
	require.Equal(t, 3, held(), "with what hangs together with it")
	require.Len(t, fetch, 1)
	require.Equal(t, blocks[2].Digest(), fetch[0].Block, "the rest is asked for")
	core.Step(Now{1, 1}, Fetched{blocks[:3]})
	require.Equal(t, 6, held())
	require.Empty(t, core.missing)
}

// A block of another epoch is no block, however it comes.
func TestFetchedBlocksAreOfTheEpoch(t *testing.T) {
	core, say := fresh(t)
	b := emptyBlocks(core.cfg, 1)[0]
	b.Epoch = 2
	cert := Certificate{Statement{3, 1, Notarize, b.Digest()}, []byte("certificate")}
	say(1, cert)
	core.Step(Now{1, 1}, Verified{cert, 1, true})
	core.Step(Now{1, 1}, Fetched{[]*Block{b}})
	require.Empty(t, core.at(1).nodes)
}

// A peer is told what it lacks, once in a while and so much at a time.
func TestHowMuchAStatusIsAnswered(t *testing.T) {
	core, say := fresh(t)
	for v := View(1); v <= 3*maxProofs; v++ {
		say(1, nullification(3, v))
		core.Step(Now{1, 1}, Verified{nullification(3, v), 1, true})
	}
	require.Equal(t, View(3*maxProofs+1), core.View())
	certificates := func(effects []Effect) (n int) {
		for _, s := range those[Send](effects) {
			if _, ok := s.Message.(Certificate); ok {
				n++
			}
		}
		return n
	}
	first := certificates(say(2, Status{Epoch: 3, View: 1}))
	require.LessOrEqual(t, first, maxProofs+2)
	require.GreaterOrEqual(t, first, maxProofs)
	require.Empty(t, say(2, Status{Epoch: 3, View: 1}), "not again at once")
	require.NotZero(t, certificates(say(3, Status{Epoch: 3, View: 1})), "another peer is answered")
	quarter := labTimeouts.Resend.Milliseconds() / 4
	require.Empty(t, core.Step(Now{quarter, 1}, Receive{2, Status{Epoch: 3, View: 1}}))
	require.NotEmpty(t, core.Step(Now{1 + quarter, 1}, Receive{2, Status{Epoch: 3, View: 1}}))
}

// Blocks that are asked for are bounded, and each is asked for once until the resend timer says so.
func TestHowManyBlocksAreAskedFor(t *testing.T) {
	core, say := fresh(t)
	asked := make(map[Digest]int)
	for v := View(1); v <= 40; v++ {
		cert := Certificate{Statement{3, v, Notarize, Digest{byte(v)}}, []byte("certificate")}
		say(1, cert)
		for _, f := range those[Fetch](core.Step(Now{1, 1}, Verified{cert, 1, true})) {
			asked[f.Block]++
		}
	}
	require.Len(t, asked, maxMissing)
	for block, times := range asked {
		require.Equal(t, 1, times, fmt.Sprint(block))
	}
	core.clock.deadline[TimerResend] = 1
	again := those[Fetch](core.Step(Now{1, 1}, Expired{Timer{core.View(), TimerResend}}))
	require.Len(t, again, maxMissing)
}
