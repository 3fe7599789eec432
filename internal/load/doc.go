// Package load asks a cluster for reads and writes, as many clients or at a rate, and measures what
// becomes of them.
//
// A [Generator] makes the operations and gives them to a [Store] for each client; what comes of
// each request it tells to those who watch: a [Meter] keeps latencies in HDR histograms, a
// [History] what porcupine judges. [Run] puts them together, for `reseal load`; the demonstration
// and the drills use the generator with an account of their own.
//
// With a rate, operations are due at random moments of that rate, whatever the cluster does, and
// latency is counted from the moment at which an operation was due: a cluster that stands still for
// a second is measured by all operations that were due in it, and not by those that happened to be
// under way.
package load
