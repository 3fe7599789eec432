package tpm_test

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
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
	s, _ := claimedStore(t, dev.URI())
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

// TestToolsSeeOurObjects: tpm2-tools show the attributes that we promise.
func TestToolsSeeOurObjects(t *testing.T) {
	dev := newTPM(t, ours)
	newStore(t, dev.URI())
	tcti := []string{"-T", "swtpm:path=" + dev.Socket()}
	attestation := tool(t, "readpublic", append(tcti, "-c", "0x81005201")...)
	for _, attribute := range []string{"fixedtpm", "fixedparent", "sensitivedataorigin", "noda", "sign", "restricted", "authorization policy: "} {
		require.Contains(t, attestation, attribute)
	}
	require.NotContains(t, attestation, "userwithauth")
	require.NotContains(t, tool(t, "getcap", append(tcti, "handles-persistent")...), "0x81005200", "the identity key is nowhere")
	counters := tool(t, "nvreadpublic", tcti...)
	for _, text := range []string{"0x1805200", "0x1805201", "nt=0x1", "no_da"} {
		require.Contains(t, counters, text)
	}
	require.Contains(t, counters, hex.EncodeToString(keystore.CounterName(keystore.EpochCounter(0))))

}
