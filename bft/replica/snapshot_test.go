package replica

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// A large state is written when the log has grown by half its size, a small one now and then, and
// any after very many blocks.
func TestWhenASnapshotIsDue(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		blocks    bft.Height
		age       time.Duration
		log, size int64
		due       bool
	}{
		{snapshotBlocks, 0, 0, 0, true},
		{snapshotBlocks - 1, 0, 1 << 30, 0, false},
		{64, snapshotPause, 0, 0, true},
		{63, snapshotPause, 1 << 30, 0, false},
		{snapshotBlocks, snapshotPause, 1<<29 - 1, 1 << 30, false},
		{snapshotBlocks, snapshotPause, 1 << 29, 1 << 30, true},
		{farthestSnapshot, 0, 0, 1 << 40, true},
	} {
		s := snapshots{height: 100, at: now.Add(-test.age), bytes: test.log}
		s.size.Store(test.size)
		require.Equal(t, test.due, s.due(100+test.blocks, now), "%+v", test)
	}
}

// Replicas write their snapshots one after the other, each once in snapshotPause, whenever they started.
func TestSnapshotsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 4
		last := make(map[bft.ReplicaID]time.Time)
		replicas := make([]snapshots, n)
		for i := range replicas {
			replicas[i] = snapshots{phase: phaseOf(bft.ReplicaID(i+1), n)}
			replicas[i].took(0)
		}
		step, height := 50*time.Millisecond, bft.Height(0)
		for range 10 * snapshotPause / step {
			<-time.After(step)
			height += 2
			for i := range replicas {
				id := bft.ReplicaID(i + 1)
				if !replicas[i].due(height, time.Now()) {
					continue
				}
				replicas[i].took(height)
				for other, at := range last {
					apart := time.Since(at)
					if other == id {
						require.InDelta(t, snapshotPause, apart, float64(step), "replica %d", id)
					} else {
						require.GreaterOrEqual(t, apart, snapshotPause/n-step, "replicas %d and %d", other, id)
					}
				}
				last[id] = time.Now()
			}
		}
		require.Len(t, last, n)
	})
}
