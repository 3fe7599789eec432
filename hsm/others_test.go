package hsm_test

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reseal-bft/reseal/hsm"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/swtpm"
	"github.com/stretchr/testify/require"
)

const nssModule = "/usr/lib/x86_64-linux-gnu/libsoftokn3.so"

const nssLabel = "NSS Certificate DB"

// newNSS makes a token of the softoken of NSS (Firefox's), and returns what a URI of it has before
// and after the question mark.
func newNSS(t *testing.T) (path, query string) {
	t.Helper()
	dir := t.TempDir()
	pin := filepath.Join(dir, "pin")
	require.NoError(t, os.WriteFile(pin, []byte("correct horse\n"), 0o600))
	db := filepath.Join(dir, "db")
	require.NoError(t, os.Mkdir(db, 0o700))
	out, err := exec.Command("certutil", "-N", "-d", "sql:"+db, "-f", pin).CombinedOutput()
	require.NoError(t, err, "%s (run `apt-get install libnss3-tools`)", out)
	reserved := "configdir='sql:" + db + "' certPrefix='' keyPrefix='' secmod='secmod.db' flags="
	return "token=" + url.PathEscape(nssLabel), "module-path=" + nssModule + "&pin-source=file:" + pin + "&x-init-reserved=" + url.PathEscape(reserved)
}

// TestConformanceNSS runs the suite on NSS, which wraps keys where SoftHSM encrypts them.
func TestConformanceNSS(t *testing.T) {
	path, query := newNSS(t)
	runConformance(t, path, query)
}

// TestCautionsNSS: that NSS lets keys be copied, and does not say which it made, is found out and told.
func TestCautionsNSS(t *testing.T) {
	path, query := newNSS(t)
	s, err := hsm.Init(t.Context(), "pkcs11:"+path+"?"+query, options(filepath.Join(t.TempDir(), "k")))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	st, err := s.Status()
	require.NoError(t, err)
	all := strings.Join(st.Cautions, " ")
	require.Contains(t, all, "it wraps them")
	require.Contains(t, all, "CKA_LOCAL")
	soft, _, _ := newStore(t, "no-cautions")
	st, err = soft.Status()
	require.NoError(t, err)
	all = strings.Join(st.Cautions, " ")
	require.NotContains(t, all, "it wraps them")
	require.NotContains(t, all, "CKA_LOCAL")
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
