// Package wire holds the canonical encodings that evidence and the replicated state have in common:
// one encoding for each value, so that what parses encodes to the same bytes again.
package wire
