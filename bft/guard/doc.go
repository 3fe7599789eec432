// Package guard is the last check before a key signs a vote: a table of what was signed, and a
// refusal of whatever contradicts it. It stands next to the key, knows nothing of the protocol's
// state, and shares no code with the core: a bug there cannot make a replica contradict itself.
//
// # What it refuses
//
//   - a vote below its floor, or of another epoch than the first one it saw;
//   - two different first votes in a view;
//   - a finalize vote where anything but the first notarize vote for the same block was signed;
//   - any vote in a view after a finalize vote in it;
//   - more than four different notarize votes in a view.
//
// The same vote again is allowed: signing it says nothing new. Several fallback notarize votes in a
// view are allowed, the protocol needs them (docs/protocol.md).
//
// # What it does not promise
//
// The table is in memory. Whoever signs must have made the vote durable first, and hands the stored
// votes to Restore after a restart.
package guard
