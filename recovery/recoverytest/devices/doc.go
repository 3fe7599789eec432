// Package devices has the fleets on which an intruder plays, see package recoverytest: passphrase
// files, SoftHSM tokens, and software TPMs; and, with the build tag "mutants", the faults that can
// be planted beneath them.
package devices
