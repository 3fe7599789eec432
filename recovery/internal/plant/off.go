//go:build !mutants

package plant

// Bug reports whether the named bug is planted: never in this build.
func Bug(string) bool { return false }
