package keystore

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// DisableDumps keeps the memory of this process out of core files, and out of
// the reach of debuggers of the same user. A process that unseals calls it once,
// at its start. Swap is up to the system.
func DisableDumps() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process undumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("set the limit of core files to 0: %w", err)
	}
	return nil
}
