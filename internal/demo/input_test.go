package demo

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/internal/load"
)

func TestReadInput(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, content []byte) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	_, err := readInput(dir)
	require.ErrorContains(t, err, "name another directory")
	put("a.crt", []byte("A"))
	put("sub/b.crt", []byte("B"))
	put(".git/config", []byte("no"))
	put(strings.Repeat("long/", 203)+"just", []byte("C"))
	put(strings.Repeat("long/", 203)+"longer", []byte("the key has a byte too many"))
	put("large", bytes.Repeat([]byte{1}, maxInputFile+1))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "link")))

	pairs, err := readInput(dir)
	require.NoError(t, err)
	require.Equal(t, []load.Pair{
		{Key: "file/a.crt", Value: []byte("A")},
		{Key: "file/" + strings.Repeat("long/", 203) + "just", Value: []byte("C")},
		{Key: "file/sub/b.crt", Value: []byte("B")},
	}, pairs)

	_, err = readInput("/nonexistent")
	require.ErrorContains(t, err, "--input")
	named, pairs, err := findInput(dir)
	require.NoError(t, err)
	require.Equal(t, dir, named)
	require.Len(t, pairs, 3)
	named, pairs, err = findInput("")
	require.NoError(t, err)
	require.Contains(t, defaultInputs, named)
	require.NotEmpty(t, pairs)
}
