package bft

import (
	"errors"
	"slices"
)

// This file is the protocol: what a replica may say, and when something counts. Everything else in
// the package moves data to these rules and carries out what they decide. docs/protocol.md proves
// them; the references are Simplex (Chan, Pass: "Simplex Consensus", section 2), Kudzu (Shoup,
// Sliwinski, Vonlanthen: "Kudzu: Fast and Simple High-Throughput BFT", section 4), SBFT (Golan
// Gueta et al., section II) and Sousa et al. ("Highly Available Intrusion-Tolerant Services with
// Proactive-Reactive Recovery", section 3).

// ruleset is the set of rules that a core obeys. There is one implementation, [rules]; the
// interface exists so that a build with planted bugs (tag mutants) can override one rule at a time
// and show that the simulator finds it.
type ruleset interface {
	quorum() int
	fastQuorum() int
	countsFirst(v Vote) bool
	concerns(own, of Epoch) bool
	remembers(own []Vote) []Vote
	mayFirst(own []Vote) bool
	mayFallback(own []Vote, s Statement) bool
	mayFinalize(own []Vote, block Digest) bool
	proves(evidence bool) int
	ruledOut(seen, count, proven int) bool
	supported(count, proven int) bool
	extends(h *Header, parent parentInfo, nullified func(View) bool) error
	timely(time, parent, latest int64) bool
	vouched(count, proven int) bool
	obtains(firsts int) bool
	mayClaim(height, firm Height) bool
	adopts(held bool) bool
	brings(proven bool) bool
	stateAgrees(h *Header, executed Executed) bool
}

// rules are the rules for one size of cluster.
type rules struct{ Size }

// quorum is the number of votes in a certificate, q = 2f + c + 1. Safe: two quorums share f + 1
// replicas, so a correct one. Live: q correct replicas are up when f are Byzantine and c are down
// (SBFT, section II; Sousa et al., section 3, with their k for c).
func (r rules) quorum() int { return r.Quorum() }

// fastQuorum is the number of first notarize votes that make a block final, n - p. Safe: at most p
// correct replicas did not first-vote the block, so [rules.ruledOut] never holds for it at a
// correct replica, and p + f < q (Kudzu, section 4.2).
func (r rules) fastQuorum() int { return r.FastQuorum() }

// countsFirst says that a vote counts as its sender's first vote. Safe: fallback votes say that a
// block may be built upon, not that the sender preferred it; counted for the fast path they would
// make final what the others have ruled out.
func (r rules) countsFirst(v Vote) bool { return v.First }

// concerns says that a message of one epoch concerns a replica of another. Safe: votes are bound to
// (epoch, view), so a share of an old epoch, however it leaked, says nothing in this one.
func (r rules) concerns(own, of Epoch) bool { return own == of }

// remembers returns the own votes that bind a replica after a restart: all of them. Safe: a vote
// that was forgotten could be contradicted.
func (r rules) remembers(own []Vote) []Vote { return own }

// mayFirst allows the first vote of a view to a replica that has cast no vote in it. Safe: n first
// votes at most are counted by any two replicas, so the fast quorum of one is visible to the other.
func (r rules) mayFirst(own []Vote) bool { return len(own) == 0 }

// mayFallback allows a fallback vote after the first vote and before any finalize vote. Safe: a
// replica that voted finalize has promised not to help a rival of its block or the nullification of
// its view (Simplex, section 2: finalize excludes timeout).
func (r rules) mayFallback(own []Vote, s Statement) bool {
	voted := false
	for _, v := range own {
		if v.Kind == Finalize || v.Kind == s.Kind && v.Block == s.Block {
			return false
		}
		voted = voted || v.First
	}
	return voted
}

// mayFinalize allows a finalize vote for a notarized block to a replica whose only vote in the
// view, if any, was its first vote for that block. Safe: of q finalizers f + c + 1 are correct and
// never vote for a rival or to nullify; the 2f + c others are fewer than q.
func (r rules) mayFinalize(own []Vote, block Digest) bool {
	return !slices.ContainsFunc(own, func(v Vote) bool { return v.Kind != Notarize || !v.First || v.Block != block })
}

// proves is the number of replicas known to be Byzantine in a view: its leader, when it signed two
// blocks for it. Its first vote is left out of the count, and one less of the f Byzantine replicas
// is left to hide behind other votes (Kudzu, section 4.3).
func (r rules) proves(evidence bool) int {
	if evidence {
		return 1
	}
	return 0
}

// ruledOut says that a block with count of the seen first votes cannot become final by the fast
// path at any correct replica, when proven replicas are known to be Byzantine and left out. Safe:
// if it were final, at most p correct replicas voted otherwise, and at most f - proven of the
// others did: fewer than f - proven + p + 1.
func (r rules) ruledOut(seen, count, proven int) bool {
	return seen-count >= r.F-proven+r.FastAbsent()+1
}

// supported says that a block has the first votes of so many replicas that it would not be ruled
// out among the q fewest: q - (f - proven) - p of them. Live: a block that stays possible at some
// correct replica is supported at all of them. Safe: see [rules.vouched] and [rules.adopts].
func (r rules) supported(count, proven int) bool {
	return count >= r.Quorum()-(r.F-proven)-r.FastAbsent()
}

// parentInfo is what the rules need to know of a block's parent.
type parentInfo struct {
	tip Tip
	// notarized: its notarization is known, or it is final.
	notarized bool
	// final is the view of the last final block.
	final View
}

var (
	errParentNotNotarized = errors.New("the parent is not known to be notarized")
	errGap                = errors.New("a view between parent and block is not known to be nullified")
	errForksFinal         = errors.New("the block leaves out a final block")
)

// extends says that a block may be built on its parent: it follows it (chain.go), the parent is
// notarized, and all views in between are nullified. Safe: if a block was final in one of them,
// that view could not be nullified, so the new block has it among its ancestors (Simplex, section
// 2, by induction on the view).
func (r rules) extends(h *Header, parent parentInfo, nullified func(View) bool) error {
	switch {
	case !parent.notarized:
		return errParentNotNotarized
	case parent.tip.View() < parent.final:
		return errForksFinal
	}
	if err := parent.tip.Follows(h); err != nil {
		return err
	}
	for v := parent.tip.View() + 1; v < h.View; v++ {
		if !nullified(v) {
			return errGap
		}
	}
	return nil
}

// stateAgrees says that a header certifies the state that the replica has itself executed, and ends
// the epoch exactly when that state asks for it. Safe: every notarization holds a correct replica's
// first vote, so it proves the state to anybody (SBFT, section V, does the same with a signature of
// its own).
func (r rules) stateAgrees(h *Header, executed Executed) bool {
	return h.StateHeight == executed.Height && h.StateRoot == executed.Root && h.EpochEnd == executed.HandoffReady
}

// timely says that a block's time is its parent's, or has advanced no further than the latest time
// by the voter's clock. Safe: each advance is bounded by a correct clock, so Byzantine leaders in a
// row get no further than one. Live: the parent's time is never too late, so that no clock, right
// or wrong, keeps a leader with a slower one from going on.
func (r rules) timely(time, parent, latest int64) bool { return time <= max(parent, latest) }

// vouched says that one of count first votes is a correct replica's, which has found valid what
// others cannot judge: the state that a block certifies, its time. Who votes for the block as a
// fallback then need not judge it. It is so for every supported block but with c = 0, where p > c.
func (r rules) vouched(count, proven int) bool { return count > r.F-proven }

// obtains says that so many first votes for a block are sure to make certificates for it: q at
// least are of correct replicas. n - p are, but with c = 0, where a block with n - p first votes is
// final only once its notarization is known: bad partial signatures may be among them.
func (r rules) obtains(firsts int) bool { return firsts >= r.N()-r.C }

// mayClaim says that a first vote may go to a block that certifies a state above its parent's, when
// firm is the height up to which anybody can be shown that blocks are final: by a finalization, by
// a notarized block that certifies the state after them, or because all n replicas first-voted for
// the block, so that nothing keeps the correct ones from voting to finalize it. Live: where
// supported blocks are not vouched for, every voter judges for itself, so that what one correct
// replica finds valid the others must come to find valid too (docs/protocol.md, Lemma 5).
func (r rules) mayClaim(height, firm Height) bool { return r.FastAbsent() <= r.C || height <= firm }

// adopts says that a fallback notarize vote may go to a block that the voter holds, with all its
// ancestors, has found to extend a notarized parent, and stores before it votes. Safe and live:
// every notarization has f + c + 1 correct holders (Alpenglow: a block is stored before its
// fallback vote).
func (r rules) adopts(held bool) bool { return held }

// brings says that a block that was asked for brings its ancestors: when it is notarized or final,
// or an ancestor of one that is. Live: a Byzantine replica votes for what nobody has seen and makes
// ancestors without end, which would leave no room for others; those of a proven block are as many
// as there were views.
func (r rules) brings(proven bool) bool { return proven }
