package threshold

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func readJSON(t testing.TB, file string, into any) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, into))
}

// TestDrandBeacon verifies round 1000 of drand's quicknet (scheme bls-unchained-g1-rfc9380): a
// threshold signature that a group of others has made and published.
func TestDrandBeacon(t *testing.T) {
	key, err := ParsePublicKey(unhex(t, "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451"+
		"0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"))
	require.NoError(t, err)
	sig := Signature(unhex(t, "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39"))
	round := func(n uint64) []byte {
		digest := sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
		return digest[:]
	}
	require.NoError(t, key.Verify(round(1000), sig))
	require.ErrorIs(t, key.Verify(round(1001), sig), ErrInvalidSignature)
}

// TestEthereumDecoding runs the decoding vectors of Ethereum's consensus tests over everything that
// reads points: off the curve, outside the subgroup, at infinity, not canonical, with wrong flags.
func TestEthereumDecoding(t *testing.T) {
	var vectors struct {
		G1, G2 []struct {
			Name, Hex string
			Valid     bool
		}
	}
	readJSON(t, "ethereum_decoding.json", &vectors)
	require.NotEmpty(t, vectors.G1)
	require.NotEmpty(t, vectors.G2)
	for _, v := range vectors.G1 {
		b := unhex(t, v.Hex)
		var p curve.G1
		err := curve.DecodeG1(&p, b)
		require.Equal(t, v.Valid, err == nil && p.InG1(), "G1 %s", v.Name)
		if len(b) == SignatureLen {
			sig := Signature(b)
			infinity := b[0]&0x40 != 0
			require.Equal(t, v.Valid && !infinity, sig.decode(&p) == nil, "signature %s", v.Name)
		}
	}
	for _, v := range vectors.G2 {
		b := unhex(t, v.Hex)
		var p curve.G2
		require.Equal(t, v.Valid, curve.DecodeG2(&p, b) == nil, "G2 %s", v.Name)
		infinity := b[0]&0x40 != 0
		key, err := ParsePublicKey(b)
		require.Equal(t, v.Valid && !infinity, err == nil, "public key %s", v.Name)
		if err == nil {
			require.Equal(t, b, key.Bytes())
		}
	}
}

func TestHashToCurveRFC9380(t *testing.T) {
	var vectors struct {
		DST     string
		Vectors []struct{ Msg, X, Y string }
	}
	readJSON(t, "rfc9380_bls12381g1.json", &vectors)
	require.Len(t, vectors.Vectors, 5)
	for _, v := range vectors.Vectors {
		p := curve.HashToG1([]byte(v.Msg), []byte(vectors.DST))
		require.Equal(t, v.X+v.Y, hex.EncodeToString(p.Serialize()), "message %q", v.Msg)
	}
}
