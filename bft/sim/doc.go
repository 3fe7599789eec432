// Package sim runs clusters of the real core in virtual time, seeded, with Byzantine replicas and
// faults, and checks the protocol's promises from outside.
//
// A run has two phases. In the first everything is allowed that safety must bear: any number of
// machines down, partitions, loss, delay, clocks that go wrong, and f Byzantine replicas. In the
// second the faults stop, but f + c replicas may stay Byzantine, down or without a share; now every
// operation must be executed everywhere within a bound of virtual time, and then of two turns in a
// row of every correct leader that is up one must bring a final block.
//
// The checks count in plain integers and call none of the core's predicates: agreement, no gaps,
// only proposed blocks, no two certificates that contradict, finality never undone, equal states,
// exactly-once execution, no false accusation, bounded memory, no vote of an old epoch counted. A
// run is a function of its seed and options: each is run twice, and must give the same hash.
//
// # What it does not promise
//
// The certificate scheme is a checksum: what cryptography is worth is tested in package threshold.
// Machines are simulated down to the order in which writes become durable, no further.
package sim
