package tpm_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"
)

// tool runs one of tpm2-tools.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command("tpm2_"+name, args...).CombinedOutput()
	require.NoError(t, err, "tpm2_%s: %s (run `apt-get install tpm2-tools`)", name, out)
	return string(out)
}

// tssSignature writes a signature as tpm2-tools do (TPMT_SIGNATURE).
func tssSignature(t *testing.T, sig []byte) []byte {
	t.Helper()
	var b cryptobyte.Builder
	b.AddUint16(0x0018)
	b.AddUint16(0x000b)
	b.AddUint16LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes(sig[:32]) })
	b.AddUint16LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes(sig[32:]) })
	out, err := b.Bytes()
	require.NoError(t, err)
	return out
}

// TestToolsAcceptOurQuote: tpm2_checkquote verifies our quotes, and refuses a
// changed one.
func TestToolsAcceptOurQuote(t *testing.T) {
	dev := newTPM(t, ours)
	s, _ := newStore(t, dev.URI())
	q, err := s.Quote(nonce)
	require.NoError(t, err)
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	key, err := keystore.PublicKey(s.AttestationKey())
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(key)
	require.NoError(t, err)
	var values []byte
	for _, v := range q.PCRs {
		values = append(values, v.Digest[:]...)
	}
	args := []string{
		"--public", file("ak.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		"--signature", file("signature", tssSignature(t, q.Signature)),
		"--qualification", hex.EncodeToString(nonce), "--hash-algorithm", "sha256",
		"--pcr-list", "sha256:" + keystore.DefaultPCRs.String(),
		"--pcr", file("pcrs", values),
	}
	tool(t, "checkquote", append(args, "--message", file("message", q.Attest))...)

	q.Attest[len(q.Attest)-1] ^= 1
	cmd := exec.Command("tpm2_checkquote", append(args, "--message", file("forged", q.Attest))...)
	out, err := cmd.CombinedOutput()
	require.Error(t, err, "%s", out)
}

// TestWeAcceptTheirQuote: we verify what tpm2_quote makes with the same key.
func TestWeAcceptTheirQuote(t *testing.T) {
	dev := newTPM(t, ours)
	s, _ := newStore(t, dev.URI())
	dir := t.TempDir()
	message, signature := filepath.Join(dir, "message"), filepath.Join(dir, "signature")
	tool(t, "quote", "-T", "swtpm:path="+dev.Socket(), "-c", "0x81005201",
		"-l", "sha256:"+keystore.DefaultPCRs.String(), "-q", hex.EncodeToString(nonce), "-g", "sha256",
		"-m", message, "-s", signature)
	attest, err := os.ReadFile(message)
	require.NoError(t, err)
	tss, err := os.ReadFile(signature)
	require.NoError(t, err)
	var r, v cryptobyte.String
	in := cryptobyte.String(tss[4:])
	require.True(t, in.ReadUint16LengthPrefixed(&r) && in.ReadUint16LengthPrefixed(&v))
	sig, err := keystore.EncodeSignature(new(big.Int).SetBytes(r), new(big.Int).SetBytes(v))
	require.NoError(t, err)
	values, err := s.ReadPCRs()
	require.NoError(t, err)
	claims, err := keystore.VerifyQuote(s.AttestationKey(), nonce, &keystore.Quote{Attest: attest, Signature: sig, PCRs: values})
	require.NoError(t, err)
	st, err := s.Status()
	require.NoError(t, err)
	require.Equal(t, st.ResetCount, claims.ResetCount)
}

// TestToolsSeeOurObjects: tpm2-tools show the attributes that we promise.
func TestToolsSeeOurObjects(t *testing.T) {
	dev := newTPM(t, ours)
	s, _ := newStore(t, dev.URI())
	tcti := []string{"-T", "swtpm:path=" + dev.Socket()}
	identity := tool(t, "readpublic", append(tcti, "-c", "0x81005200")...)
	for _, attribute := range []string{"fixedtpm", "fixedparent", "sensitivedataorigin", "noda", "sign"} {
		require.Contains(t, identity, attribute)
	}
	require.NotContains(t, identity, "restricted")
	require.Contains(t, tool(t, "readpublic", append(tcti, "-c", "0x81005201")...), "restricted")
	counters := tool(t, "nvreadpublic", tcti...)
	for _, text := range []string{"0x1805200", "0x1805201", "nt=0x1", "no_da"} {
		require.Contains(t, counters, text)
	}
	require.Contains(t, counters, hex.EncodeToString(keystore.CounterName(keystore.EpochCounter(0))))

	// A signature of the identity key, verified by the tools and by OpenSSL's
	// encoding of the key.
	dir := t.TempDir()
	digest := sha256.Sum256([]byte("message"))
	der, err := s.Identity().Sign(rand.Reader, digest[:], crypto.SHA256)
	require.NoError(t, err)
	var rs struct{ R, S *big.Int }
	_, err = asn1.Unmarshal(der, &rs)
	require.NoError(t, err)
	raw := append(rs.R.FillBytes(make([]byte, 32)), rs.S.FillBytes(make([]byte, 32))...)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "sig"), tssSignature(t, raw), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "digest"), digest[:], 0o600))
	tool(t, "verifysignature", append(tcti, "-c", "0x81005200",
		"-d", filepath.Join(dir, "digest"), "-s", filepath.Join(dir, "sig"))...)
	require.True(t, ecdsa.VerifyASN1(s.Identity().Public().(*ecdsa.PublicKey), digest[:], der))
}
