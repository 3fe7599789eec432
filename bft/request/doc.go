// Package request is what clients send and what they get back.
//
// A [Request] is one signed envelope of many operations, so that the cost of a signature is spread.
// It travels, is stored and is ordered as the bytes that arrived, and is hashed once. A block's
// payload is a list of requests.
//
// A [Reply] proves itself: with nothing but the cluster's id and the group public key a client
// checks the certificate of a header (48 bytes), the state root that the header binds, the Merkle
// path from there to the client's session, and the results. A [ReadReply] proves in the same way a
// read from one replica.
//
// # Exactly once
//
// A client may have [Window] requests outstanding. Its session is a row of Window slots; each
// request belongs to one, and is numbered by [NextSequence]: bound to a height that the client
// knows to be final, and above the numbers that the slot has seen. It is executed exactly if it is
// above the last number that the slot has a [Record] of, is bound below the block that carries it,
// and the sessions of that height have not ended. Records are forgotten in the order of the blocks
// that made them, and nothing is executed from then on that is bound below such a block: so a
// request is executed at most once however often and late it is sent. The record proves the outcome
// until the slot is used again or the session ends. docs/protocol.md, "Sessions", has the rule.
//
// # Encodings
//
// All are canonical: what parses re-encodes to the same bytes. Integers are big-endian; parts of
// varying length carry their length in three bytes. Everything has a limit (see package bft), and
// nothing that arrives can panic.
//
// # What it does not promise
//
// A request is not secret from the replicas. A client key that is used by two processes at once
// loses requests: each passes the other's slots.
package request
