// Package store keeps on disk what a replica must not forget: its votes, the blocks and
// certificates it relies on, which blocks are final, and snapshots of the state. It is a Pebble
// database and a directory of snapshot files.
//
// Writes go through a [Batch]. Commits that sync share the disk's sync when several goroutines
// commit at once. What is read is validated: a damaged record is an error that says what to do.
//
// # Layout
//
// A store's directory holds the marker file (format and cluster), a lock, the database in db/ and
// the snapshots. In the database, integers being big-endian so that keys sort by height or view:
//
//	b height digest           a block; final blocks lie in the order in which they are read
//	i digest                  a block's height
//	o height digest           a block that is not known to be final
//	f height                  the final block: digest, view
//	c kind epoch view block   a certificate's signature
//	v epoch view kind block   an own vote: its First flag and partial signature
//	m name                    other values
//
// # What it does not promise
//
// It does not verify signatures: a replica checks what it restores as far as it relies on it. After
// a full or failed disk the store refuses all further writes, and the process must end; a restart
// finds what was synced.
package store
