//go:build !mutants

package replica

// broken reports whether a bug is planted. There is none in this build.
func broken(string) bool { return false }
