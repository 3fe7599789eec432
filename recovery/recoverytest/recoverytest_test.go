//go:build !race

// The intruder reads a process's memory while the process goes on: what he sees may be half written, and the race detector rightly says so.

package recoverytest

import (
	"flag"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	seeds = flag.Uint64("seeds", 2, "how many seeds the intruder plays")
	first = flag.Uint64("seed", 1, "the first seed")
)

// play plays a seed.
func play(t *testing.T, seed uint64) *Report {
	plan := NewPlan(seed)
	report, err := Run(t.Context(), plan, Files(t.TempDir(), 4), nil)
	require.NoErrorf(t, err, "%vreplay: make intruder SEED=%d SEEDS=1", plan, seed)
	return report
}

func TestIntruderGetsNothingThatOutlivesItsEpoch(t *testing.T) {
	for seed := *first; seed < *first+*seeds; seed++ {
		report := play(t, seed)
		require.Emptyf(t, report.Findings, "%vreplay: make intruder SEED=%d SEEDS=1", report.Plan, seed)
	}
}

func TestSystemDeterminesWhatItMayAndNoMore(t *testing.T) {
	s := &System{}
	one := big.NewInt(1)
	x, y, sum := Form{}, Form{}, Form{}
	x.Add(0, one)
	y.Add(1, one)
	sum.Add(0, one)
	sum.Add(1, one)
	require.True(t, s.Know(sum, big.NewInt(5)))
	_, ok := s.Value(x)
	require.False(t, ok)
	require.True(t, s.Know(y, big.NewInt(2)))
	value, ok := s.Value(x)
	require.True(t, ok)
	require.EqualValues(t, 3, value.Int64())
	require.False(t, s.Know(x, big.NewInt(4)), "a contradiction")
}
