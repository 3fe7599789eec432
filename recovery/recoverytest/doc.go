// Package recoverytest is an intruder who is in up to f replicas of a cluster at a time, for the
// tests of whoever embeds Reseal.
//
// [Run] starts a cluster of real nodes, with their stores and keystores and connections, and plays
// a [Plan] that is drawn from a seed, on a [Fleet] of devices: package devices has passphrase
// files, SoftHSM tokens, and software TPMs. The intruder takes everything of the replicas that it
// is in: memory, disk, the use of the device and of the identity key. All disks it copies for ever,
// those of clean replicas too. It plants what it likes (sealed secrets of its own, credentials made
// ahead, keys in the token, files in the keystore's directory, a share of no worth), sets clocks,
// cuts the network, and leaves when the replica reboots in a round in which it is due. Other
// replicas are quarantined, miss their deadlines, crash in the middle of a handoff, or come back
// late; or one is cut off for several epochs, and is then asked for all that it gives under the keys
// that its log names, which the intruder has found since, in one after the other. In every epoch the
// judge then tries, with all that was ever taken:
//
//   - the group secret, and any share of an epoch in which its replica was clean. What was taken
//     are values of unknown polynomials, so whether they determine a secret is a matter of linear
//     algebra ([System]): no mixture of shares, rows, columns and points, of whatever epochs, is
//     left out;
//   - to be admitted, in a later epoch, under a credential or a key that was taken or made ahead;
//     to be given a part or a point of a handoff;
//   - to read the parts on a disk that forgets nothing, under every key that was ever in reach;
//   - to have a device open a copy, or sign: as another process in the same boot, as another user
//     of the TPM, in a boot that nobody approved, in one that was revoked, by an approving key of
//     its own, without the token under keys that it planted there;
//   - whether a replica signs by what was planted.
//
// A [Report] without findings says that all of it failed. With the build tag "mutants" the tests
// plant again the faults by which it once did not (devices.Faults), and the judge finds each.
//
// The command to play seeds, and to play one again, is
//
//	make intruder SEEDS=1000 SEED=1 KEYSTORE=file|softhsm|swtpm
//
// On two cores about 5000 seeds an hour on files (with votes as checksums, tag "checksums", which
// halves the cost), 2400 on SoftHSM, 650 on software TPMs. A seed spends its time on dealings and
// handshakes, and on waiting for rounds: so many are played at once. One that came to no end among
// many is played again, alone: what is judged is what the intruder has, and not the machine.
//
// # What it does not promise
//
// The seed fixes the plan, not the interleaving of what real nodes do. What protects nothing is not
// tried: a copy of a file keystore opens for who had its passphrase. The kit reads a node's memory
// by reflection, under the node's own locks: it finds what the node holds whatever the fields are
// called.
package recoverytest
