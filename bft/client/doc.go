// Package client submits requests to a cluster and reads from it, believing no replica: whatever it
// returns was verified under the group public key.
//
// A [Client] sends a request to one replica and accepts the first reply that proves itself. When
// the replica is silent for a moment, or fails, it asks the next one as well; the request is
// executed once however many replicas are asked. The replica that answered is asked first the next
// time.
//
// # Sessions
//
// A client key has [request.Window] slots, so as many calls of [Client.Submit] may be under way at
// once; more wait. Each request is bound to a height that was proven to be final a moment before:
// by the last reply, or else by a replica that is asked for it first. It is executed at most once,
// and only while the session lasts that was begun there: one that could not be ordered for long is
// refused, and Submit goes on until its context ends without knowing whether it was executed. A key
// can be used again by a later process; two processes must not use one key at once.
//
// A replica that is busy says when to come back, and is left alone for so long. At most 8 MiB of
// requests are under way at a time.
//
// # Reads
//
// [Client.Read] is linearizable and leaves nothing behind: it asks a quorum how far the state is
// proven, and then one replica. [Client.Query] asks one replica and returns the answer with a
// certified state of stated age; within one Client it never goes back behind what the client has
// written or read before. An operation that reads, submitted like any other, is linearizable too,
// and costs what a write does; it is for applications that read and write in one.
//
// A cluster all of whose stores were put back to an earlier time proves what was true then. A
// client that has been shown a later state refuses that with a [WentBackError]; one that keeps
// [Client.Seen] and gives it to the next (Config.Seen) notices it across processes too.
package client
