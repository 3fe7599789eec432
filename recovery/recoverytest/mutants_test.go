//go:build mutants

package recoverytest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/recovery/internal/plant"
)

// within is how many seeds may pass before a planted bug is found.
const within = 12

func TestPlantedBugsAreFound(t *testing.T) {
	for _, bug := range []string{"found-key-attested"} {
		t.Run(bug, func(t *testing.T) {
			plant.Planted = bug
			defer func() { plant.Planted = "" }()
			for seed := uint64(1); seed <= within; seed++ {
				report, err := Run(t.Context(), NewPlan(seed), Files(t.TempDir(), 4), nil)
				if err == nil && len(report.Findings) > 0 {
					t.Logf("seed %d: %v", seed, report.Findings)
					return
				}
			}
			require.Fail(t, "the intruder does not find it")
		})
	}
}
