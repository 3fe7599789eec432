//go:build mutants

package bft

import (
	"maps"
	"slices"
)

// This file plants bugs: each overrides one rule. It is not part of any build but those with the
// tag mutants, which the simulator uses to show that it finds them.

// planted is the bug in force. It is set before any core is made.
var planted string

// Plant sets the bug of all cores made from now on, and reports whether the name is known. The
// empty name is no bug.
func Plant(name string) bool {
	planted = name
	_, known := mutants[name]
	_, forgives := forgiving[name]
	_, here := checkedHere[name]
	return known || forgives || here || name == ""
}

// Mutants returns the names of the bugs, in no order.
func Mutants() []string { return slices.Collect(maps.Keys(mutants)) }

// ChainMutants returns the names of the bugs in the checks of a chain, in no order: each check left out.
func ChainMutants() []string { return slices.Collect(maps.Keys(forgiving)) }

// forgiving are the checks of chain.go that a bug leaves out.
var forgiving = map[string]error{
	"chain-epoch":        errEpoch,
	"chain-parent":       errParent,
	"chain-view":         errParentView,
	"chain-height":       errHeight,
	"chain-time":         errTime,
	"chain-state-height": errStateHeight,
	"chain-state-root":   errStateRoot,
	"chain-filler":       errFiller,
	"chain-lag":          errLag,
	"proof-block":        errProofBlock,
	"proof-kind":         errProofKind,
	"proof-short":        errProofShort,
}

// forgiven lets pass what the bug in force does not check.
func forgiven(found error) error {
	if found != nil && found == forgiving[planted] {
		return nil
	}
	return found
}

// mutants make the rules with a bug.
var mutants = map[string]func(rules) ruleset{
	"quorum-small":           func(r rules) ruleset { return smallQuorum{r} },
	"fast-quorum-small":      func(r rules) ruleset { return smallFastQuorum{r} },
	"finalize-after-nullify": func(r rules) ruleset { return finalizesAnyway{r} },
	"vote-after-finalize":    func(r rules) ruleset { return votesAfterFinalize{r} },
	"first-vote-twice":       func(r rules) ruleset { return votesTwice{r} },
	"forgotten-votes":        func(r rules) ruleset { return forgets{r} },
	"evidence-ignored":       func(r rules) ruleset { return ignoresEvidence{r} },
	"gap-unchecked":          func(r rules) ruleset { return jumpsGaps{r} },
	"state-unchecked":        func(r rules) ruleset { return believesStates{r} },
	"old-epoch":              func(r rules) ruleset { return acceptsOldEpochs{r} },
	"fallback-counts-first":  func(r rules) ruleset { return countsFallback{r} },
	"ancestors-unproven":     func(r rules) ruleset { return takesAncestors{r} },
}

// checkedHere are bugs that this package's own checks find, rather than the simulator.
var checkedHere = map[string]func(rules) ruleset{
	"ruled-out-early": func(r rules) ruleset { return ruledOutEarly{r} },
	"supported-late":  func(r rules) ruleset { return supportedLate{r} },
	"fallback-unheld": func(r rules) ruleset { return adoptsUnheld{r} },
	"time-unbounded":  func(r rules) ruleset { return believesTimes{r} },
	"time-barrier":    func(r rules) ruleset { return waitsForTime{r} },
}

func newRules(s Size) ruleset {
	for _, bugs := range []map[string]func(rules) ruleset{mutants, checkedHere} {
		if mutate := bugs[planted]; mutate != nil {
			return mutate(rules{s})
		}
	}
	return rules{s}
}

type adoptsUnheld struct{ rules }

func (adoptsUnheld) adopts(bool) bool { return true }

type believesTimes struct{ rules }

func (believesTimes) timely(_, _, _ int64) bool { return true }

type waitsForTime struct{ rules }

func (waitsForTime) timely(time, _, latest int64) bool { return time <= latest }

type smallQuorum struct{ rules }

func (r smallQuorum) quorum() int { return r.rules.quorum() - 1 }

type smallFastQuorum struct{ rules }

func (r smallFastQuorum) fastQuorum() int { return r.rules.fastQuorum() - 1 }

type ruledOutEarly struct{ rules }

func (r ruledOutEarly) ruledOut(seen, count, proven int) bool {
	return r.rules.ruledOut(seen+1, count, proven)
}

type supportedLate struct{ rules }

func (r supportedLate) supported(count, proven int) bool { return r.rules.supported(count-1, proven) }

type finalizesAnyway struct{ rules }

func (finalizesAnyway) mayFinalize(own []Vote, block Digest) bool {
	for _, v := range own {
		if v.Kind == Finalize || v.Kind == Notarize && v.Block != block {
			return false
		}
	}
	return true
}

type votesAfterFinalize struct{ rules }

func (r votesAfterFinalize) mayFirst(own []Vote) bool {
	return len(own) == 0 || len(own) == 1 && own[0].Kind == Finalize
}

type votesTwice struct{ rules }

func (votesTwice) mayFirst(own []Vote) bool { return len(own) < 2 }

type forgets struct{ rules }

func (forgets) remembers([]Vote) []Vote { return nil }

type ignoresEvidence struct{ rules }

func (ignoresEvidence) proves(bool) int { return 0 }

type jumpsGaps struct{ rules }

func (r jumpsGaps) extends(h *Header, parent parentInfo, _ func(View) bool) error {
	parent.final = 0
	return r.rules.extends(h, parent, func(View) bool { return true })
}

type believesStates struct{ rules }

func (believesStates) stateAgrees(h *Header, executed Executed) bool {
	return h.StateHeight == executed.Height
}

type acceptsOldEpochs struct{ rules }

func (acceptsOldEpochs) concerns(_, _ Epoch) bool { return true }

type countsFallback struct{ rules }

func (countsFallback) countsFirst(v Vote) bool { return v.Kind == Notarize || v.First }

type takesAncestors struct{ rules }

func (takesAncestors) brings(bool) bool { return true }
