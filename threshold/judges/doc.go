// Package judges tests package threshold against implementations that are none of ours: gnark-crypto
// (a pure Go pairing library), circl (another, with BLS signatures) and Wycheproof's vectors. It is a
// module of its own so that whoever imports package threshold does not get these. It has tests only.
package judges
