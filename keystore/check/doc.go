// Package check tries on a device what keystores promise, attacks included, and
// reports what works, what does not, and what that means. It makes a keystore
// of its own beside those that are there, and leaves nothing behind.
package check
