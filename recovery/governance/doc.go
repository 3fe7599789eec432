// Package governance is the part of the replicated state by which a cluster governs and heals
// itself: who is a member, which boot states are admitted, whose turn it is to be rebooted, who
// proved to have come up clean, and which dealings of the group key are combined into the next
// epoch's shares.
//
// [State] implements the seam of the replica around the consensus core. It is pure and
// deterministic: final blocks go in, and everything that it decides follows from their operations
// and their time. It does no I/O, keeps no secret, and has no clock. What acts on its decisions
// (reboots, quotes, deals, seals) reads a [View].
//
// An epoch goes through the phases of [Phase]: a round opens, due replicas show evidence, which a
// policy judges; then certified dealings are ordered; then the epoch ends. docs/recovery.md is the
// specification, with the reason why each step is safe.
//
// # Invariants
//
//   - A replica is given a share of the next epoch only if it was not due, or attested in this
//     epoch, and was not quarantined when the dealing began.
//   - An epoch ends only with a quorum of certified dealings, of one round, that combine into the
//     same group key, dealt to at least a quorum of receivers. Otherwise the epoch in force stays
//     in force.
//   - No phase is without an end: each has a deadline in block time, or waits for an order that is
//     always accepted. Nothing that an attempt leaves behind hinders the next.
//   - Each round has its own number, and what was made for one counts in no other.
//   - What anybody can submit in a replica's name is never held against that replica.
//   - The same blocks give the same state, and the same state the same bytes.
package governance
