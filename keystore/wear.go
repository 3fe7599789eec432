package keystore

import "time"

// How long a TPM lasts. Each epoch writes one counter in its non-volatile memory once
// (Advance), and each revocation another one. Makers state 100 000 writes or more for
// a cell of such memory; nothing in a TPM tells how many are left.
const (
	CounterEndurance = 100_000
	CounterLife      = 5 * 365 * 24 * time.Hour
	// LeastEpoch is the shortest epoch that CounterEndurance bears over
	// CounterLife, about 26 minutes.
	LeastEpoch = CounterLife / CounterEndurance
)
