package replica_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// bigValues is how many values of a megabyte are written while a replica is away: more than the
// core makes good by itself, in blocks few enough not to look much.
const bigValues = 40

// A replica that was away while much was written comes back, and the others go on meanwhile.
func TestAReplicaReturnsAfterBigValues(t *testing.T) {
	c := newCluster(t, bft.Size{F: 1})
	for i := range c.nodes {
		c.start(i)
	}
	client := newClient(t)
	c.put(0, client, 1, "small", "1")
	c.stop(3)
	value := make([]byte, 1<<20-1<<13)
	for i := range uint64(bigValues) {
		c.put(int(i)%3, client, 2+i, fmt.Sprint("big", i), string(value))
	}
	height := c.nodes[0].replica.Status().Height
	c.start(3)
	var took []time.Duration
	sequence := uint64(2 + bigValues)
	for done := false; !done || len(took) < 20; sequence++ {
		at := time.Now()
		c.put(int(sequence)%3, client, sequence, "small", fmt.Sprint(sequence))
		took = append(took, time.Since(at))
		done = c.nodes[3].replica.Status().Height >= height
	}
	slices.Sort(took)
	t.Logf("%d writes while it came back: median %v, longest %v", len(took), took[len(took)/2], took[len(took)-1])
	require.Less(t, took[len(took)-1], 10*time.Second, "no write waits for a replica that comes back")
	require.Equal(t, fmt.Sprint(sequence-1), c.get(3, client, sequence, "small"))
}
