// Package tpm keeps a keystore in a TPM 2.0.
//
// # What is where
//
// The TPM holds, per slot s (0 unless a URI says "?slot=N"; the handles are in
// the ranges that the TCG leaves to the owner):
//
//	0x81000001                 storage root key, P-256, shared with other software
//	0x81005200 + 16s           identity key, P-256, made by the TPM under the root key
//	0x81005201 + 16s           attestation key, P-256, primary of the endorsement hierarchy
//	NV 0x01805200 + 16s        counter that sealing is bound to
//	NV 0x01805201 + 16s        counter that revokes approvals
//
// The directory holds the sealed secrets, the operator's approvals, and the
// authorization to increment the counters. Nothing in it opens without this TPM.
//
// # Sealing
//
// A secret is encrypted under a fresh AES-256 key (package statedir), and the
// key is sealed under the storage root key. Its policy is PolicyAuthorize (the
// operator approved the present PCRs, and has not revoked that), then PolicyNV
// (the counter is not above b). The current epoch's secret has the counter's
// value v for b, that of the next epoch v+1: so both open until Advance, which
// increments the counter to v+1. That one command is the commit, and it erases
// all that was sealed under v, wherever copies are.
//
// # How the device is used
//
// A software TPM serves one connection at a time, so each operation connects,
// does its work, flushes what it loaded and disconnects; other processes get
// their turn in between. Sessions are salted with the storage root key, whose
// public area is pinned in the directory, and encrypt the parameters. Objects
// do not take part in the dictionary-attack lockout.
//
// # What it does not promise
//
// Whoever runs code in an approved boot state can unseal, as the replica does.
// A session that proved its policy before Advance may still unseal after it,
// until the TPM is reset: an attacker who has the machine at that moment has
// the secret anyway. Whoever can increment the counter can erase (not read). A
// software TPM's state is a file, and can be rolled back with its counters.
package tpm
