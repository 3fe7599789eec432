// Package wholesim runs clusters of whole nodes in virtual time: recovery.Node with all that is in
// it, the real replica, store, catch-up, snapshots, pool, sessions, recovery rounds and handoffs,
// under faults and Byzantine replicas that a seed draws, and checks the promises from outside.
// Package bft/sim does the same for the core alone, a hundred times faster; what is around the core
// there is a model, here it is the thing itself.
//
// # What is simulated
//
// A machine has a disk in memory that can be cut at any sync, fill up, be put back to what it was,
// and lose bits and files (Pebble's own file system for such tests), a device that seals secrets and
// quotes its boots as a TPM does, a wall clock that may be wrong, and one process after the other.
// The network is package transport's in what it promises and in how it fails: a connection of frames
// from each replica to each other, calls beside it, credentials checked by the same code. Votes are
// checksums in builds with the tag checksums (see bft/scheme): they keep the threshold's semantics,
// and cost nothing. Everything else is real: dealings, shares, acknowledgements, epoch keys,
// signatures of blocks, requests, evidence and orders.
//
// # Who judges
//
// Beside each correct core stands a monitor (bft/monitor), which asks of all that it sends whether
// what it had received and stored justifies it. What all of them execute, sign and acknowledge is
// compared, and after the faults there are goals that must be reached in time.
//
// # Time
//
// Production code has no seam for time, but for the wall clock: a seed runs in a bubble of
// testing/synctest, whose clock jumps to the next timer when all goroutines wait for each other. So
// hours take seconds, and timers, tickers and deadlines are the real ones. The price: synctest is
// offered to tests only, so a seed is a test. The command builds this package's test binary, in the
// source tree, and runs one process for each seed, which also keeps a crash or a hang of one seed
// from the others.
//
// # The same again
//
// A run is meant to be a function of its seed: [Campaign] plays the first one twice, compares the
// hashes of all that replicas sent and logged, and when, and says whether they agree. They did
// without faults; with faults they once did not, in processes with different environments. A
// suspect is the order of maps whose keys are pointers (a context's children), which depends on
// where things lie in memory: so also on whether there is a trace. The seed fixes the plan (which
// faults, when, for how long), delays, clients, adversaries and cryptographic randomness. That
// goroutines interleave in the same way, that maps are walked in the same order, and that a select
// takes the same of several ready cases, is the runtime's doing: [Build] builds the simulator with
// three lines of it changed (go build -overlay, see patches), and a process has one processor, and
// collects garbage at moments of virtual time. Another Go release, or another build of the project,
// gives other runs. The tests of this package that run in the test's own binary have Go's own
// runtime, and are not the same again.
//
// # What it does not promise
//
// Goroutines that wait for a mutex keep the clock from jumping, so nothing may sleep while it holds
// one. There are no real sockets, files or devices in it: those are the business of package
// transport, of the keystores, and of the demonstration.
package wholesim
