// Package bft is the consensus core of Reseal: a deterministic state machine of the Simplex family
// that replicates a log among n = 3f + 2c + 1 replicas, of which up to f are Byzantine and up to c
// more are down (crashed, slow, or being recovered) at the same time.
//
// The core is sans-IO. [Core.Step] is its only mutator: an [Event] goes in, [Effect] values come
// out, in the order in which they must be carried out. It has no goroutine, clock, socket, disk or
// randomness, and it does no cryptography: signing, combining and verifying are effects that are
// answered by events. The replica around it (package bft/replica) carries the effects out; the
// simulator (bft/sim) and the model checker run the same code.
//
// A reader's path: size.go (the one set of numbers), types.go (blocks, votes, certificates),
// rules.go (the rules of the protocol, each with the reason why it is safe), core.go (how events
// reach the rules), testdata (scenarios).
//
// # What it does not promise
//
// More than f Byzantine replicas can break safety. More than f + c replicas away stop progress
// until they return. Nothing is promised about the order of requests within a view of a Byzantine
// leader.
package bft
