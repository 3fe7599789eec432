package scheme_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/scheme"
	"github.com/reseal-bft/reseal/threshold"
	"github.com/reseal-bft/reseal/threshold/thresholdtest"
)

// member is what one replica holds of a scheme.
type member interface {
	bft.Scheme
	bft.Signer
}

// lists returns a list scheme for each of n replicas.
func lists(t *testing.T, n, quorum int) map[bft.ReplicaID]member {
	keys := make(map[bft.ReplicaID]ed25519.PublicKey)
	private := make(map[bft.ReplicaID]ed25519.PrivateKey)
	for id := bft.ReplicaID(1); int(id) <= n; id++ {
		public, key, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		keys[id], private[id] = public, key
	}
	members := make(map[bft.ReplicaID]member)
	for id, key := range private {
		members[id] = scheme.List(keys, quorum, key)
	}
	return members
}

// thresholds returns a threshold scheme for each of n replicas.
func thresholds(t *testing.T, n, quorum int) map[bft.ReplicaID]member {
	sharing, shares, err := thresholdtest.Sharing(threshold.Params{N: n, T: quorum, F: 0})
	require.NoError(t, err)
	members := make(map[bft.ReplicaID]member)
	for i, share := range shares {
		members[bft.ReplicaID(i+1)] = scheme.Threshold(sharing, share)
	}
	return members
}

func TestBothSchemesKeepTheirPromises(t *testing.T) {
	for name, members := range map[string]map[bft.ReplicaID]member{"list": lists(t, 6, 4), "threshold": thresholds(t, 6, 4)} {
		t.Run(name, func(t *testing.T) {
			message, other := []byte("block 7"), []byte("block 8")
			partials := make(map[bft.ReplicaID][]byte)
			sign := func(id bft.ReplicaID, message []byte) {
				p, err := members[id].Sign(message)
				require.NoError(t, err)
				partials[id] = p
			}
			s := members[1]
			for id := bft.ReplicaID(1); id <= 3; id++ {
				sign(id, message)
			}
			_, _, err := s.Combine(message, partials)
			require.Error(t, err, "one less than the quorum")

			sign(5, other)
			_, bad, err := s.Combine(message, partials)
			require.Error(t, err)
			require.Equal(t, []bft.ReplicaID{5}, bad, "the signature on something else is named")

			sign(6, message)
			partials[4] = []byte("short")
			signature, bad, err := s.Combine(message, partials)
			require.NoError(t, err, "a quorum of good ones is enough")
			require.Contains(t, bad, bft.ReplicaID(4))

			good := s.Verify([][]byte{message, message, other, message, message}, [][]byte{signature[1:], signature, signature, append(signature, signature...), nil})
			require.Equal(t, []bool{false, true, false, false, false}, good)

			for id := range members {
				sign(id, message)
			}
			again, bad, err := s.Combine(message, partials)
			require.NoError(t, err)
			require.Empty(t, bad)
			require.Len(t, again, len(signature), "of more than a quorum, a quorum is taken")
			require.Equal(t, []bool{true}, s.Verify([][]byte{message}, [][]byte{again}))
		})
	}
}

func TestAListCountsEveryReplicaOnce(t *testing.T) {
	members := lists(t, 4, 3)
	message := []byte("m")
	one, err := members[1].Sign(message)
	require.NoError(t, err)
	forged := make([]byte, 0, 3*66)
	for range 3 {
		forged = append(append(forged, 0, 1), one...)
	}
	require.Equal(t, []bool{false}, members[2].Verify([][]byte{message}, [][]byte{forged}))

	var all []byte // a certificate has one form: a quorum, and not one more
	for id := bft.ReplicaID(1); id <= 4; id++ {
		signature, err := members[id].Sign(message)
		require.NoError(t, err)
		all = append(append(all, 0, byte(id)), signature...)
	}
	for count := range 5 {
		require.Equal(t, []bool{count == 3}, members[2].Verify([][]byte{message}, [][]byte{all[:count*66]}), "%d signatures", count)
	}
}

func TestAVerifierMakesNoCertificates(t *testing.T) {
	d, err := threshold.Deal(rand.Reader, threshold.Params{N: 1, T: 1, F: 0}, nil)
	require.NoError(t, err)
	key, err := d.Commitment().PublicKey()
	require.NoError(t, err)
	_, _, err = scheme.Verifier(key).Combine([]byte("m"), nil)
	require.Error(t, err)
}
