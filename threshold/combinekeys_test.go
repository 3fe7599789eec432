package threshold

import (
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPublicKeysCombineAsTheSecretsDo(t *testing.T) {
	p := Params{N: 4, T: 3, F: 1}
	dealings := make(map[int]*Commitment)
	var keys []*CertifiedKey
	parts := make(map[int]map[int]*Part)
	for dealer := 1; dealer <= 3; dealer++ {
		d, err := Deal(rand.Reader, p, []byte{byte(dealer)})
		require.NoError(t, err)
		dealings[dealer] = d.Commitment()
		key, err := d.Commitment().PublicKey()
		require.NoError(t, err)
		keys = append(keys, certifiedKey(t, dealer, d.Commitment(), key))
		for j := 1; j <= p.N; j++ {
			part, err := d.Part(j)
			require.NoError(t, err)
			if parts[j] == nil {
				parts[j] = make(map[int]*Part)
			}
			parts[j][dealer] = part
		}
	}
	generated, err := KeyGeneration(certified(t, dealings)...)
	require.NoError(t, err)
	sum, err := SumPublicKeys(keys...)
	require.NoError(t, err)
	require.True(t, sum.Equal(generated.Sharing().GroupKey()))

	var shareKeys []*CertifiedKey // as of dealings of shares
	for _, dealer := range []int{4, 2, 1} {
		d, err := Deal(rand.Reader, p, nil)
		require.NoError(t, err)
		shareKeys = append(shareKeys, certifiedKey(t, dealer, d.Commitment(), generated.Sharing().ShareKey(dealer)))
	}
	group, err := InterpolatePublicKey(shareKeys...)
	require.NoError(t, err)
	require.True(t, group.Equal(sum))

	_, err = InterpolatePublicKey(append(shareKeys[:2:2], shareKeys[1])...)
	require.ErrorContains(t, err, "two keys")
	_, err = InterpolatePublicKey()
	require.Error(t, err)
	_, err = InterpolatePublicKey(nil)
	require.ErrorIs(t, err, errMissing)
	_, err = InterpolatePublicKey(new(CertifiedKey))
	require.ErrorIs(t, err, errMissing)
	_, err = SumPublicKeys()
	require.Error(t, err)
}
