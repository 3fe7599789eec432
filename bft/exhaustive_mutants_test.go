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
			p := newProduct(t, size)
			p.replica.m.judge = nil // what is asked of every state is enough
			err := p.check()
			require.Error(t, err, name)
			t.Logf("f=%d c=%d %s: %v", size.F, size.C, name, err)
		}
	}
}

// What a replica says with a planted bug is not justified, which the monitor beside it says at the
// step at which it is said.
func TestTheMonitorFindsPlantedBugsInAView(t *testing.T) {
	defer Plant("")
	for _, name := range []string{
		"quorum-small", "fast-quorum-small", "ruled-out-early", "finalize-after-nullify", "vote-after-finalize",
		"first-vote-twice", "fallback-unheld",
	} {
		require.True(t, Plant(name))
		r := newReplica(t, Size{1, 0}, 4)
		err := r.grow()
		t.Logf("%s: %v", name, err)
		require.Error(t, r.m.unjustified, name)
	}
}
