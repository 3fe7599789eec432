package keystore_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestDisableDumps runs in a process of its own, as it cannot be undone.
func TestDisableDumps(t *testing.T) {
	if os.Getenv("RESEAL_TEST_CHILD") == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestDisableDumps$")
		cmd.Env = append(os.Environ(), "RESEAL_TEST_CHILD=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	require.NoError(t, keystore.DisableDumps())
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	require.NoError(t, err)
	require.Zero(t, dumpable)
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_CORE, &limit))
	require.Zero(t, limit.Cur)
}
