package keystore_test

import (
	"bytes"
	"crypto/x509"
	"os"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/stretchr/testify/require"
)

// The files in testdata were made by a software TPM. A verifier of any version
// must accept them: replicas of different versions run side by side.

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	return data
}

var vectorNonce = bytes.Repeat([]byte("n"), 32)

func TestQuoteVector(t *testing.T) {
	ak, data := read(t, "attestation-key"), read(t, "quote-1")
	q, err := keystore.ParseQuote(data)
	require.NoError(t, err)
	claims, err := keystore.VerifyQuote(ak, vectorNonce, q)
	require.NoError(t, err)
	require.Equal(t, q.PCRs, claims.PCRs)
	require.Len(t, claims.PCRs, 5)

	// There is one quote only: whatever bit is changed, it does not verify.
	for i := range data {
		for bit := range 8 {
			changed := bytes.Clone(data)
			changed[i] ^= 1 << bit
			q, err := keystore.ParseQuote(changed)
			if err == nil {
				_, err = keystore.VerifyQuote(ak, vectorNonce, q)
			}
			require.Error(t, err, "byte %d, bit %d", i, bit)
		}
	}
	for size := range len(data) {
		_, err := keystore.ParseQuote(data[:size])
		require.Error(t, err)
	}
	_, err = keystore.ParseQuote(append(bytes.Clone(data), 0))
	require.Error(t, err)
}

func TestEnrollmentVector(t *testing.T) {
	e, err := keystore.ParseEnrollment(read(t, "enrollment-1"))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	for _, name := range []string{"root.der", "issuer.der"} {
		c, err := x509.ParseCertificate(read(t, name))
		require.NoError(t, err)
		roots.AddCert(c)
	}
	d, err := keystore.VerifyEnrollment(e, roots, keystoreEpoch)
	require.NoError(t, err)
	require.True(t, d.Software)
	_, err = keystore.VerifyEnrollment(e, x509.NewCertPool(), keystoreEpoch)
	require.ErrorIs(t, err, keystore.ErrInvalid, "an authority that is not trusted")
	without := *e
	without.Chain = nil
	_, err = keystore.VerifyEnrollment(&without, roots, keystoreEpoch)
	require.ErrorContains(t, err, "no endorsement certificate")

	for _, field := range []*[]byte{
		&e.Identity, &e.Attestation, &e.Gate, &e.Enroller, &e.Certification.Attest, &e.Certification.Signature,
		&e.GateCertification.Attest, &e.GateCertification.Signature,
	} {
		whole := *field
		for i := range whole {
			changed := bytes.Clone(whole)
			changed[i] ^= 1
			*field = changed
			_, err := keystore.VerifyIdentity(e)
			require.ErrorIs(t, err, keystore.ErrInvalid, "byte %d", i)
		}
		*field = whole
	}
}
