//go:build mutants

package bft

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Every planted bug in the rules of one view is found.
func TestEquivocationCheckFindsPlantedBugs(t *testing.T) {
	defer Plant("")
	for _, size := range []Size{{1, 0}, {1, 1}} {
		for _, name := range []string{
			"quorum-small", "fast-quorum-small", "ruled-out-early", "finalize-after-nullify", "vote-after-finalize",
			"first-vote-twice", "fallback-counts-first", "evidence-ignored",
		} {
			require.True(t, Plant(name))
			err := newProduct(t, size).check()
			require.Error(t, err, name)
			t.Logf("f=%d c=%d %s: %v", size.F, size.C, name, err)
		}
	}
}
