//go:build !mutants

package recoverytest

// Mutated reports whether a bug is planted: never in this build.
func Mutated() bool { return false }
