//go:build !unix

package files

// noFollow and noWait have no meaning here.
const noFollow, noWait = 0, 0
