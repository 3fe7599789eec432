// Package bfttest tests a replicated application on simulated Byzantine clusters, in milliseconds:
// the real consensus core in virtual time, with f Byzantine replicas, twins among them, crashes,
// lost disks, partitions, delays, clocks that go wrong, handoffs, and replicas that catch up by
// snapshot.
//
// An application that is not deterministic, that mixes up blocks, or whose state does not survive a
// snapshot, is found by a seed; the same seed finds it again.
package bfttest
