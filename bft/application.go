package bft

import (
	"crypto/ed25519"
	"io"
)

// Operation is one operation of a client, authenticated and ordered.
type Operation struct {
	// Client is the Ed25519 key that signed the request. The operation must not keep or change it,
	// nor Data.
	Client ed25519.PublicKey
	// Data is the operation in the application's own encoding.
	Data []byte
}

// Application is the service that is replicated. The replica calls it from one goroutine. Apply
// must be deterministic: the same operations from the same state give the same results and the same
// state on every machine; so no clock (the block's time is given), no randomness, no iteration over
// maps.
type Application interface {
	// Apply executes the operations of one final block, in order, and adds a result for each to
	// results. What is wrong with an operation is said in its result. A client chooses how many
	// large results a block asks for: so each is added as it is made, and none is made that results
	// has no room for. An error means that this machine cannot go on, because its disk fails or
	// holds what was not written there: the replica stops with it, and says no more.
	Apply(height Height, time int64, operations []Operation, results *Results) error
	// State returns the state after the last Apply or Restore. It is immutable and may be read
	// concurrently, also while later blocks are applied; the replica holds the last few.
	State() State
	// Restore replaces the state by what [State.WriteTo] wrote. The replica checks the root
	// afterwards: the stream need not be trusted.
	Restore(r io.Reader) error
}

// Keeper is an [Application] that has its state on a disk of its own. A start then need not restore
// it: the replica goes on from a state that was kept, and reads no more of its snapshot than the
// root.
type Keeper interface {
	// Keep begins to keep the present state, beside everything else: after a crash it is there in
	// whole or not at all, and so is the one that was kept before it. It is false while that cannot
	// begin without waiting; the replica asks again after the next block.
	Keep() bool
	// Resume makes the state with a root the present one if it was kept. The content need not have
	// been read: what turns out not to be what was kept fails as [Application] says, and is then
	// not found at the next start.
	Resume(root Digest) bool
}

// State is an immutable state of an [Application].
type State interface {
	// Root is a digest that binds the whole state.
	Root() Digest
	// Query answers a read, with a proof that a client can check against Root.
	Query(query []byte) (answer, proof []byte, err error)
	// WriteTo writes a snapshot.
	io.WriterTo
}

// Limits on what travels. A request that breaks one is refused at the gateway.
const (
	MaxOperation  = 1 << 20 // bytes of one operation
	MaxOperations = 1 << 12 // operations of one request
	MaxRequest    = 2 << 20 // bytes of one request
	// MaxPayload bounds a block's payload, in bytes: one request of the largest size.
	MaxPayload = MaxRequest + 4<<10
	MaxMessage = MaxPayload + 4<<10 // bytes of one message of the protocol between replicas
	MaxReply   = 10 << 20           // bytes of an answer to a client or to a call of a replica
)
