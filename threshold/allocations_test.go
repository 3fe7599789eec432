//go:build !race

package threshold

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHotPathsAllocateNothingPerShare counts allocations (not under the race detector, which makes
// sync.Pool forget): the same few at every n.
func TestHotPathsAllocateNothingPerShare(t *testing.T) {
	for _, n := range []int{4, 64, 128} {
		p := benchParams(n)
		g := deal1(t, p)
		msg := []byte("m")
		ps := g.sign(msg, upTo(1, p.T)...)
		sig, _, err := g.sharing.Combine(msg, ps)
		require.NoError(t, err)
		require.Zero(t, testing.AllocsPerRun(5, func() { g.shares[0].Sign(msg) }))
		require.LessOrEqual(t, testing.AllocsPerRun(5, func() { _, _, _ = g.sharing.Combine(msg, ps) }), 2.0, "n=%d", n)
		require.LessOrEqual(t, testing.AllocsPerRun(5, func() { _ = g.sharing.GroupKey().Verify(msg, sig) }), 2.0)
	}
}
