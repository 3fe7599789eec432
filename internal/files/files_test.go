//go:build unix

package files_test

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/internal/files"
)

// planted makes a path of each kind that is no regular file.
func planted(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, syscall.Mkfifo(at("pipe"), 0o600))
	require.NoError(t, os.Mkdir(at("directory"), 0o700))
	listener, err := net.Listen("unix", at("socket"))
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	require.NoError(t, os.Symlink(at("pipe"), at("link to a pipe")))
	return map[string]string{
		"a pipe": at("pipe"), "a directory": at("directory"), "a socket": at("socket"), "a device": "/dev/zero", "link to a pipe": at("link to a pipe"),
	}
}

// Without the check, the pipe makes this test wait for ever.
func TestOnlyRegularFilesAreRead(t *testing.T) {
	for kind, path := range planted(t) {
		_, err := files.Read(path, 10)
		require.ErrorIsf(t, err, files.ErrNotRegular, kind)
		require.ErrorContains(t, err, path)
		_, err = files.OpenHere(path, os.O_WRONLY)
		require.ErrorIsf(t, err, files.ErrNotRegular, kind)
	}
}

func TestReadIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte("0123456789"), 0o600))
	data, err := files.Read(path, 10)
	require.NoError(t, err)
	require.Equal(t, "0123456789", string(data))
	_, err = files.Read(path, 9)
	require.ErrorIs(t, err, files.ErrTooLarge)
	_, err = files.Read(filepath.Join(t.TempDir(), "none"), 9)
	require.ErrorIs(t, err, os.ErrNotExist)

	data, err = files.Read("/proc/self/status", 1<<16) // a file without a size
	require.NoError(t, err)
	require.NotEmpty(t, data)
}

func TestLinksAreFollowedOnlyWhereWanted(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	require.NoError(t, os.Symlink(path, link))
	data, err := files.Read(link, 10)
	require.NoError(t, err)
	require.Equal(t, "x", string(data))
	_, err = files.OpenHere(link, os.O_RDONLY)
	require.ErrorIs(t, err, files.ErrNotRegular)
}

func TestOnlyDevicesAreOpenedAsDevices(t *testing.T) {
	for kind, path := range planted(t) {
		device, err := files.OpenDevice(path)
		if kind == "a device" {
			require.NoError(t, err)
			require.NoError(t, device.Close())
			continue
		}
		require.Errorf(t, err, kind)
	}
}
