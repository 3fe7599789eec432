//go:build unix

package statedir_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"github.com/stretchr/testify/require"
)

// TestPlantedNames: a link or a pipe in the directory is neither followed nor waited for, neither
// in reading nor in writing.
func TestPlantedNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d")
	d, err := statedir.New(path)
	require.NoError(t, err)
	require.NoError(t, d.Make())
	precious := filepath.Join(t.TempDir(), "precious")
	require.NoError(t, os.WriteFile(precious, []byte("precious"), 0o600))
	plant := func() {
		require.NoError(t, os.Symlink(precious, filepath.Join(path, "name")))
		require.NoError(t, os.Symlink(precious, filepath.Join(path, "name.tmp")))
	}
	plant()
	_, err = d.Read("name")
	require.ErrorIs(t, err, keystore.ErrCorrupt)
	require.NoError(t, d.Write("name", []byte("ours")))
	data, err := d.Read("name")
	require.NoError(t, err)
	require.Equal(t, "ours", string(data))

	for _, name := range []string{"directory", "directory.tmp", "sealed-00000000000000000002", "sealed-00000000000000000002.tmp"} {
		require.NoError(t, os.MkdirAll(filepath.Join(path, name, "below"), 0o700))
		require.NoError(t, os.Symlink(precious, filepath.Join(path, name, "below", "link")))
	}
	_, err = d.Read("directory")
	require.ErrorIs(t, err, keystore.ErrCorrupt)
	require.NoError(t, d.Write("directory", []byte("ours")))
	require.NoError(t, d.EraseBefore(3))

	for _, name := range []string{"pipe", "sealed-00000000000000000000"} {
		require.NoError(t, syscall.Mkfifo(filepath.Join(path, name), 0o600))
		_, err = d.Read(name)
		require.ErrorIs(t, err, keystore.ErrCorrupt)
	}
	require.NoError(t, syscall.Mkfifo(filepath.Join(path, "pipe.tmp"), 0o600))
	require.NoError(t, d.Write("pipe", []byte("ours")))
	require.NoError(t, os.Symlink(precious, filepath.Join(path, "sealed-00000000000000000001")))
	require.NoError(t, os.Symlink(precious, filepath.Join(path, "sealed-00000000000000000001.tmp")))
	require.NoError(t, d.EraseBefore(2))
	names, err := d.Names("sealed-")
	require.NoError(t, err)
	require.Empty(t, names)
	data, err = os.ReadFile(precious)
	require.NoError(t, err)
	require.Equal(t, "precious", string(data))
}
