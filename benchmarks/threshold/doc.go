// Package threshold measures package threshold beside what one would use instead: kyber's tbls on
// BN256, and lists of Ed25519 or ECDSA signatures. It is what `reseal bench threshold` runs.
//
// Everything is measured in one run, on one core (GOMAXPROCS is 1 meanwhile), as the median of
// repetitions, in processor time of the process. The operations of one n take turns, so on a shared
// machine trust the ratios between them, not the numbers: neighbours still take caches and clock
// frequency.
package threshold
