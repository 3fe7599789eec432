// Package scheme has the two implementations of [bft.Scheme]: threshold signatures (48 bytes,
// whatever the size of the cluster), and lists of Ed25519 signatures, with which a cluster
// certifies its epoch 0, before it has a group key, and with which the benchmarks compare. What
// only has to verify under the group key uses [Verifier].
//
// A certificate of either kind says that a quorum signed, and never more: q partial signatures of
// the threshold scheme yield everybody's, see package threshold.
package scheme
