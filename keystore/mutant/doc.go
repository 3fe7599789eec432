// Package mutant names bugs that can be planted in the keystore on a TPM, so that tests
// and the intruder's kit show that they are found.
// In builds without the tag "mutants" there are none.
package mutant
