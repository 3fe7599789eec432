// Package transport carries frames and calls between replicas, and calls from clients, over mutual
// TLS 1.3.
//
// Each replica dials each of its peers twice: one connection carries its frames in order, another
// its calls. So a frame is attributed to the replica that dialled; packages above rely on that for
// votes. Both kinds, and the calls of clients, arrive at one port and are told apart by ALPN in the
// TLS handshake.
//
// Calls are gRPC. Frames are not: behind the same handshake each stands behind its length, since
// that costs two goroutine switches less at each end. Measured beside a gRPC stream on one machine,
// it took a third less processor time for streams of votes, and a sixth less for blocks.
//
// # Identities
//
// A replica authenticates with a [Credential]: its Ed25519 epoch key in an X.509 leaf that its
// identity key (ECDSA P-256, which may live in a TPM) has issued with one signature. The leaf names
// cluster, replica, epoch and the block that the epoch builds on, in the URI
// reseal://CLUSTER/replica/ID/epoch/EPOCH/BASE. Peers pin the identity's public key; there is no
// certification authority. A good credential tells that the identity key has signed it at some
// time, no more, since its dates are what the signer wrote: whether its key counts now is for
// [Config].Admit to say. Clients connect without a certificate and may call only what is registered
// for them by [Transport.HandleClient]. They know no epoch; where the answer is not proven otherwise
// they use [Client.CallVouched], which has the identity key answer a nonce.
//
// # Delivery
//
// [Transport.Send] and [Transport.Broadcast] never block. Each peer has a queue bounded in bytes;
// when it is full, the oldest frames are dropped and counted, and a slow peer never holds up
// another. Frames are lost when a connection breaks: what matters must be said again. Frames that
// wait together travel together; none waits for another.
//
// # What it does not promise
//
// Frames are not acknowledged. An answer to a call is attributed to the identity that was dialled,
// not to its epoch key.
//
// # Clients
//
// Whoever connects without a certificate is a stranger: the number of such connections, what their
// calls hold in memory and for how long are bounded, and one that is idle makes room for one that
// comes (docs/limits.md). Peers are never among them. What is computed for callers takes turns: see
// [Turn].
package transport
