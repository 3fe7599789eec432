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
		d, err := Deal(rand.Reader, p, []byte("generation"))
		require.NoError(t, err)
		dealings[dealer] = d.Commitment()
		key, err := d.Commitment().PublicKey()
		require.NoError(t, err)
		certified, err := key.Certify(Certification{Dealer: dealer, Message: key.Bytes(), Verify: func([]byte, []byte) error { return nil }})
		require.NoError(t, err)
		keys = append(keys, certified)
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

	shareKeys := []*PublicKey{generated.Sharing().ShareKey(4), generated.Sharing().ShareKey(2), generated.Sharing().ShareKey(1)}
	group, err := InterpolatePublicKey([]int{4, 2, 1}, shareKeys)
	require.NoError(t, err)
	require.True(t, group.Equal(sum))

	for _, bad := range [][]int{{1, 1, 2}, {0, 1, 2}, {1, 2}, {1, 2, MaxReceivers + 1}} {
		_, err := InterpolatePublicKey(bad, shareKeys)
		require.Error(t, err)
	}
	_, err = InterpolatePublicKey(nil, nil)
	require.Error(t, err)
	_, err = InterpolatePublicKey([]int{1}, []*PublicKey{nil})
	require.Error(t, err)
	_, err = SumPublicKeys()
	require.Error(t, err)
}
