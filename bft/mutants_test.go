//go:build mutants

package bft

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// The exhaustive check has teeth: with a planted bug in the rules of a view, it fails.
func TestExhaustiveCheckFindsPlantedBugs(t *testing.T) {
	defer Plant("")
	for _, name := range []string{"ruled-out-early", "finalize-after-nullify", "first-vote-twice"} {
		require.True(t, Plant(name))
		found := error(nil)
		for _, choices := range [][]choice{{{1, 1}, {1, 3}, {1, 3}}, {{1, 1}, {2, 2}, {0, 3}}} {
			m := newModel(t, Size{1, 0}, 3)
			m.judge = nil // what is asked of every state is enough
			if err := m.explore(choices); err != nil {
				found = err
				break
			}
		}
		require.Error(t, found, name)
		t.Logf("%s: %v", name, found)
	}
}

// Each check of a chain that is left out is missed by the tables of faults.
func TestFaultsOfChainsFindPlantedBugs(t *testing.T) {
	defer Plant("")
	for _, name := range ChainMutants() {
		require.True(t, Plant(name))
		require.Error(t, errors.Join(checkChainFaults(), checkProofs(), checkLag()), name)
	}
}

// Bugs in what is voted for, and when, are found without the simulator.
func TestPlantedBugsAreFoundHere(t *testing.T) {
	defer Plant("")
	for name := range checkedHere {
		require.True(t, Plant(name))
		p := newProduct(t, Size{1, 0})
		p.replica.m.judge = nil
		require.Error(t, errors.Join(checkTimes(), p.check()), name)
	}
}
