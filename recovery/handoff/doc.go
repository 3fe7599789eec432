// Package handoff carries the group key from epoch to epoch, for one replica: the [Party] deals,
// receives and completes what the log asks for, and the [Keeper] holds the secrets that come of it,
// and ends them.
//
// # Invariants
//
//   - A secret ends with a certified epoch, by whatever path the replica learns of it, never with a
//     success of the replica itself. The one exception, the share of the epoch before, ends with
//     the first block that the new epoch has made final.
//   - What is attested was made in this boot, and what is stored after the boot is encrypted under
//     a key made in it. What is found sealed from an earlier boot counts when the log names it.
//   - A part or a point is given to the key that the log names for its receiver, and to nobody else.
//   - A part without its column is not acknowledged. So of a certified dealing f + 1 correct
//     replicas that are up can help every receiver, whatever the dealer does.
//   - Before the next epoch begins, a crash at any point leaves the secret of the old one, and
//     afterwards both, until the new one has signed.
//
// # What it does not promise
//
// A replica that is cut off keeps what it holds until it hears of the next epoch: whoever takes it
// in that time has taken it in the old one. docs/threat-model.md says what that means. Go may have
// copied a secret before it was wiped.
package handoff
