// Package monitor asks of every message that a correct replica sends whether what it had received
// and stored justifies it. It stands beside one core, is shown every event that goes in and every
// effect that comes out, and counts for itself, in plain integers, from docs/protocol.md: it uses
// none of the core's rules, so that a bug in them is not a bug in the judge.
//
// A monitor says nothing of progress, but for what a replica owes at once: a certificate that ends
// a view goes to all. The rest is for who knows when the network is good.
package monitor
