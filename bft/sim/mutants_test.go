//go:build mutants

package sim

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// mutantSeeds is the number of seeds within which every planted bug is found: half of those that
// the command runs, so that a change of the core, which changes all runs, does not lose one.
const mutantSeeds = 50

func TestPlantedBugsAreFound(t *testing.T) {
	require.GreaterOrEqual(t, len(Mutants()), 12)
	for _, name := range Mutants() {
		t.Run(name, func(t *testing.T) {
			report, err := Campaign(context.Background(), 1, mutantSeeds, Recipe(Options{Mutant: name}), nil)
			require.NoError(t, err)
			require.NotEmpty(t, report.Failures)
			t.Logf("seed %d: %s", report.Failures[0].Seed, report.Failures[0].Reason)
		})
	}
}
