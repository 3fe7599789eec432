//go:build unix

package dbfs_test

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/internal/files"
	"github.com/reseal-bft/reseal/internal/files/dbfs"
)

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	fs := dbfs.Regular(nil)
	_, err := fs.Open(pipe)
	require.ErrorIs(t, err, files.ErrNotRegular)
	_, err = fs.OpenReadWrite(pipe, vfs.WriteCategoryUnspecified)
	require.ErrorIs(t, err, files.ErrNotRegular)
	_, err = fs.ReuseForWrite(pipe, filepath.Join(dir, "new"), vfs.WriteCategoryUnspecified)
	require.ErrorIs(t, err, files.ErrNotRegular)
	_, err = fs.List(pipe)
	require.ErrorIs(t, err, syscall.ENOTDIR)
	_, err = fs.OpenDir(pipe)
	require.ErrorIs(t, err, syscall.ENOTDIR)
	_, err = fs.Lock(dir)
	require.ErrorIs(t, err, files.ErrNotRegular)
	require.NotErrorIs(t, err, dbfs.ErrLocked)
}

func TestLockIsTakenOnce(t *testing.T) {
	for _, fs := range []vfs.FS{dbfs.Regular(nil), dbfs.Regular(vfs.NewMem())} {
		dir := t.TempDir()
		require.NoError(t, fs.MkdirAll(dir, 0o700))
		lock, err := fs.Lock(filepath.Join(dir, "LOCK"))
		require.NoError(t, err)
		_, err = fs.Lock(filepath.Join(dir, "LOCK"))
		require.ErrorIs(t, err, dbfs.ErrLocked)
		require.NoError(t, lock.Close())
	}
}
