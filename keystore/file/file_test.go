package file_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// TestWorkFactor: the number in the container is anybody's. A larger one than configured is refused
// before the work is done, a smaller one opens nothing.
func TestWorkFactor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keystore")
	s, err := file.Init(t.Context(), "file:"+dir, options(dir, "correct"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	path := filepath.Join(dir, "container.age")
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.SplitN(string(whole), "\n", 3)
	stanza, found := strings.CutSuffix(lines[1], " 8")
	require.True(t, found, lines[1])
	for factor, want := range map[string]string{
		"22": "WithWorkFactor(22)", "9": "WithWorkFactor(9)", "63": "WithWorkFactor", "7": "less than 8",
		"0": "put the file back", "-1": "less than 8", "x": "put the file back", "99999999999999999999": "WithWorkFactor",
	} {
		changed := strings.Join([]string{lines[0], stanza + " " + factor, lines[2]}, "\n")
		require.NoError(t, os.WriteFile(path, []byte(changed), 0o600))
		_, err := file.Open(t.Context(), "file:"+dir, options(dir, "correct"))
		require.ErrorIs(t, err, keystore.ErrCorrupt, factor)
		require.ErrorContains(t, err, want, factor)
	}
	for _, content := range []string{"", "age-encryption.org/v1\n", string(whole[:40])} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := file.Open(t.Context(), "file:"+dir, options(dir, "correct"))
		require.ErrorIs(t, err, keystore.ErrCorrupt)
		require.ErrorContains(t, err, "put the file back")
	}
	// A lower one than configured, which does not match what the passphrase locked.
	o := options(dir, "correct")
	o.WorkFactor = 12
	high := filepath.Join(t.TempDir(), "high")
	o.Dir = high
	s, err = file.Init(t.Context(), "file:"+high, o)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	path = filepath.Join(high, "container.age")
	whole, err = os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(whole), " 12\n", " 8\n", 1)), 0o600))
	_, err = file.Open(t.Context(), "file:"+high, o)
	require.ErrorIs(t, err, keystore.ErrWrongPIN)
}

// TestDamaged: whatever becomes of its files, a keystore says what to do about it, and nothing that
// it says, or that is tried without thinking, loses what a copy of the file would still open.
func TestDamaged(t *testing.T) {
	for _, name := range []string{"container.age", "identity.age"} {
		for what, damage := range map[string]func(path string, data []byte) error{
			"missing":   func(path string, _ []byte) error { return os.Remove(path) },
			"empty":     func(path string, _ []byte) error { return os.Truncate(path, 0) },
			"cut":       func(path string, data []byte) error { return os.Truncate(path, int64(len(data)-5)) },
			"flipped":   func(path string, data []byte) error { data[len(data)-3] ^= 1; return os.WriteFile(path, data, 0o600) },
			"directory": func(path string, _ []byte) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "keystore")
				s, err := file.Init(t.Context(), "file:"+dir, options(dir, "correct"))
				require.NoError(t, err)
				require.NoError(t, s.Seal(0, []byte("zero")))
				require.NoError(t, s.Close())
				path := filepath.Join(dir, name)
				whole, err := os.ReadFile(path)
				require.NoError(t, err)
				require.NoError(t, damage(path, bytes.Clone(whole)))

				_, err = file.Open(t.Context(), "file:"+dir, options(dir, "correct"))
				require.ErrorContains(t, err, name)
				require.ErrorContains(t, err, "put the file back from a copy of the directory")
				require.NotErrorIs(t, err, keystore.ErrNoKeystore)
				_, err = file.Init(t.Context(), "file:"+dir, options(dir, "correct"))
				require.Error(t, err, "nothing is overwritten")

				require.NoError(t, os.RemoveAll(path))
				require.NoError(t, os.WriteFile(path, whole, 0o600))
				s, err = file.Open(t.Context(), "file:"+dir, options(dir, "correct"))
				require.NoError(t, err)
				secret, err := s.Unseal(0)
				require.NoError(t, err)
				require.Equal(t, "zero", string(secret))
				require.NoError(t, s.Close())
			})
		}
	}
}

// TestAdvanceErases: what a crash left half written of a past epoch is gone too, and a past file
// that somebody made huge does not keep the epoch from ending.
func TestAdvanceErases(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keystore")
	s, err := file.Init(t.Context(), "file:"+dir, options(dir, "correct"))
	require.NoError(t, err)
	require.NoError(t, s.Seal(0, []byte("zero")))
	sealed := filepath.Join(dir, "sealed-00000000000000000000")
	whole, err := os.ReadFile(sealed)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(sealed+".tmp", whole, 0o600))
	require.NoError(t, os.WriteFile(sealed, make([]byte, 1<<20), 0o600))
	require.NoError(t, s.Advance(1))
	left, err := filepath.Glob(filepath.Join(dir, "sealed-*"))
	require.NoError(t, err)
	require.Empty(t, left)

	// The same when the process starts again in the middle of it.
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(sealed, whole, 0o600))
	require.NoError(t, os.WriteFile(sealed+".tmp", whole, 0o600))
	s, err = file.Open(t.Context(), "file:"+dir, options(dir, "correct"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	left, err = filepath.Glob(filepath.Join(dir, "sealed-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}
