//go:build mutants

package trace

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// TestAPlantedBugIsFoundInATrace has a replica vote for a block whose time is an hour ahead of its
// clock.
func TestAPlantedBugIsFoundInATrace(t *testing.T) {
	require.True(t, bft.Plant("time-unbounded"))
	defer bft.Plant("")
	dir, votes := newScene(time.Hour).record(t)
	require.Equal(t, 1, votes)
	var v Verdict
	require.NoError(t, v.JudgeAll(dir))
	require.Len(t, v.Faults, 1)
	require.Contains(t, v.Faults[0], "replica 2, epoch 3, core 1 of this life, step 1: it votes for")
	t.Log(v.Faults[0])
}
