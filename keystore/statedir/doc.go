// Package statedir keeps the files of a keystore: small, written whole, and
// durable when a call returns. It is for the authors of backends.
//
// Each secret is sealed in an envelope: AES-256-GCM under a fresh key that the
// device wraps, with the kind of device, the epoch and the wrapped key as
// associated data. So a device needs to protect 32 bytes only, whatever the
// size of the secret, and an envelope cannot pass for that of another epoch.
//
// What a crash can leave behind is a file with the suffix ".tmp", which the
// next write replaces; the files themselves are either old or new.
package statedir
