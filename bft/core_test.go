package bft_test

import (
	"testing"

	"github.com/reseal-bft/reseal/bft/sim"
	"github.com/stretchr/testify/require"
)

func TestClusterMakesProgress(t *testing.T) {
	for _, o := range []sim.Options{{F: 1, C: 0}, {F: 1, C: 1}, {F: 2, C: 2}} {
		result, err := sim.Run(1, o)
		require.NoError(t, err)
		require.Empty(t, result.Violations)
		require.Greater(t, result.Blocks, 50)
		require.Greater(t, result.Epochs, 1)
	}
}
