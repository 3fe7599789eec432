package sim

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCampaign(t *testing.T) {
	for _, size := range [][2]int{{1, 0}, {1, 1}, {1, 2}, {2, 1}} {
		report, err := Campaign(context.Background(), 1, 6, Options{F: size[0], C: size[1]}, nil)
		require.NoError(t, err)
		require.Zero(t, report.Violations, report.Failures)
		require.Zero(t, report.Stuck, report.Failures)
		require.Equal(t, 6, report.Seeds)
		require.Greater(t, report.Epochs, 6)
	}
}

func TestAdversaries(t *testing.T) {
	for _, adversary := range Adversaries {
		report, err := Campaign(context.Background(), 100, 3, Options{Adversary: adversary}, nil)
		require.NoError(t, err)
		require.Empty(t, report.Failures, adversary)
	}
}

// The hash of a run must tell configurations apart, or equal hashes say nothing.
func TestHashDependsOnEverything(t *testing.T) {
	seen := make(map[uint64]bool)
	for _, o := range []Options{{}, {C: 2, F: 1}, {Adversary: "none"}, {Faults: []string{}}, {Faults: []string{"crash"}}, {Window: 2}, {Chaos: time.Second}} {
		for seed := uint64(1); seed <= 2; seed++ {
			result, err := Run(seed, o)
			require.NoError(t, err)
			require.Falsef(t, seen[result.Hash], "%+v", o)
			seen[result.Hash] = true
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{Adversary: "nice"}, {Faults: []string{"rain"}}, {F: -1}, {Mutant: "none such"}} {
		_, err := Run(1, o)
		require.Error(t, err)
	}
}
