//go:build mutants

package recoverytest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/recovery/recoverytest"
	"github.com/reseal-bft/reseal/recovery/recoverytest/devices"
)

// Each fault that made what an intruder held worth something, planted again, is found within its
// number of seeds.
func TestPlantedFaultsAreFound(t *testing.T) {
	for _, fault := range devices.Faults {
		t.Run(fault.Name, func(t *testing.T) {
			maker, err := devices.New(t.Context(), fault.Kind, t.TempDir(), 1)
			require.NoError(t, err)
			defer fault.Plant()()
			for seed := uint64(1); seed <= fault.Within; seed++ {
				plan := recoverytest.NewPlan(seed)
				if fault.Behind && !plan.LeavesBehind() {
					continue
				}
				plan.Patience = 6 * time.Second // a cluster with the fault may stand still
				report, err := play(t.Context(), maker, plan)
				if err == nil && strings.Contains(strings.Join(report.Findings, "\n"), fault.Shows) {
					t.Logf("seed %d: %s", seed, strings.Join(report.Findings, "\n"))
					return
				}
			}
			require.Fail(t, "the intruder does not find it")
		})
	}
}
