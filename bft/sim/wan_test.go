package sim

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWan(t *testing.T) {
	row, err := Wan(WanOptions{N: 6, Regions: 5, BlockBytes: 1 << 10, MegabitsPerSecond: 1000, Blocks: 6})
	require.NoError(t, err)
	t.Logf("%+v", row)
	require.Less(t, row.FastMS, row.SlowMS)
	require.Less(t, row.SlowMS, row.HotStuffMS)
	require.Less(t, row.RecoveryMS, row.SlowMS, "the fast path survives a recovery")
	require.InDelta(t, 1, row.RecoveryRatio, 0.01)
	for _, o := range []WanOptions{{N: 3}, {N: 6, Regions: 9}, {N: 6, Regions: 5, Blocks: 1, MegabitsPerSecond: 1, BlockBytes: -1}, {N: 5, Regions: 5, Blocks: 1, MegabitsPerSecond: 1}} {
		_, err := Wan(o)
		require.Error(t, err)
	}
}
