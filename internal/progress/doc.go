// Package progress shows a person how a long command gets on: one line per event with the time
// since the start, and below them, when the output is a terminal, a bar that is redrawn in place.
// Elsewhere it prints the lines alone.
package progress
