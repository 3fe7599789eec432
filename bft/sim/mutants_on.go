//go:build mutants

package sim

import (
	"slices"

	"github.com/reseal-bft/reseal/bft"
)

// Planted reports whether this build can plant bugs.
const Planted = true

// harness names the bugs that are planted in the simulated surroundings of the core.
var harness = []string{"certificate-unbound", "handoff-few-dealings"}

// Mutants returns the names of the planted bugs.
func Mutants() []string {
	names := append(bft.Mutants(), harness...)
	slices.Sort(names)
	return names
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
