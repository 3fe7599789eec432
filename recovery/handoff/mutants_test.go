//go:build mutants

package handoff

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/recovery/internal/plant"
)

// Each planted bug lets pass what a scenario of the tests says must not: so the scenario finds it.
func TestPlantedBugsAreFound(t *testing.T) {
	lapsed := func(t testing.TB) bool { return outlives(t, 1) != "" }
	found := map[string]func(t testing.TB) bool{
		"lapsed-keeps":       lapsed,
		"leap-keeps":         func(t testing.TB) bool { return outlives(t, 2) != "" },
		"share-kept":         func(t testing.TB) bool { return succeeds(t) != "" },
		"device-stays":       lapsed,
		"parts-stay":         lapsed,
		"columns-stay":       lapsed,
		"planted-share":      func(t testing.TB) bool { return believesNamed(t) != nil },
		"found-key-attested": attestsPlanted,
		"old-vault":          storesUnderPlanted,
		"any-key":            func(t testing.TB) bool { return servesAnyKey(t) != "" },
	}
	require.ElementsMatch(t, Mutants, slices.Collect(maps.Keys(found)))
	for bug, lets := range found {
		t.Run(bug, func(t *testing.T) {
			require.False(t, lets(t), "without the bug")
			plant.Planted = bug
			defer func() { plant.Planted = "" }()
			require.True(t, lets(t), "the bug is not found")
		})
	}
}
