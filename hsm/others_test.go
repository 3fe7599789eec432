package hsm_test

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/reseal-bft/reseal/hsm"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/swtpm"
	"github.com/stretchr/testify/require"
)

const nssModule = "/usr/lib/x86_64-linux-gnu/libsoftokn3.so"

// TestConformanceNSS runs the suite on the softoken of NSS (Firefox's), which
// wraps keys where SoftHSM encrypts them.
func TestConformanceNSS(t *testing.T) {
	dir := t.TempDir()
	pin := filepath.Join(dir, "pin")
	require.NoError(t, os.WriteFile(pin, []byte("correct horse\n"), 0o600))
	db := filepath.Join(dir, "db")
	require.NoError(t, os.Mkdir(db, 0o700))
	out, err := exec.Command("certutil", "-N", "-d", "sql:"+db, "-f", pin).CombinedOutput()
	require.NoError(t, err, "%s (run `apt-get install libnss3-tools`)", out)
	reserved := "configdir='sql:" + db + "' certPrefix='' keyPrefix='' secmod='secmod.db' flags="
	runConformance(t, "token="+url.PathEscape("NSS Certificate DB"),
		"module-path="+nssModule+"&pin-source=file:"+pin+"&x-init-reserved="+url.PathEscape(reserved))
}

const tpm2Module = "/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so"

// TestUnsuitableToken: the PKCS#11 library over a TPM has no AES, and so cannot
// seal. Init says so, in a sentence, and leaves nothing on the token.
func TestUnsuitableToken(t *testing.T) {
	dir := t.TempDir()
	ca, err := swtpm.NewCA(filepath.Join(dir, "ca"))
	require.NoError(t, err)
	require.NoError(t, ca.Manufacture(t.Context(), filepath.Join(dir, "tpm")))
	dev, err := swtpm.Start(t.Context(), filepath.Join(dir, "tpm"))
	require.NoError(t, err)
	defer func() { require.NoError(t, dev.Close()) }()
	store := filepath.Join(dir, "store")
	require.NoError(t, os.Mkdir(store, 0o700))
	t.Setenv("TPM2_PKCS11_STORE", store)
	t.Setenv("TPM2_PKCS11_TCTI", "swtpm:path="+dev.Socket())
	t.Setenv("RESEAL_TEST_PIN", "1234567")
	for _, args := range [][]string{
		{"--init-token", "--slot-index", "0", "--label", "tpm2", "--so-pin", "12345678"},
		{"--token-label", "tpm2", "--login", "--login-type", "so", "--so-pin", "12345678", "--init-pin", "--pin", "1234567"},
	} {
		out, err := exec.Command("pkcs11-tool", append([]string{"--module", tpm2Module}, args...)...).CombinedOutput()
		require.NoError(t, err, "%s (run `apt-get install opensc libtpm2-pkcs11-1`)", out)
	}
	uri := fmt.Sprintf("pkcs11:token=tpm2?module-path=%s&pin-source=env:RESEAL_TEST_PIN", tpm2Module)
	_, err = hsm.Init(t.Context(), uri, options(filepath.Join(dir, "keystore")))
	require.ErrorIs(t, err, keystore.ErrUnsupported)
	require.ErrorContains(t, err, "it can seal neither by aes-gcm")
	t.Log(err)
	n, err := hsm.Inventory(t.Context(), uri, options(dir))
	require.NoError(t, err)
	require.Zero(t, n)
}
