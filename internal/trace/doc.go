// Package trace records what goes into the consensus core of a replica and what comes out, to a
// file for each life of the process, and has the recordings judged afterwards by [monitor.Monitor]:
// whether every message that the replica sent was justified by what it had received and stored.
//
// A trace holds headers and no payloads, and a hash of each partial signature in its place: it is
// of no use to who would vote in a replica's place.
package trace
