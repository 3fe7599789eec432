// Package client submits requests to a cluster and reads from it, believing no replica: whatever it returns was verified under the
// group public key.
//
// A [Client] sends a request to one replica and accepts the first reply that proves itself. When the replica is silent for a moment, or
// fails, it asks the next one as well; the request is executed once however many replicas are asked. The replica that answered is asked first
// the next time.
//
// # Sessions
//
// A client key has [request.Window] slots, so as many calls of [Client.Submit] may be under way at once; more wait. The sequence
// numbers of a slot start at the time of day in microseconds, so that a key can be used again by a later process. Two processes must not use one key at once,
// and a clock that was set back makes the replicas pass over what is sent until it has caught up.
//
// # Reads
//
// [Client.Read] is linearizable and leaves nothing behind: it asks a quorum how far the state is proven, and then one replica. [Client.Query] asks one replica and
// returns the answer with a certified state of stated age; within one Client it never goes back behind what the client has written or read before. An operation
// that reads, submitted like any other, is linearizable too, and costs what a write does; it is for applications that read and write in one.
//
// A cluster all of whose stores were put back to an earlier time proves what was true then. A client that has been shown a later state refuses that with a
// [WentBackError]; one that keeps [Client.Seen] and gives it to the next (Config.Seen) notices it across processes too.
package client
