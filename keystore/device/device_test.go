package device_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/device"
)

func TestOpenByURI(t *testing.T) {
	uri := "file:" + filepath.Join(t.TempDir(), "k")
	opts := []keystore.Option{keystore.WithPassphrase(keystore.NewSecret([]byte("p"))), keystore.WithWorkFactor(8)}
	_, err := device.Open(t.Context(), uri, opts...)
	require.ErrorIs(t, err, keystore.ErrNoKeystore)
	made, err := device.Init(t.Context(), uri, opts...)
	require.NoError(t, err)
	require.NoError(t, made.Close())
	k, err := device.Open(t.Context(), uri, opts...)
	require.NoError(t, err)
	require.Equal(t, made.Identity().Public(), k.Identity().Public())
	require.NoError(t, k.Close())
}

// TestMistakes: an error is one line, names the part that is wrong, and comes
// with no keystore.
func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	for uri, want := range map[string]string{
		"":                                 "not the URI of a keystore",
		"tpm0":                             "not the URI of a keystore",
		"tpm:/no/such/device":              "there is no keystore",
		"pkcs11:token=x":                   "module-path",
		"file:/no/such/dir?pass=x":         `unknown attribute "pass"`,
		"file:" + dir:                      "there is no keystore",
		"tpm:unix:/no/such/socket?slot=-1": "slot=-1",
	} {
		k, err := device.Open(t.Context(), uri, keystore.WithDir(dir))
		require.ErrorContains(t, err, want, uri)
		require.NotContains(t, err.Error(), "\n")
		require.Nil(t, k)
		k, err = device.Init(t.Context(), uri, keystore.WithDir(dir))
		require.Error(t, err, uri)
		require.Nil(t, k)
	}
}
