//go:build mutants

package hsm

import (
	"maps"
	"slices"
)

// This file plants bugs: each overrides one rule. It is not part of any build but those with the
// tag mutants, which tests use to show that they find them.

// planted is the bug in force. It is set before any keystore is opened.
var planted string

// Plant sets the bug of all keystores that are opened from now on, and reports whether the name is
// known. The empty name is no bug.
func Plant(name string) bool {
	planted = name
	_, known := mutants[name]
	return known || name == ""
}

// Mutants returns the names of the bugs, sorted.
func Mutants() []string { return slices.Sorted(maps.Keys(mutants)) }

// mutants are the rules with a bug.
var mutants = map[string]ruleset{
	"attributes-unchecked": unchecked{},
	"key-found":            takesFound{},
	"key-by-label":         byLabel{},
	"strangers-stay":       hospitable{},
	"superseded-stay":      keepsSuperseded{},
	"abandoned-stay":       keepsAbandoned{},
	"past-stays":           keepsPast{},
}

func newRules() ruleset {
	if mutant := mutants[planted]; mutant != nil {
		return mutant
	}
	return rules{}
}

type unchecked struct{ rules }

func (unchecked) genuine(string) bool { return true }

type takesFound struct{ rules }

func (takesFound) sealsUnder(found []key) (key, bool) {
	if len(found) == 0 {
		return key{}, false
	}
	return found[0], true
}

// byLabel seals under whatever key the token has by the label of an epoch.
type byLabel struct{ takesFound }

func (byLabel) genuine(string) bool { return true }

type hospitable struct{ rules }

func (hospitable) evicts() bool { return false }

type keepsSuperseded struct{ rules }

func (r keepsSuperseded) keeps(id keyID, current uint64, named map[uint64]keyID, settled func(uint64) bool) bool {
	of, ok := named[id.epoch()]
	return r.rules.keeps(id, current, named, settled) || ok && id.epoch() >= current && id.generation() < of.generation()
}

type keepsAbandoned struct{ rules }

func (r keepsAbandoned) keeps(id keyID, current uint64, named map[uint64]keyID, _ func(uint64) bool) bool {
	return r.rules.keeps(id, current, named, func(uint64) bool { return false })
}

type keepsPast struct{ rules }

func (r keepsPast) keeps(id keyID, current uint64, named map[uint64]keyID, settled func(uint64) bool) bool {
	return id.epoch() < current || r.rules.keeps(id, current, named, settled)
}
