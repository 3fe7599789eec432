// Package hsm keeps a keystore in a PKCS#11 token: a hardware security module,
// or SoftHSM.
//
// # What is where
//
// The token holds, under a name ("reseal" unless the URI says object=NAME):
//
//	NAME-identity    ECDSA P-256 key pair, made in the token
//	NAME-epoch-N     AES-256 key of epoch N, made in the token
//
// All are private, sensitive and never extractable; that is read back and
// checked. The directory holds the sealed secrets: each under a fresh key
// (package statedir) that the epoch's key encrypts with AES-GCM, or, on a token
// that has no working AES-GCM, wraps with AES key wrap. Which one is found out
// at Init, by trying.
//
// Advance writes down the new epoch, and then destroys the keys of earlier
// epochs in the token. What was sealed under them cannot be opened again, from
// whatever copy of the disk. Open finishes an Advance that was interrupted.
//
// # How the token is used
//
// Sessions come from a pool and serve concurrent callers. When the token loses
// them, vanishes or was initialised anew, it is found again by its label or
// serial number (never by its slot, which changes) and logged into, once per
// operation. A wrong PIN is never tried twice, and none is tried when the token
// says that it would be the last.
//
// # What it does not promise
//
// A PKCS#11 token attests nothing about the machine: whoever has the PIN and
// runs code there can unseal as the replica does. That a destroyed key is gone
// is the token's word; SoftHSM only unlinks a file.
package hsm
