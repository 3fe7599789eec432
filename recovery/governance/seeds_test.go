package governance

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

var rewrite = flag.Bool("rewrite", false, "make the seeds of the fuzzers anew")

// TestSeeds keeps the seeds of the fuzzers alive: encodings from a whole life of a cluster. With
// -rewrite it makes them anew.
func TestSeeds(t *testing.T) {
	if *rewrite {
		writeSeeds(t)
	}
	g, err := Load(filepath.Join("testdata", "genesis.json"))
	require.NoError(t, err)
	operations, snapshots := read(t, "operation-*"), read(t, "snapshot-*")
	require.Len(t, operations, 10)
	require.Len(t, snapshots, 5)
	for _, b := range operations {
		op, err := Parse(b)
		require.NoError(t, err)
		again, err := Encode(op)
		require.NoError(t, err)
		require.Equal(t, b, again)
	}
	for _, b := range snapshots {
		s := fresh(t, g)
		require.NoError(t, s.Restore(b))
		require.Equal(t, b, s.Snapshot())
		goOn(t, s)
	}
}

func read(t *testing.T, pattern string) [][]byte {
	paths, err := filepath.Glob(filepath.Join("testdata", pattern))
	require.NoError(t, err)
	var out [][]byte
	for _, path := range paths {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		out = append(out, b)
	}
	return out
}

func writeSeeds(t *testing.T) {
	require.NoError(t, os.RemoveAll("testdata/genesis.json"))
	c := newCluster(t, size(1, 0))
	require.NoError(t, os.MkdirAll("testdata", 0o755))
	require.NoError(t, c.genesis.Save("testdata/genesis.json"))
	write := func(name string, b []byte) {
		require.NoError(t, os.WriteFile(filepath.Join("testdata", name), b, 0o644))
	}
	snapshot := func(phase string) { write("snapshot-"+phase, c.state.Snapshot()) }

	c.block()
	snapshot("key-generation")
	c.handoff()
	for i, op := range c.operations() {
		b, err := Encode(op)
		require.NoError(t, err)
		write(fmt.Sprintf("operation-%d", i), b)
	}
	snapshot("idle")
	c.accepted(c.order(&Quarantine{Replica: 4, Reason: "odd"}), c.equivocate(1))
	snapshot("attesting")
	c.accepted(c.reboot(1))
	_, ops := c.deal(1, 2, 3)
	c.accepted(ops[:2]...)
	snapshot("dealing")
	c.accepted(ops[2])
	require.Equal(t, []bft.ReplicaID{1, 2, 3}, c.state.View().Eligible)
	snapshot("ready")
}
