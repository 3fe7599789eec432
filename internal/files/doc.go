// Package files opens and reads regular files, and is the one place that does: a lint test keeps it
// so. Whatever lies at a path may have been put there by a mistake, or by somebody else: opened as
// it is, a pipe makes a program wait for ever without a word, and a device may act, or never end.
package files
