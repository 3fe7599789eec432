//go:build mutants

package sim

import (
	"slices"

	"github.com/reseal-bft/reseal/bft"
)

// Planted reports whether this build can plant bugs.
const Planted = true

// harness names the bugs that are planted in the simulated surroundings of the core.
var harness = []string{"certificate-unbound", "handoff-few-dealings", "mute-leader"}

// Mutants returns the names of the planted bugs.
func Mutants() []string {
	names := append(bft.Mutants(), harness...)
	slices.Sort(names)
	return names
}

// recipes are what finds a planted bug soon, where the defaults leave it to chance: the adversary
// that makes use of it, and the size of cluster that it needs.
var recipes = map[string]Options{
	"certificate-unbound":  {Adversary: "replay"},
	"old-epoch":            {Adversary: "replay"},
	"gap-unchecked":        {Adversary: "invalid"},
	"state-unchecked":      {Adversary: "invalid"},
	"evidence-ignored":     {Adversary: "collude"},
	"ancestors-unproven":   {F: 1, Adversary: "unseen"},
	"handoff-few-dealings": {Adversary: "none", Faults: []string{}},
	"mute-leader":          {Adversary: "none", Faults: []string{}},
}

// Recipe returns the options with which a planted bug is looked for, but for those that are chosen
// already.
func Recipe(chosen Options) Options {
	r := recipes[chosen.Mutant]
	if chosen.Adversary == "" {
		chosen.Adversary = r.Adversary
	}
	if chosen.F == 0 && chosen.C == 0 {
		chosen.F, chosen.C = r.F, r.C
	}
	if chosen.Faults == nil {
		chosen.Faults = r.Faults
	}
	return chosen
}

// plant puts a bug into all cores made from now on.
func plant(name string) {
	if slices.Contains(harness, name) {
		name = ""
	}
	bft.Plant(name)
}

// planted reports whether a bug is in force.
func (c *cluster) planted(name string) bool { return c.options.Mutant == name }
