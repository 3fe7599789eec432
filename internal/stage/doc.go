// Package stage runs a cluster of operating-system processes on this machine, each with a keystore
// of its own, under verified load: what the demonstration and the drills play on. A [Machine] can
// be switched off and on, and its disk copied; [Stage.Control] sees what f + 1 replicas agree on,
// and gives orders; the [Load] keeps account of every acknowledged write.
//
// Nothing that a stage started is left when [Stage.Close] returns, whatever way a play ends.
package stage
