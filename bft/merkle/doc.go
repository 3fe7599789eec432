// Package merkle is an immutable authenticated map: keys are 32-byte hashes, values are bytes, and
// one digest, the root, binds the whole content. Every map stays readable while newer ones are made
// from it, since an update copies only the path it touches.
//
// The map is a tree over the digits of the keys, two bits each, the most significant first. A
// subtree without keys is empty and its hash is zero; a subtree with one key is that leaf, at
// whatever depth it stands; any other is an inner node with four children. So the shape, and with
// it the root, depends on the content alone and not on its history. With SHA-256:
//
//	leaf  = H(0x00 || key || H(value) || size of the value in four bytes)
//	inner = H(0x01 || child 0 || child 1 || child 2 || child 3)
//
// A proof is the list of siblings on the way to a key. It ends in the key's leaf (membership), or
// in an empty subtree or the leaf of another key with the same leading bits (absence).
//
// # What it does not promise
//
// Keys must be hashes: a depth of a dozen levels follows from their being spread evenly. Two keys
// that share k leading bits cost k/2 levels (128 at most), which an adversary can only reach by
// grinding the hash.
package merkle
