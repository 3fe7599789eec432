//go:build !unix

package statedir

// noFollow has no meaning here.
const noFollow = 0
