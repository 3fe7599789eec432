package hsm

// This file says which objects of a token a keystore uses, and how long they live. Everything else
// in the package asks it.

// ruleset is the set of these rules. There is one implementation, [rules]; the interface exists so
// that a build with planted bugs (tag mutants) can override one rule at a time and show that a test
// finds it.
type ruleset interface {
	genuine(differs string) bool
	sealsUnder(found []key) (key, bool)
	evicts() bool
	keeps(id keyID, current uint64, named map[uint64]keyID, settled func(epoch uint64) bool) bool
}

// rules are the rules.
type rules struct{}

// genuine says that an object which differs from what this keystore makes in the given attributes
// ("" in none) may be used. Whoever had the PIN once could write an object under any name: what he
// cannot have the token say is that it made the key itself and never let it out.
func (rules) genuine(differs string) bool { return differs == "" }

// sealsUnder chooses the key of a sealing among those that the token holds for its epoch: none. A
// key that was there before the sealing may be somebody's who was there before it.
func (rules) sealsUnder([]key) (key, bool) { return key{}, false }

// evicts says that objects which are not genuine, but bear the names of this keystore, are destroyed.
func (rules) evicts() bool { return true }

// keeps says that a genuine key stays in the token when epoch current is in force and the directory
// holds the envelopes that name these keys, one an epoch. An epoch is settled when no sealing for
// it is under way, so that a key of it which no envelope names is an abandoned one. Where that is
// not known, as when a directory is opened that may be an old copy, later generations of keys than
// the one that is named stay: they may be those of the original.
func (rules) keeps(id keyID, current uint64, named map[uint64]keyID, settled func(epoch uint64) bool) bool {
	of, ok := named[id.epoch()]
	switch {
	case id.epoch() < current:
		return false
	case ok && of == id:
		return true
	case settled(id.epoch()):
		return false
	case ok:
		return id.generation() > of.generation()
	}
	return true
}
