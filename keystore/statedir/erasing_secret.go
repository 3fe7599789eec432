//go:build goexperiment.runtimesecret

package statedir

import "runtime/secret"

// erasing calls f, and then erases the stack and registers that it used, and,
// once they are garbage, its allocations.
func erasing(f func()) { secret.Do(f) }
