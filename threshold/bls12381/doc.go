// Package bls12381 is a pairing suite of go.dedis.ch/kyber/v3 over BLS12-381, computed by
// supranational/blst: kyber's share, bls and tbls run on it unchanged.
//
// G1 points hash (kyber's sign/bls asks for it) with the ciphersuite of package threshold, so kyber's
// signatures on this suite are the same bytes as those of package threshold. Points encode compressed,
// 48 bytes in G1 and 96 in G2, elements of GT in 576; decoding checks that they lie in their group.
// Scalars encode big-endian, decode only when canonical, are computed in constant time, and print as
// "[scalar]", so that kyber's PriShare.String shows no secret.
//
// As everywhere in kyber, giving a method a point or scalar of another suite is a bug of the caller
// and panics. Bytes from outside never do.
package bls12381
