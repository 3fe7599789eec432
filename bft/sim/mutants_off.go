//go:build !mutants

package sim

// Planted reports whether this build can plant bugs: not without the tag mutants.
const Planted = false

// Mutants returns the names of the planted bugs: none in this build.
func Mutants() []string { return nil }

// Recipe returns the options with which a planted bug is looked for: this build has none.
func Recipe(chosen Options) Options { return chosen }

func plant(string) {}

func (c *cluster) planted(string) bool { return false }
