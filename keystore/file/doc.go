// Package file keeps a keystore in files under a passphrase, for development
// and for machines without hardware that protects keys.
//
// The passphrase container (filippo.io/age, scrypt) holds an age identity; the
// identity key and the keys of the sealed secrets are encrypted to it. So the
// cost of the passphrase is paid once, when the keystore is opened.
//
// The files are treated as anybody's: what is not encrypted carries an
// authentication code under a key made from the container's, and a container that
// asks for more work than the options say is refused before the work is done. An
// envelope that is damaged, or of length zero, is a lost secret (keystore.Lost), no
// lost keystore.
//
// # What it does not promise
//
// Who has a copy of the directory and the passphrase has everything, for ever:
// Advance removes the files of earlier epochs after overwriting them, but
// neither reaches copies, nor what a file system or a flash disk keeps of old
// blocks. The keys are in the process's memory while it is open. There is no
// attestation. Status says so.
package file
