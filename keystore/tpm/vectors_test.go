package tpm_test

import (
	"bytes"
	"crypto/rand"
	"encoding"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/stretchr/testify/require"
)

var writeVectors = flag.String("vectors", "", "write the test vectors of package keystore to this directory")

// TestVectors makes what package keystore verifies without a TPM, and, when asked to,
// keeps it as the vectors of that package.
func TestVectors(t *testing.T) {
	dev := newTPM(t, ours)
	s, _ := newStore(t, dev.URI())
	files := map[string][]byte{"attestation-key": s.AttestationKey()}
	marshal := func(name string, v encoding.BinaryMarshaler) {
		data, err := v.MarshalBinary()
		require.NoError(t, err)
		files[name] = data
	}
	e, err := s.Enrollment()
	require.NoError(t, err)
	marshal("enrollment-1", e)
	values, err := s.ReadPCRs()
	require.NoError(t, err)
	a, err := keystore.Approve(rand.Reader, shared.operator, keystore.BootState{Device: s.DeviceID(), PCRs: values, Version: 3})
	require.NoError(t, err)
	marshal("approval-1", a)
	require.NoError(t, s.Claim())
	q, err := s.Quote(bytes.Repeat([]byte("n"), 32))
	require.NoError(t, err)
	marshal("quote-1", q)
	certs, err := shared.ca.Certificates()
	require.NoError(t, err)
	files["root.der"], files["issuer.der"] = certs[0].Raw, certs[1].Raw
	dir := *writeVectors
	if dir == "" {
		dir = t.TempDir()
	}
	for name, data := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
}
