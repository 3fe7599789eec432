//go:build !goexperiment.runtimesecret

package statedir

// erasing calls f. Go erases nothing behind it unless it is built with
// GOEXPERIMENT=runtimesecret.
func erasing(f func()) { f() }
