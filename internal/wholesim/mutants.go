package wholesim

import (
	"maps"
	"slices"
)

// recipe is what brings a planted bug to light soon: what the Byzantine replicas do, and which
// faults there are.
type recipe struct {
	adversary string
	faults    []string
}

// recipes are the planted bugs that campaigns of whole nodes are known to find, with what finds each:
// the first seed found all of them.
var recipes = map[string]recipe{
	// In rules that cores alone do not reach; by the goals.
	"lapsed-keeps": {"none", []string{}}, // in its first epoch
	"share-kept":   {"none", []string{}}, // old secrets
	"device-stays": {"none", []string{}}, // likewise
	// In rules of the core; by the monitor beside it.
	"quorum-small":     {"none", []string{}},
	"first-vote-twice": {"none", []string{"delay"}},
	"ruled-out-early":  {"all", []string{"delay", "partition"}},
	"time-unbounded":   {"none", []string{"clock"}},
}

// Mutants returns the names of the planted bugs that campaigns of whole nodes are known to find. A
// build with planted bugs takes the others of the core, the replica and the recovery too.
func Mutants() []string { return slices.Sorted(maps.Keys(recipes)) }

// Recipe returns the options with which a planted bug is looked for, but for those that are chosen
// already.
func Recipe(chosen Options) Options {
	r, ok := recipes[chosen.Mutant]
	if !ok {
		return chosen
	}
	if chosen.Adversary == "" {
		chosen.Adversary = r.adversary
	}
	if chosen.Faults == nil {
		chosen.Faults = r.faults
	}
	return chosen
}
