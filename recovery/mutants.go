//go:build mutants

package recovery

import "github.com/reseal-bft/reseal/recovery/internal/plant"

// Plant plants a bug in all nodes started from now on, and in their replicated state; the empty
// name is no bug. It exists only in builds with the tag mutants.
func Plant(name string) { plant.Planted = name }
