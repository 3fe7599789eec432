// Package replica runs the consensus core in the world: it is the replica around the pure state
// machine of package bft.
//
// It carries the core's effects out in the order persist, sign, send: votes and own proposals are
// on disk before anything that depends on them is said, and the guard beside the key refuses what
// contradicts them. Certificates are combined and verified beside the core, final blocks are
// executed beside it, and each of these answers the core through its inbox (epoch.go draws it).
// What peers and clients send is validated at one gateway (gateway.go).
//
// A client's reply is proven, not voted on: results are recorded in the replicated state, a later
// block's header carries the root of that state, and the block's notarization, 48 bytes under the
// group key, proves the header (ledger.go).
//
// Requests wait in a pool that shares blocks, and its own room, fairly in bytes (pool.go, pace.go).
// What clients give to this replica it hands to the leaders in turn, as calls beside the frames of
// votes and blocks, so that these wait behind nothing; each body goes to a peer once (handon.go).
//
// A replica that was away fetches the log, in order, from any one peer (catchup.go, log.go), or
// first a snapshot when it is far behind (transfer.go): it believes a piece of the log when a chain
// of headers leads from it to a certificate, and a snapshot when one proves its root; nothing is
// stored before. After a restart it believes its own disk no more than that (recover.go), and votes
// only if neither its mark beside the store nor f + 1 peers know of votes that the store has
// forgotten (mark.go, recall.go). What it serves to others takes a bounded share of its time
// (share.go). docs/protocol.md, "State transfer", has the rules and bounds.
//
// Epochs are begun and ended by the replicated state, through the interface [System]; package
// recovery implements it.
//
// # What it does not promise
//
// Blocks on the own disk above the snapshot are replayed if they make a valid chain; that the log
// as a whole was replaced by another is noticed only when the next certificate contradicts the
// state. A replica that finds its own state contradicted by a certificate stops voting and says so;
// it does not repair itself yet.
package replica
