//go:build checksums

package wholesim

import (
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

var seedsFlag = flag.Int("seeds", 6, "how many seeds TestSeeds plays")

// own is this test binary, as the command would build it. Each seed is played in a process of its
// own: when a database cannot open, or fails, on a full disk, Pebble leaves goroutines that never
// end, and no bubble in this process could.
func own(t *testing.T) *Binary {
	path, err := os.Executable()
	require.NoError(t, err)
	return &Binary{path: path}
}

// TestSeeds plays a few seeds with all adversaries and faults; `make sim-whole` plays any number.
func TestSeeds(t *testing.T) {
	report, err := Campaign(t.Context(), own(t), 1, *seedsFlag, Options{F: 1, C: 1}, func(r Result) {
		if r.Failure() != "" {
			t.Errorf("seed %d: %s\nsee it again: reseal sim --whole --seed %d --seeds 1 --trace\n%s", r.Seed, r.Failure(), r.Seed, r.Plan)
		}
	})
	require.NoError(t, err)
	require.Equal(t, *seedsFlag, report.Seeds)
	require.Positive(t, report.Writes)
}
