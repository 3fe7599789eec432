// Package merkle is an immutable authenticated map: keys are 32-byte hashes, values are bytes, and one digest, the root, binds
// the whole content. Every map stays readable while newer ones are made from it, since an update copies only the path it touches.
//
// The map is a binary tree over the bits of the keys, most significant bit first. A subtree without keys is empty and its hash is
// zero; a subtree with one key is that leaf, at whatever depth it stands; any other is an inner node. So the shape, and with it
// the root, depends on the content alone and not on its history. With SHA-256:
//
//	leaf  = H(0x00 || key || H(value))
//	inner = H(0x01 || left || right)
//
// A proof is the list of siblings on the way to a key. It ends in the key's leaf (membership), or in an empty subtree or the leaf
// of another key with the same leading bits (absence).
//
// # What it does not promise
//
// Keys must be hashes: a depth of some dozens of levels follows from their being spread evenly. Two keys that share k leading
// bits cost k levels (256 at most), which an adversary can only reach by grinding the hash.
package merkle
