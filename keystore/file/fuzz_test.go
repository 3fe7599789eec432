package file

import (
	"bytes"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/keystore"
)

// Whatever lies where the keystore's container was: it is refused before it costs more than is
// configured, and nothing opens but what the passphrase was put on.
func FuzzContainer(f *testing.F) {
	passphrase := keystore.NewSecret([]byte("correct"))
	to, err := age.NewScryptRecipient("correct")
	require.NoError(f, err)
	to.SetWorkFactor(minWorkFactor)
	identity, err := age.GenerateX25519Identity()
	require.NoError(f, err)
	var container bytes.Buffer
	w, err := age.Encrypt(&container, to)
	require.NoError(f, err)
	_, err = w.Write([]byte(identity.String()))
	require.NoError(f, err)
	require.NoError(f, w.Close())
	good := container.Bytes()
	f.Add(good)
	f.Add([]byte("age-encryption.org/v1\n-> scrypt AAAA 30\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if checkWorkFactor(data, minWorkFactor) != nil {
			return
		}
		opened, err := openContainer(data, passphrase)
		if err == nil {
			require.Equal(t, identity.String(), opened.String())
		}
	})
}
