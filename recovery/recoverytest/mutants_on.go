//go:build mutants

package recoverytest

import "github.com/reseal-bft/reseal/recovery/internal/plant"

// Mutated reports whether a bug is planted.
func Mutated() bool { return plant.Planted != "" }
