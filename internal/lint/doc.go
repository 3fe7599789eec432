// Package lint holds the rules of the source tree as tests: which rooms may import which, what the
// pure consensus core must not touch, and what no file may contain. It has no code of its own.
package lint
