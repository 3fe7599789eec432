// Package kv is the built-in replicated service: a key-value store whose state is a Merkle tree, so that every answer carries its
// proof. It implements bft.Application, and is small enough to serve as the example for others.
//
// Operations are made by [Put], [Get], [Delete] and [CompareAndSwap], and go into a request; what comes back for each is read by
// [ParseResult]. A Get that is ordered like this is linearizable. A query (the key itself) is answered by one replica with a proof, which
// [VerifyQuery] checks against a certified root.
//
// The leaf of a key is SHA-256("reseal/v1/kv\0" || key), its value the key and the value: so a snapshot lists the keys.
//
// # What it does not promise
//
// All data is in memory. There are no scans, transactions over several keys, or access control: each client may write each key.
package kv
