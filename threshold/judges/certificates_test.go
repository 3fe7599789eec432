package judges

import (
	"crypto/rand"
	"testing"

	"github.com/cloudflare/circl/sign/bls"
	gnark "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/threshold"
	"github.com/reseal-bft/reseal/threshold/thresholdtest"
)

// cluster is a sharing and its shares, made by two dealers for 4 of 6.
func cluster(t *testing.T) (*threshold.Sharing, []*threshold.Share) {
	p := threshold.Params{N: 6, T: 4, F: 1}
	sharing, shares, err := thresholdtest.Sharing(p)
	require.NoError(t, err)
	return sharing, shares
}

// TestStandardLibrariesVerify: whoever has the 96 bytes of the group key and a standard BLS library
// verifies what the group signs. circl is such a library; with gnark it takes one pairing equation.
func TestStandardLibrariesVerify(t *testing.T) {
	sharing, shares := cluster(t)
	msg := []byte("block 17")
	var ps []threshold.PartialSignature
	for _, i := range []int{5, 0, 2, 3} {
		ps = append(ps, shares[i].Sign(msg))
	}
	sig, _, err := sharing.Combine(msg, ps)
	require.NoError(t, err)
	key := sharing.GroupKey().Bytes()

	require.True(t, circlVerifies(t, key, msg, sig[:]))
	require.True(t, gnarkVerifies(t, key, msg, sig[:]))
	require.False(t, circlVerifies(t, key, []byte("block 18"), sig[:]))
	require.False(t, gnarkVerifies(t, key, []byte("block 18"), sig[:]))
	for _, p := range ps {
		require.True(t, gnarkVerifies(t, sharing.ShareKey(p.Index).Bytes(), msg, p.Signature[:]))
	}
}

func circlVerifies(t *testing.T, key, msg, sig []byte) bool {
	var public bls.PublicKey[bls.KeyG2SigG1]
	require.NoError(t, public.UnmarshalBinary(key))
	return bls.Verify(&public, msg, sig)
}

func gnarkVerifies(t *testing.T, key, msg, sig []byte) bool {
	var public gnark.G2Affine
	_, err := public.SetBytes(key)
	require.NoError(t, err)
	var s gnark.G1Affine
	_, err = s.SetBytes(sig)
	require.NoError(t, err)
	h, err := gnark.HashToG1(msg, []byte(threshold.Ciphersuite))
	require.NoError(t, err)
	_, _, _, base := gnark.Generators()
	base.Neg(&base)
	ok, err := gnark.PairingCheck([]gnark.G1Affine{s, h}, []gnark.G2Affine{base, public})
	require.NoError(t, err)
	return ok
}

// TestWeVerifyTheirs is the other direction.
func TestWeVerifyTheirs(t *testing.T) {
	seed := make([]byte, 32)
	_, err := rand.Read(seed)
	require.NoError(t, err)
	private, err := bls.KeyGen[bls.KeyG2SigG1](seed, nil, nil)
	require.NoError(t, err)
	encoded, err := private.PublicKey().MarshalBinary()
	require.NoError(t, err)
	key, err := threshold.ParsePublicKey(encoded)
	require.NoError(t, err)
	msg := []byte("signed by circl")
	sig := threshold.Signature(bls.Sign(private, msg))
	require.NoError(t, key.Verify(msg, sig))
	require.ErrorIs(t, key.Verify([]byte("other"), sig), threshold.ErrInvalidSignature)
}
