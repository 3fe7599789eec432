// Package tpm keeps a keystore in a TPM 2.0.
//
// # What is where
//
// Nothing that matters stays in the TPM but what can be made again. The TPM holds, per
// slot s (0 unless a URI says "?slot=N"; a replica is in slot 0; the handles are in the
// ranges that the TCG leaves to the owner):
//
//	0x81000001 or 0x81005200 + 16s   storage root key, P-256, primary of the owner hierarchy
//	0x81005201 + 16s                 attestation key, P-256, primary of the endorsement hierarchy
//	NV 0x01805200 + 16s              counter that sealing is bound to
//	NV 0x01805201 + 16s              counter that revokes approvals
//
// Primary keys that the TPM's owner evicted are made again, the same; counters that he
// undefined are defined again, higher, so that what was bound to them is over; both take
// his authorization. The directory holds the identity key and the gate key, as the TPM
// encrypted them, the sealed secrets, the operator's approvals, and the authorization of
// the counters. It is not believed: the operator's key, the PCRs, the TPM and the slot are
// said by the caller (from the genesis, which is measured), the root key's attributes by
// the TPM, and what its other fields are good for is that keys load or do not. Where the
// directory is lost, Backup brings the identity back.
//
// # Who may use the keys
//
// An approval is the operator's signature on PCR values and a version, for one TPM
// (PolicyPCR, PolicyNV of the approval counter, PolicyAuthorize with the TPM and slot in
// its policyRef). It opens two things, each only while the PCRs are as approved: sealed
// secrets, and the gate key.
//
// Claim draws a key E in memory, and has the gate key sign that in this boot
// (PolicyCounterTimer: resetCount equals now) the keys answer to E (PolicySigned). Then
// it extends the highest PCR of the selection, so that the state is no longer the
// approved one, and neither the gate nor any secret opens before the next reset. The
// identity key and the attestation key have no authorization but PolicyAuthorize by the
// gate key; each use of them takes a fresh proof by E. So another process, another user,
// or a machine that the TPM is relayed to has nothing: before the reset for want of E, and
// after it because E counts in its own boot only. Between the reset and Claim nothing but
// measured code may run; after it anybody may have the TPM.
//
// The attestation key has one more way, for enrolment in a state that is not approved
// yet: a key of the process that ran Init, in that boot.
//
// # Sealing
//
// A secret is encrypted under a fresh AES-256 key (package statedir), and the
// key is sealed under the storage root key. Its policy is that of an approval, then
// PolicyNV (the counter is not above b). The current epoch's secret has the counter's
// value v for b, that of the next epoch v+1: so both open until Advance, which
// increments the counter to v+1. That one command is the commit, and it erases
// all that was sealed under v, wherever copies are. Nothing needs to be open for it.
//
// # Hierarchies
//
// Init disables TPM2_Clear and gives the owner, endorsement and lockout hierarchies an
// authorization at random, those that have none, and writes it to HierarchiesFile, which
// operators take away. No later use of the keystore needs it, so others who reach the TPM
// can neither evict keys nor undefine or define counters nor take the hierarchies. A quote
// uses the endorsement hierarchy by a policy (keystore.TimePolicy). Only the platform
// hierarchy can clear the TPM, which firmware keeps to itself. A software TPM's launcher
// has to do what firmware does (DisablePlatform).
//
// # How the device is used
//
// A software TPM serves one connection at a time, so each operation connects,
// does its work, flushes what it loaded and disconnects; other processes get
// their turn in between. Sessions that carry secrets are salted with the storage root
// key and encrypt the parameters. Objects do not take part in the dictionary-attack
// lockout.
//
// # What it does not promise
//
// Who runs code in an approved boot state before the replica claims it can do what the replica
// does. In a claimed boot, who reads the replica's memory has E, and the use of the keys until the
// reset. A session that proved its policy before Advance may still unseal after it, until the TPM
// is reset. Who reaches the TPM can extend its PCRs, which costs the replica this boot, and gives
// him nothing. Who can increment the counter can erase (not read). A software TPM's state is a
// file, and can be rolled back with its counters.
package tpm
