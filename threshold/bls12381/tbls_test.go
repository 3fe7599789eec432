package bls12381_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.dedis.ch/kyber/v3/share"
	"go.dedis.ch/kyber/v3/sign/tbls"
	"pgregory.net/rapid"

	"github.com/reseal-bft/reseal/threshold"
)

// TestCombineAgainstKyber compares the group's signature with kyber's tbls, bit by bit, over random
// thresholds, signers and messages, and kyber's recovery of the secret with what was shared.
func TestCombineAgainstKyber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 7).Draw(t, "n")
		q := rapid.IntRange(1, n).Draw(t, "q")
		msg := rapid.SliceOf(rapid.Byte()).Draw(t, "message")
		signers := rapid.Permutation(indices(n)).Draw(t, "signers")[:q]
		poly := share.NewPriPoly(suite.G2(), q, nil, suite.RandomStream())
		public := poly.Commit(nil)
		sharing := sharingOf(t, threshold.Params{N: n, T: q}, public)

		var theirs [][]byte
		var ours []threshold.PartialSignature
		var shares []*share.PriShare
		for _, i := range signers {
			private := poly.Eval(i)
			shares = append(shares, private)
			sig, err := tbls.Sign(suite, private, msg)
			require.NoError(t, err)
			theirs = append(theirs, sig)
			ours = append(ours, threshold.PartialSignature{Index: i + 1, Signature: threshold.Signature(sig[2:])})
		}
		want, err := tbls.Recover(suite, public, msg, theirs, q, n)
		require.NoError(t, err)
		got, bad, err := sharing.Combine(msg, ours)
		require.NoError(t, err)
		require.Empty(t, bad)
		require.Equal(t, want, got[:])
		secret, err := share.RecoverSecret(suite.G2(), shares, q, n)
		require.NoError(t, err)
		require.True(t, secret.Equal(poly.Secret()))
	})
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}
