package threshold

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// TestPartialsDetermineEverybodys is why a partial signature attributes nothing: from T partial
// signatures on a message, and no secret at all, follow those of all other receivers.
func TestPartialsDetermineEverybodys(t *testing.T) {
	g := generate(t, defaultParams, 2)
	msg := []byte("receiver 6 never signed this")
	signers := []uint16{1, 2, 3, 5}
	var points []curve.G1
	for _, p := range g.sign(msg, 1, 2, 3, 5) {
		var point curve.G1
		require.NoError(t, p.Signature.decode(&point))
		points = append(points, point)
	}
	for _, victim := range []int{4, 6} {
		point := curve.Sum1(points, curve.Lagrange(signers, uint64(victim)))
		forged := PartialSignature{Index: victim, Signature: Signature(point.Compress())}
		require.NoError(t, g.sharing.VerifyPartial(msg, forged))
		require.Equal(t, g.shares[victim-1].Sign(msg), forged)
	}
}

// TestSharesDetermineEverybodys is the same for secrets: T shares are all shares, and the group key.
func TestSharesDetermineEverybodys(t *testing.T) {
	g := generate(t, defaultParams, 2)
	holders := []uint16{2, 3, 4, 6}
	var secrets []curve.Fr
	for _, i := range holders {
		secrets = append(secrets, g.shares[i-1].copySecret())
	}
	stolen := &Share{index: 5, secret: inner(secrets, curve.Lagrange(holders, 5))}
	require.True(t, stolen.Equal(g.shares[4]))
	group := inner(secrets, curve.Lagrange(holders, 0))
	require.Equal(t, g.sharing.GroupKey().point, curve.Mult2(nil, &group))
}
