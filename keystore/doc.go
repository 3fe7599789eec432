// Package keystore keeps what a replica must not lose and must not give away: an
// identity key that stays in its device, and the secret of the present epoch,
// sealed at rest.
//
// The package holds the interface, and everything that can be said without a
// device: operators approve boot states offline (Approve, PredictPCR), replicas
// verify each other's quotes and enrollments (VerifyQuote, VerifyEnrollment).
// Verification is pure Go and deterministic, as it runs in the replicated state
// machine. Package device opens keystores by URI; the backends are keystore/tpm,
// hsm and keystore/file.
//
// # The life of a secret
//
//	k.Seal(8, share)    // on disk, while epoch 7 is current
//	k.Advance(8)        // epoch 8 is current; what was sealed for 7 is erased
//	k.Unseal(8)         // after a reboot, in an approved state
//	k.Claim()           // from here on nothing opens in this boot, and who claimed it alone signs
//
// # Invariants
//
// At every moment, and after a crash at any point, the secret of the current
// epoch opens on its device, if one was sealed. After Advance returns, no secret
// of an earlier epoch opens, from whatever copy of the disk (a passphrase file
// cannot promise that, and says so). A refusal by the device is told apart from
// one by bookkeeping (RefusedError), and from a device that does not answer
// (ErrUnavailable): only the first proves anything.
//
// # What it does not promise
//
// In operation the secret is in the process's memory. The garbage collector may
// have copied it before it was wiped; who controls the process has it until the
// next epoch. Secret keeps it out of logs and of JSON, and Wipe shortens its life,
// no more. Keep such processes' memory out of swap and of core files by the means
// of the system (LimitCORE=0 and MemorySwapMax=0 in a systemd unit).
package keystore
