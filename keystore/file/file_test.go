package file_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/file"
	"github.com/reseal-bft/reseal/keystore/keystoretest"
	"github.com/stretchr/testify/require"
)

func options(dir, passphrase string) keystore.Options {
	return keystore.NewOptions(keystore.WithDir(dir), keystore.WithWorkFactor(8),
		keystore.WithPassphrase(keystore.NewSecret([]byte(passphrase))))
}

func TestConformance(t *testing.T) {
	keystoretest.Run(t, func(t *testing.T) keystoretest.Device {
		dir := filepath.Join(t.TempDir(), "keystore")
		s, err := file.Init(t.Context(), "file:"+dir, options(dir, "correct"))
		require.NoError(t, err)
		require.NoError(t, s.Close())
		return keystoretest.Device{Dir: dir, Open: func(t *testing.T, dir string) keystore.Keystore {
			s, err := file.Open(t.Context(), "file:"+dir, options(dir, "correct"))
			require.NoError(t, err)
			return s
		}}
	})
}

func TestMistakes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keystore")
	_, err := file.Open(t.Context(), "file:"+dir, options(dir, "correct"))
	require.ErrorIs(t, err, keystore.ErrNoKeystore)
	_, err = file.Init(t.Context(), "file:"+dir, options(dir, "correct"))
	require.NoError(t, err)
	_, err = file.Init(t.Context(), "file:"+dir, options(dir, "correct"))
	require.ErrorIs(t, err, keystore.ErrExists)
	_, err = file.Open(t.Context(), "file:"+dir, options(dir, "wrong"))
	require.ErrorIs(t, err, keystore.ErrWrongPIN)
	_, err = file.Open(t.Context(), "file:"+dir, keystore.NewOptions(keystore.WithDir(dir)))
	require.ErrorContains(t, err, "passphrase")

	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Zero(t, info.Mode().Perm()&0o077, "for its owner only")
}

// TestDoesNotPrint: a keystore in a log shows where it is, and no key.
func TestDoesNotPrint(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keystore")
	s, err := file.Init(t.Context(), "file:"+dir, options(dir, "correct"))
	require.NoError(t, err)
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		require.Equal(t, "file keystore in "+dir, fmt.Sprintf(format, s))
		require.NotContains(t, fmt.Sprintf(format, s.Identity()), "D:", "the private number of the identity key")
	}
}
