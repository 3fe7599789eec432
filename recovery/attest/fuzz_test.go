package attest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// What a replica sends of its boot, and the keys and measurements that an operator names, have one
// encoding each.
func FuzzPresence(f *testing.F) {
	p := &Presence{Proof{
		Replica: 2, Epoch: 3, Certificate: bft.Certificate{Statement: bft.Statement{Epoch: 3, View: 4, Kind: bft.Finalize}, Signature: []byte("certificate")},
		Quote: []byte("quote"), Signature: []byte("signature"),
	}}
	b, err := p.Encode()
	require.NoError(f, err)
	f.Add(b)
	identity, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(f, err)
	der, err := x509.MarshalPKIXPublicKey(&identity.PublicKey)
	require.NoError(f, err)
	f.Add(der)
	f.Add([]byte(Measurement{1, 2}.String()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := ParsePresence(data); err == nil {
			again, err := p.Encode()
			require.NoError(t, err)
			require.Equal(t, data, again)
		}
		if e, err := ParseEvidence(data); err == nil {
			again, err := e.Encode()
			require.NoError(t, err)
			require.Equal(t, data, again)
		}
		if key, err := ParseIdentity(data); err == nil {
			again, err := x509.MarshalPKIXPublicKey(key)
			require.NoError(t, err)
			require.Equal(t, data, again)
		}
		var m Measurement
		if m.UnmarshalText(data) == nil {
			var again Measurement
			require.NoError(t, again.UnmarshalText([]byte(m.String())))
			require.Equal(t, m, again)
		}
	})
}
