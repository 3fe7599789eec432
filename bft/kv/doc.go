// Package kv is the built-in replicated service: a key-value store whose state is a Merkle tree, so
// that every answer carries its proof. It implements bft.Application, and is small enough to serve
// as the example for others.
//
// Operations are made by [Put], [Get], [Delete] and [CompareAndSwap], and go into a request; what
// comes back for each is read by [ParseResult]. A Get that is ordered like this is linearizable. A
// query (the key itself) is answered by one replica with a proof, which [VerifyQuery] checks
// against a certified root.
//
// The leaf of a key is SHA-256("reseal/v1/kv\0" || key), its value the key and the value: so a
// snapshot lists the keys.
//
// # Where the data is
//
// [New] makes a store that is all in memory. One that [Open] makes keeps the changes of the last
// blocks in memory and everything else in a Pebble database: the inner nodes of the tree by their
// place in it, and the values by their keys. When the changes exceed a bound in bytes they are
// written there, beside the service, which waits only when twice as much has come together. States
// are as cheap as ever: each refers to the nodes that were in memory then, and to a snapshot of the
// database, which Pebble keeps for as long as somebody has the state.
//
// The database of a process ends with it. What [Store.Keep] keeps stays: the tables that the database
// had, by hard links, in a directory that is named by the state's root. [Store.Resume] goes on from
// that without reading it; otherwise the state is restored from the replica's snapshot and log,
// which are proven. A state on disk is no more believed than a peer: every node and every value that
// is read is compared with the hash that the node above it has, up to the root, which is in memory.
// Something else, a file that cannot be read and a full disk end the store: it executes and answers
// nothing more, and [Store.Apply] says why; after damage what was kept is removed too, so that the
// next start restores a snapshot.
//
// # What it does not promise
//
// A start without a state that was kept takes as long as it takes to read the snapshot. There are no
// scans, transactions over several keys, or access control: each client may write each key. Where
// the database meets a directory that cannot be synced in the background, it panics (Pebble 2.1).
package kv
