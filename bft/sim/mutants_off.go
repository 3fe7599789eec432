//go:build !mutants

package sim

import "github.com/reseal-bft/reseal/bft"

// Mutants returns the names of the planted bugs: none in this build.
func Mutants() []string { return nil }

// plant leaves the core as it is.
func (c *cluster) plant(*bft.Core) {}
