package statedir_test

import (
	"crypto/rand"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"github.com/stretchr/testify/require"
)

// FuzzParseSealed: what parses has one encoding, and is no larger than an envelope can be.
func FuzzParseSealed(f *testing.F) {
	for _, secret := range [][]byte{nil, make([]byte, 66), make([]byte, keystore.MaxSecret)} {
		s, err := statedir.Seal(rand.Reader, statedir.Sealed{Kind: statedir.KindFile, Epoch: 7}, secret, clearly)
		require.NoError(f, err)
		data, err := s.MarshalBinary()
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := statedir.ParseSealed(data)
		if err != nil {
			require.ErrorIs(t, err, keystore.ErrCorrupt)
			return
		}
		again, err := s.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, data, again)
		_, err = s.Open(make([]byte, statedir.KeySize))
		require.Error(t, err)
	})
}
