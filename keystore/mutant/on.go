//go:build mutants

package mutant

import (
	"slices"
	"sync/atomic"
)

var planted atomic.Value

// Plant sets the bug in force, before any keystore is made, and reports whether the
// name is known. The empty name is no bug.
func Plant(name string) bool {
	planted.Store(name)
	return name == "" || slices.Contains(Names, name)
}

// Is reports whether a bug is planted.
func Is(name string) bool { return planted.Load() == name }
