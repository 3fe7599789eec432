// Package curve is the arithmetic under package threshold: scalars, points and pairings of
// BLS12-381, computed by supranational/blst.
//
// It adds to blst's Go binding what that leaves out: scalars in Montgomery form, loops over many
// scalars in one call, multi-scalar multiplication without goroutines and without garbage, and
// pairings against points whose line functions are computed once.
//
// Constant time: every function that takes an Fr and returns an Fr or a multiple of a point
// (Commit, Mult, Sign) runs in time independent of the scalars' values; what it leaves in working memory
// and on the C stack, blst's part of it included, is wiped. MSM, Sum and Interpolation are variable-time
// and take public scalars only.
//
// Completeness: every function is right for every scalar, infinity, equal and opposite points, for
// whoever chooses them may be an adversary. Where a formula of blst's has exceptions, the complete
// one is used, or a comment says why they cannot occur. Functions of points say whether these must
// lie in the subgroup; where they need not, sums are right up to points of order three, which
// clearing the cofactor removes.
//
// Errors of use (mismatched lengths) panic: callers have validated by then, and nothing from outside
// reaches here undecoded.
package curve
