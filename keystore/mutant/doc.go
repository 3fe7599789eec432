// Package mutant names bugs that can be planted in the keystores and in what judges
// their attestations, so that tests and the intruder's kit show that they are found.
// In builds without the tag "mutants" there are none.
package mutant
