package replica

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// f liars, and c clocks that are behind, neither hold the time back nor bring it ahead of all clocks
// that are right, with as many others away as may be.
func TestTheTimeThatOthersShow(t *testing.T) {
	const right, low, high, away = int64(1e9), int64(1), int64(math.MaxInt32), int64(-1)
	now := time.Now()
	for name, x := range map[string]struct {
		size   bft.Size
		others []int64
		agreed int64
	}{
		"f = 1: all":                            {bft.Size{F: 1}, []int64{right, right, right}, right},
		"f = 1: a low liar":                     {bft.Size{F: 1}, []int64{low, right, right}, right},
		"f = 1: a high liar":                    {bft.Size{F: 1}, []int64{right, right, high}, right},
		"f = 1: one away":                       {bft.Size{F: 1}, []int64{right, right, away}, right},
		"f = 1: two away":                       {bft.Size{F: 1}, []int64{high, away, away}, 0},
		"f = c = 1: a low liar, one behind":     {bft.Size{F: 1, C: 1}, []int64{low, low, right, right, right}, right},
		"f = c = 1: a high liar, one away":      {bft.Size{F: 1, C: 1}, []int64{right, right, right, high, away}, right},
		"f = c = 1: a low liar, one away":       {bft.Size{F: 1, C: 1}, []int64{low, right, right, right, away}, right},
		"f = c = 1: a high liar, one behind":    {bft.Size{F: 1, C: 1}, []int64{low, right, right, right, high}, right},
		"f = c = 1: two away":                   {bft.Size{F: 1, C: 1}, []int64{right, right, right, away, away}, right},
		"f = 2: two high liars":                 {bft.Size{F: 2}, []int64{right, right, right, right, high, high}, right},
		"c = 2 and nobody lies: one has spoken": {bft.Size{C: 2}, []int64{right, away, away, away}, right},
	} {
		t.Run(name, func(t *testing.T) {
			var c clocks
			for i, wall := range x.others {
				if wall != away {
					c.note(bft.ReplicaID(i+2), reading{wall, now})
				}
			}
			require.Equal(t, x.agreed, c.agreed(x.size, now))
			if x.agreed != 0 {
				require.Equal(t, x.agreed+5000, c.agreed(x.size, now.Add(5*time.Second)), "time passes")
			}
			require.Zero(t, c.agreed(x.size, now.Add(clockHolds)), "who says nothing any more is not counted")
		})
	}
}
