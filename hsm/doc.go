// Package hsm keeps a keystore in a PKCS#11 token: a hardware security module,
// or SoftHSM.
//
// # What is where
//
// The token holds, under a name ("reseal" unless the URI says object=NAME):
//
//	NAME-identity    ECDSA P-256 key pair, made in the token
//	NAME-epoch       AES-256 keys, made in the token, one for each sealing
//
// The id (CKA_ID) of a sealing's key is its epoch, its number among the sealings of
// that epoch, and 128 random bits. The directory holds the sealed secrets: each under
// a fresh key (package statedir) that the sealing's key encrypts with AES-GCM, or, on a
// token that has no working AES-GCM, wraps with AES key wrap. The id is a part of the
// envelope, and authenticated by it. Which of the two a token can is found out by
// trying whenever the keystore is opened, so that no file decides it.
//
// # Nothing is trusted for its name
//
// Somebody who had the PIN for a moment may have left keys of known value under any
// label and id, and somebody who has the disk may have changed any file. So a secret is
// sealed only under a key that the token makes for this sealing, and whenever a key is
// used the token is asked for its class, type, length, label, CKA_LOCAL,
// NEVER_EXTRACTABLE, ALWAYS_SENSITIVE, SENSITIVE, EXTRACTABLE and what it may be used
// for, and, where it has them, MODIFIABLE, COPYABLE, WRAP_WITH_TRUSTED and DESTROYABLE. The identity
// is the key of its name that signs, and every signature is verified before it is
// returned. Objects with the names of the keystore that it did not make are destroyed,
// logged, and told of in Status. The rules are in one file, rules.go.
//
// # The life of a key
//
// Seal makes a key, writes the envelope, and then destroys the key of the sealing that
// it replaces. Advance writes down the new epoch, signed by the identity, and destroys
// the keys of earlier epochs, and those that no envelope names. What was sealed under
// them cannot be opened again, from whatever copy of the disk. Until then the secrets
// of both epochs open. Open finishes what was interrupted, before anything else; as the
// directory may be an old copy, it leaves keys that are newer than those it knows.
//
// # How the token is used
//
// Sessions come from a pool and serve concurrent callers, who wait for each other when
// the token gives no more. When the token loses them, vanishes or was initialised anew,
// it is found again by its label or serial number (never by its slot, which changes) and
// logged into, once per operation. A wrong PIN is never tried twice, also not by the
// next process: the directory keeps a salted scrypt hash of it. None is tried when the
// token says that it would be the last.
//
// # What it does not promise
//
// A PKCS#11 token attests nothing about the machine: whoever has the PIN and runs code
// there can unseal as the replica does. That a key is what the token says it is, and
// that a destroyed one is gone, is the token's word; SoftHSM only unlinks a file. Some
// tokens let who has the PIN copy keys that they call never extractable: that is tried,
// and Status says so. An envelope that somebody made through the token while he had the
// PIN opens: whether the secret of a later epoch is the replica's own is for its owner to
// know.
package hsm
