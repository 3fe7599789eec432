//go:build mutants

package plant

// Planted is the bug in force. It is set before anything is made.
var Planted string

// Bug reports whether the named bug is planted.
func Bug(name string) bool { return name == Planted }
