package cluster

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

func TestSeenIsKept(t *testing.T) {
	dir, one, other := Dir(t.TempDir()), bft.ClusterID{1}, bft.ClusterID{2}
	seen, err := readSeen(dir, one)
	require.NoError(t, err)
	require.Zero(t, seen)
	require.NoError(t, writeSeen(dir, one, 41))
	require.NoError(t, writeSeen(dir, one, 42))
	seen, err = readSeen(dir, one)
	require.NoError(t, err)
	require.Equal(t, bft.Height(42), seen)
	seen, err = readSeen(dir, other)
	require.NoError(t, err)
	require.Zero(t, seen, "another cluster's")
	files, err := os.ReadDir(string(dir))
	require.NoError(t, err)
	require.Len(t, files, 1)
	for _, text := range []string{"", "garbage", "cluster x height -3\n"} {
		require.NoError(t, os.WriteFile(dir.Seen(), []byte(text), 0o644))
		_, err = readSeen(dir, one)
		require.ErrorContains(t, err, "remove it")
	}
}
