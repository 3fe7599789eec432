// Package recovery is a whole replica that heals: [Start] gives a [Node], which runs consensus and
// does its part in recovery rounds. It attests after a reboot, deals and receives shares, and hands
// over from epoch to epoch.
//
// Its rooms, from the bottom: attest judges evidence of a clean boot; governance decides in the log
// who is due and who gets a share; handoff carries the group key from epoch to epoch, and keeps and
// ends all secrets. docs/recovery.md is the specification, with the reason why each step is safe.
package recovery
