// Package curve is the arithmetic under package threshold: scalars, points and pairings of
// BLS12-381, computed by supranational/blst.
//
// It adds to blst's Go binding what that leaves out: scalars in Montgomery form, loops over many
// scalars in one call, multi-scalar multiplication without goroutines and without garbage, and
// pairings against points whose line functions are computed once.
//
// Constant time: every function that takes an Fr and returns an Fr or a multiple of a point
// (Commit, Mult, Sign) runs in time independent of the scalars' values; intermediate copies on the
// C stack are wiped. MSM, Sum and Interpolation are variable-time and take public scalars only.
//
// Errors of use (mismatched lengths) panic: callers have validated by then, and nothing from outside
// reaches here undecoded.
package curve
