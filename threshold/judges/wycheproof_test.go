package judges

import (
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"testing"

	"github.com/c2sp/wycheproof"
	gnark "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/stretchr/testify/require"
)

// TestWycheproof runs Wycheproof's BLS vectors, which have keys in G1 and signatures in G2, the other
// way round than ours: our decoding and our pairing judge them, gnark only hashes to G2.
func TestWycheproof(t *testing.T) {
	for _, file := range []string{"bls_sig_g2_basic_verify_test.json", "bls_sig_g2_pop_verify_test.json"} {
		b, err := fs.ReadFile(wycheproof.TestVectors, file)
		require.NoError(t, err)
		var vectors struct {
			NumberOfTests int
			TestGroups    []struct {
				Ciphersuite string
				PublicKey   struct{ Pk string }
				Tests       []struct {
					TcId              int
					Comment, Msg, Sig string
					Result            string
				}
			}
		}
		require.NoError(t, json.Unmarshal(b, &vectors))
		require.NotZero(t, vectors.NumberOfTests)
		run := 0
		for _, g := range vectors.TestGroups {
			for _, v := range g.Tests {
				got := verifiesMinPk(t, g.Ciphersuite, unhex(t, g.PublicKey.Pk), unhex(t, v.Msg), unhex(t, v.Sig))
				require.Equal(t, v.Result == "valid", got, "%s %d: %s", file, v.TcId, v.Comment)
				run++
			}
		}
		require.Equal(t, vectors.NumberOfTests, run)
	}
}

// verifiesMinPk checks e(g1, sig) = e(pk, H(msg)), with pk and sig other than infinity.
func verifiesMinPk(t *testing.T, dst string, pk, msg, sig []byte) bool {
	key, s, h := suite.G1().Point(), suite.G2().Point(), suite.G2().Point()
	if key.UnmarshalBinary(pk) != nil || s.UnmarshalBinary(sig) != nil ||
		key.Equal(suite.G1().Point().Null()) || s.Equal(suite.G2().Point().Null()) {
		return false
	}
	hashed, err := gnark.HashToG2(msg, []byte(dst))
	require.NoError(t, err)
	encoded := hashed.Bytes()
	require.NoError(t, h.UnmarshalBinary(encoded[:]))
	return suite.Pair(suite.G1().Point().Base(), s).Equal(suite.Pair(key, h))
}

func unhex(t require.TestingT, s string) []byte {
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}
