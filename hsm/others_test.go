package hsm_test

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

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
