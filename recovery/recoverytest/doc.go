// Package recoverytest is an intruder who is in up to f replicas of a cluster at a time, for the tests of whoever embeds Reseal.
//
// [Run] starts a cluster of real nodes, with their stores and keystores and connections, and plays a [Plan] that is drawn from a seed. The intruder
// takes everything of the replica that it is in: memory, disk, the use of the device and of the identity key. It plants what it likes (sealed secrets
// of its own, credentials made ahead), and leaves when the replica reboots in a round in which it is due. Other replicas are quarantined, miss their deadlines,
// crash in the middle of a handoff, or come back late. In every epoch the judge then tries, with all that was ever taken:
//
//   - the group secret, and any share of an epoch in which its replica was clean. What was taken are values of unknown polynomials, so whether they determine a
//     secret is a matter of linear algebra ([System]): no mixture of shares, rows, columns and points, of whatever epochs, is left out;
//   - to be admitted, in a later epoch, under a credential or a key that was taken or made ahead; to be given a part of a handoff;
//   - to read the parts on a disk that forgets nothing, under every key that was ever in reach.
//
// A [Report] without findings says that all of it failed. With the build tag "mutants" the tests plant a fault that the judge must find; more are to come.
//
// The kit reads a node's memory by reflection, under the node's own locks: it finds what the node holds whatever the fields are called.
package recoverytest
