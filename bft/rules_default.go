//go:build !mutants

package bft

// newRules returns the rules of a core.
func newRules(s Size) ruleset { return rules{s} }
