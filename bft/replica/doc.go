// Package replica runs the consensus core in the world: it is the replica around the pure state machine of package bft.
//
// It carries the core's effects out in the order persist, sign, send: votes and own proposals are on disk before anything that depends on
// them is said, and the guard beside the key refuses what contradicts them. Certificates are combined and verified beside the
// core, final blocks are executed beside it, and each of these answers the core through its inbox (epoch.go draws it). What peers and clients
// send is validated at one gateway (gateway.go).
//
// A client's reply is proven, not voted on: results are recorded in the replicated state, a later block's header carries the root of
// that state, and the block's notarization, 48 bytes under the group key, proves the header (ledger.go).
//
// A replica that was away fetches the log, in order, from any one peer (sync.go), or first a snapshot when it is far behind (snapshot.go): it believes a
// piece of the log when a certificate proves its last block, and a snapshot when a certificate proves its root. After a restart it believes a snapshot on its disk no more than that (recover.go).
//
// Epochs are begun and ended by the replicated state, through the interface [System]; package recovery implements it.
//
// # What it does not promise
//
// Blocks on the own disk above the snapshot are replayed if they link up; that the log as a whole was replaced is noticed only when the next
// certificate contradicts the state. A replica that finds its own state contradicted by a certificate stops voting and says so; it does not repair itself yet.
package replica
