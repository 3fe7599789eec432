package statedir_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// clearly wraps a key by not wrapping it.
func clearly(key []byte) ([]byte, error) { return bytes.Clone(key), nil }

func TestEnvelope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), 0, keystore.MaxSecret).Draw(t, "secret")
		header := statedir.Sealed{Kind: statedir.KindFile, Epoch: rapid.Uint64().Draw(t, "epoch"), Binding: rapid.Uint64().Draw(t, "binding")}
		s, err := statedir.Seal(rand.Reader, header, secret, clearly)
		require.NoError(t, err)
		data, err := s.MarshalBinary()
		require.NoError(t, err)
		parsed, err := statedir.ParseSealed(data)
		require.NoError(t, err)
		got, err := parsed.Open(s.Wrapped)
		require.NoError(t, err)
		require.True(t, bytes.Equal(secret, got))

		// Nothing of it can be changed.
		data[rapid.IntRange(0, len(data)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if parsed, err = statedir.ParseSealed(data); err == nil {
			_, err = parsed.Open(s.Wrapped)
		}
		require.ErrorIs(t, err, keystore.ErrCorrupt)
	})
}

func TestEnvelopeLimits(t *testing.T) {
	header := statedir.Sealed{Kind: statedir.KindFile}
	_, err := statedir.Seal(rand.Reader, header, make([]byte, keystore.MaxSecret+1), clearly)
	require.ErrorIs(t, err, keystore.ErrTooLarge)
	_, err = statedir.Seal(rand.Reader, header, nil, func([]byte) ([]byte, error) { return make([]byte, statedir.MaxWrapped+1), nil })
	require.ErrorContains(t, err, "at most")
	_, err = statedir.Seal(bytes.NewReader(nil), header, nil, clearly)
	require.ErrorContains(t, err, "randomness")
	failure := errors.New("the device failed")
	_, err = statedir.Seal(rand.Reader, header, nil, func([]byte) ([]byte, error) { return nil, failure })
	require.ErrorIs(t, err, failure)
}

func TestDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d")
	d, err := statedir.New(path)
	require.NoError(t, err)
	_, err = statedir.New("")
	require.Error(t, err)
	require.NoError(t, d.Make())
	_, err = d.Read("none")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = d.Sealed(statedir.KindFile, 1)
	require.ErrorIs(t, err, keystore.ErrNotFound)
	require.NoError(t, d.Write("name", []byte("one")))
	require.NoError(t, d.Write("name", []byte("two")))
	data, err := d.Read("name")
	require.NoError(t, err)
	require.Equal(t, "two", string(data))
	info, err := os.Stat(filepath.Join(path, "name"))
	require.NoError(t, err)
	require.Zero(t, info.Mode().Perm()&0o077, "for its owner only")
	require.NoError(t, d.Write("large", make([]byte, 65<<10)))
	_, err = d.Read("large")
	require.ErrorIs(t, err, keystore.ErrCorrupt)

	var v struct{ A int }
	require.NoError(t, d.Write("json", []byte(`{"A":1,"B":2}`)))
	require.ErrorIs(t, d.ReadJSON("json", &v), keystore.ErrCorrupt)

	for epoch := range uint64(4) {
		s, err := statedir.Seal(rand.Reader, statedir.Sealed{Kind: statedir.KindFile, Epoch: epoch}, nil, clearly)
		require.NoError(t, err)
		require.NoError(t, d.PutSealed(s))
	}
	_, err = d.Sealed(statedir.KindTPM, 1)
	require.ErrorIs(t, err, keystore.ErrCorrupt, "of another kind of device")
	require.NoError(t, d.EraseBefore(2))
	epochs, err := d.Epochs()
	require.NoError(t, err)
	require.Equal(t, []uint64{2, 3}, epochs)
}
