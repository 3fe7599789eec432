package bft

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Tests of what certificates change, and what follows from each. The core is replica 4 of four in
// view 1, which replica 1 leads.

// Certificates that come late, or out of order, take nothing back.
func TestCertificatesTakeNothingBack(t *testing.T) {
	core, say := fresh(t)
	blocks := emptyBlocks(core.cfg, 3)
	for _, b := range blocks {
		say(3, about(Finalize, b)) // all are being checked
	}
	for _, i := range []int{1, 0, 2, 0} {
		core.Step(Now{1, 1}, Verified{about(Finalize, blocks[i]), 3, true})
		require.Equal(t, View(max(i+1, int(core.proof.View))), core.proof.View)
		require.Equal(t, core.proof.Block, core.certain.block)
	}
	require.Equal(t, View(3), core.proof.View)
	require.Len(t, those[Finalized](core.Step(Now{1, 1}, Fetched{blocks})), 3)
	for _, b := range blocks {
		require.Empty(t, say(2, about(Finalize, b)), "no news")
		require.Empty(t, say(2, about(Notarize, b)), "no news")
		require.Empty(t, say(2, nullification(3, b.View)), "no news")
	}
}

// Finality that is covered is no news: a finalization below the last known one is not checked, nor
// the same again.
func TestAnOldFinalizationIsNotChecked(t *testing.T) {
	core, say := fresh(t)
	blocks := emptyBlocks(core.cfg, 4)
	proves(core, about(Finalize, blocks[2]))
	for _, b := range blocks[:3] {
		require.Empty(t, those[Verify](say(2, about(Finalize, b))), "view %d", b.View)
	}
	require.Len(t, those[Verify](say(2, about(Finalize, blocks[3]))), 1)
}

// What was being checked of a view that is forgotten meanwhile is over too: it takes nothing from
// what a peer may have checked later.
func TestChecksOfForgottenViewsAreOver(t *testing.T) {
	core, say := fresh(t)
	blocks := emptyBlocks(core.cfg, 2*viewsBehind)
	for v := View(1); v <= maxPeerVerifying; v++ {
		require.Len(t, those[Verify](say(2, nullification(3, v))), 1)
	}
	require.Empty(t, those[Verify](say(2, nullification(3, 65))))
	proves(core, about(Finalize, blocks[len(blocks)-1]))
	require.Len(t, those[Finalized](core.Step(Now{1, 1}, Fetched{blocks})), len(blocks))
	require.Nil(t, core.at(1), "it is forgotten")
	for v := View(1); v <= maxPeerVerifying; v++ {
		core.Step(Now{1, 1}, Verified{nullification(3, v), 2, true})
	}
	for v := View(65); v < 65+maxPeerVerifying; v++ {
		require.Len(t, those[Verify](say(2, nullification(3, v))), 1, "view %d", v)
	}
}

// A view has two certificates: a leader may build on either, so all get both. What is late does not
// count against a leader.
func TestTheSecondCertificateOfAViewIsShown(t *testing.T) {
	core, _ := fresh(t)
	b := emptyBlocks(core.cfg, 1)[0]
	require.Contains(t, proves(core, about(Notarize, b)), Effect(Broadcast{about(Notarize, b)}))
	require.Contains(t, proves(core, nullification(3, 1)), Effect(Broadcast{nullification(3, 1)}))
	require.Equal(t, View(2), core.View())
	require.Zero(t, core.clock.nullified, "the view had gone well")
	require.False(t, core.clock.suspected[1])
	proves(core, nullification(3, 3))
	require.NotContains(t, proves(core, nullification(3, 2)), Effect(Broadcast{nullification(3, 2)}), "one that is alone, of a view that was left")
}

// On the way through a gap a peer is asked for certificates, once for as many as it gives at a time.
func TestAGapIsAskedForPageByPage(t *testing.T) {
	core, _ := fresh(t)
	asked := func(effects []Effect) (views []View) {
		for _, s := range those[Send](effects) {
			if status, ok := s.Message.(Status); ok {
				require.Equal(t, ReplicaID(3), s.To)
				views = append(views, status.View)
			}
		}
		return views
	}
	require.Equal(t, []View{1}, asked(proves(core, nullification(3, 200))))
	require.Equal(t, View(201), core.View())
	for v := View(1); v < maxProofs; v++ {
		require.Empty(t, asked(proves(core, nullification(3, v))), "view %d", v)
	}
	require.Equal(t, []View{maxProofs + 1}, asked(proves(core, nullification(3, maxProofs))))
	b := emptyBlocks(core.cfg, 1)[0]
	b.View, b.Proposer = 201, core.cfg.LeaderOf(201)
	proves(core, about(Notarize, b))
	require.Equal(t, View(202), core.unresolved(), "above a notarized block nothing is missing")
	require.Empty(t, asked(proves(core, nullification(3, 90))))
}

// Below a final block nothing is missing.
func TestNothingIsMissingBelowAFinalBlock(t *testing.T) {
	core, say := fresh(t)
	blocks := emptyBlocks(core.cfg, 3)
	for _, b := range blocks {
		say(1, b)
	}
	proves(core, nullification(3, 9))
	require.Equal(t, View(1), core.unresolved())
	proves(core, about(Finalize, blocks[2]))
	require.Equal(t, View(4), core.unresolved())
	require.Equal(t, View(10), core.View())
}

// A notarization that comes after its block has been linked proves the state that the block
// certifies, as one that came before does.
func TestALateNotarizationProvesTheState(t *testing.T) {
	core, blocks := ending(t)
	core.cfg.Leaders = []ReplicaID{1}
	for _, b := range blocks[:4] {
		core.Step(Now{1, 1}, Receive{1, b})
	}
	require.Len(t, those[Finalized](proves(core, about(Notarize, blocks[3]))), 2)
}

// So that the proof of finality is never old, some views get finalize votes though nothing asks for
// them.
func TestSomeViewsAreFinalizedInAnyCase(t *testing.T) {
	for _, v := range []View{finalizeEvery - 1, finalizeEvery} {
		core, _ := fresh(t)
		b := emptyBlocks(core.cfg, 1)[0]
		b.View, b.Proposer = v, core.cfg.LeaderOf(v)
		var kinds []VoteKind
		for _, s := range those[Sign](proves(core, about(Notarize, b))) {
			kinds = append(kinds, s.Vote.Kind)
		}
		require.Equal(t, v == finalizeEvery, len(kinds) == 1 && kinds[0] == Finalize, "view %d: %v", v, kinds)
	}
}

// A round is used again for another view: nothing of the one before is left.
func TestARoundThatIsUsedAgainIsEmpty(t *testing.T) {
	core, say := fresh(t)
	blocks := emptyBlocks(core.cfg, 1)
	say(1, blocks[0])
	for from := ReplicaID(1); from <= 3; from++ {
		hand(core, notarize(blocks[0]), true, from)
		hand(core, Statement{3, 1, Notarize, Digest{7}}, false, from)
	}
	r := core.at(1)
	r.askers = append(r.askers, 2)
	r.reset()
	for id := range r.first {
		require.Zero(t, r.first[id])
		require.Zero(t, r.notarizes[id])
	}
	for _, x := range r.tallies[:cap(r.tallies)] {
		for _, p := range x.partials {
			require.Nil(t, p)
		}
	}
	require.Empty(t, r.tallies)
	require.Empty(t, r.own)
	require.Empty(t, r.nodes)
	require.Empty(t, r.askers)
	require.Zero(t, r.seen)
	require.False(t, r.heard || r.convicted || r.proposed || r.spread || r.shut)
}

// Votes below a final block are remembered for a while: others may lack its finality still.
func TestHowFarBelowAFinalBlockVotesAreRemembered(t *testing.T) {
	core, say := fresh(t)
	b := emptyBlocks(core.cfg, 1)[0]
	b.View = 8
	b.Proposer = core.cfg.LeaderOf(8)
	say(b.Proposer, b)
	proves(core, about(Finalize, b))
	require.NotNil(t, core.at(8))
	require.Equal(t, View(1), core.views.low)
	next := another(b, 0)
	next.View, next.Height, next.Parent, next.ParentView = 60, 2, b.Digest(), 8
	next.Proposer = core.cfg.LeaderOf(60)
	proves(core, about(Finalize, next))
	require.Len(t, those[Finalized](core.Step(Now{1, 1}, Fetched{[]*Block{next}})), 1)
	require.Equal(t, View(60-viewsBehind), core.views.low)
	require.Nil(t, core.at(8))
}

// Leaders that fail one after the other get twice the time each, up to the maximum; a success of a
// view before the last failure changes nothing.
func TestPatience(t *testing.T) {
	core := failedViews(t, 12)
	core.clock.suspected = [MaxReplicas + 1]bool{}
	for failures, want := range []time.Duration{1: 2, 2: 4, 3: 8, 4: 16, 5: 16, 100: 16} {
		if want > 0 {
			core.clock.nullified = failures
			require.Equal(t, want*labTimeouts.View, core.clock.patience(core), "%d failures", failures)
		}
	}
	core.cfg.Timeouts.ViewMax = 10 * time.Second
	require.Equal(t, 10*time.Second, core.clock.patience(core), "not above the maximum")
	core.cfg.Timeouts.ViewMax = labTimeouts.ViewMax
	core.clock.suspected[core.cfg.LeaderOf(core.View())] = true
	require.Equal(t, 16*labTimeouts.View, suspectedShare*core.clock.patience(core))
	core.view += strainViews
	require.Equal(t, 2*16*labTimeouts.View, suspectedShare*core.clock.patience(core), "nothing becomes final")

	core = failedViews(t, 12)
	b := emptyBlocks(core.cfg, 2)[1]
	b.Epoch = 0
	feed(core, core.Step(Now{1, 1}, Receive{2, about(Notarize, b)}))
	require.Equal(t, 3, core.clock.nullified, "a view of long ago")
	require.True(t, core.clock.suspected[1])
	b.View = 33 // led by the same
	require.Equal(t, ReplicaID(1), core.cfg.LeaderOf(b.View))
	feed(core, core.Step(Now{1, 1}, Receive{2, about(Notarize, b)}))
	require.Zero(t, core.clock.nullified)
	require.False(t, core.clock.suspected[1], "it made a block, as others saw")
}

// The monotonic clock is taken to stand still when it runs backwards.
func TestTheClockDoesNotRunBackwards(t *testing.T) {
	core, _ := fresh(t)
	core.Step(Now{1001, 1}, Expired{})
	before := core.now
	core.Step(Now{5, 1}, Expired{})
	require.Equal(t, before, core.now)
}
