// Package request is what clients send and what they get back.
//
// A [Request] is one signed envelope of many operations, so that the cost of a signature is spread. It travels, is stored and is
// ordered as the bytes that arrived, and is hashed once. A block's payload is a list of requests.
//
// A [Reply] proves itself: with nothing but the cluster's id and the group public key a client checks the certificate of a header (48
// bytes), the state root that the header binds, the Merkle path from there to the client's session, and the results. A [ReadReply]
// proves in the same way a read from one replica.
//
// # Exactly once
//
// A client numbers its requests from 1, in rising order, and may have [Window] of them outstanding. Its session is a
// row of Window slots; request s belongs to slot s mod Window and is executed exactly if s exceeds the last number that the slot
// has seen. So a request is executed at most once however often it is sent, and the slot's [Record] proves the outcome
// until the slot is used again.
//
// # Encodings
//
// All are canonical: what parses re-encodes to the same bytes. Integers are big-endian; parts of varying length carry their length in
// three bytes. Everything has a limit (see package bft), and nothing that arrives can panic.
//
// # What it does not promise
//
// A request is not secret from the replicas. A client key that is used by two processes at once loses requests: each passes the other's slots.
package request
