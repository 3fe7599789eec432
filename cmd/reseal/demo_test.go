package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/internal/demo"
)

// shortTempDir makes a temporary directory whose path leaves room for that of a socket.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(temporary, "d")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// runDemo runs the demonstration with a temporary directory of its own, checks that it leaves
// nothing behind, and returns its report.
func runDemo(t *testing.T, arguments ...string) demo.Report {
	t.Helper()
	dir := shortTempDir(t)
	t.Setenv("TMPDIR", dir)
	out := succeeds(t, append([]string{"demo", "--duration", "1s", "--json", "-"}, arguments...)...)
	var report demo.Report
	require.NoError(t, json.Unmarshal([]byte(out), &report), "standard output is the report and nothing else")
	require.Empty(t, mentioning(t, dir), "processes are left")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "files are left")
	return report
}

// TestDemo runs the main job with software TPMs. What it demands is demanded of the report once
// more, by plain numbers.
func TestDemo(t *testing.T) {
	r := runDemo(t)
	require.Equal(t, 6, r.N)
	require.Positive(t, r.Acknowledged)
	require.Zero(t, r.Lost)
	require.Zero(t, r.UnverifiedReplies)
	require.Len(t, r.Recoveries, 6)
	for i, recovery := range r.Recoveries {
		require.EqualValues(t, i+1, recovery.Replica, "each in its turn")
		require.True(t, recovery.Attested)
		require.Greater(t, recovery.ResetCountAfter, recovery.ResetCountBefore)
	}
	require.Len(t, r.GroupKeyBefore, 2*96)
	require.Equal(t, r.GroupKeyBefore, r.GroupKeyAfter)
	require.Equal(t, 6, r.OldSharesRefused)
	require.Equal(t, 6, r.OtherProcessesRefused)
	if os.Geteuid() == 0 {
		require.Equal(t, 6, r.OldCredentialsRefused)
	}
	require.NotZero(t, r.Tampered.Replica)
	require.False(t, r.Tampered.Admitted)
	require.Contains(t, r.Tampered.Reason, "PCRs [14] are not as approved")
	require.Equal(t, 48, r.CertificateBytes)
	require.GreaterOrEqual(t, r.Epochs, 10)
	require.Positive(t, r.OperationsPerSecond)
	require.Positive(t, r.OperationsPerSecondDuringRecovery)
}

func TestDemoWithSoftHSM(t *testing.T) {
	r := runDemo(t, "--keystore", "softhsm", "--c", "0", "--clients", "2")
	require.Equal(t, "softhsm", r.Keystore)
	require.Zero(t, r.Lost)
	require.Len(t, r.Recoveries, 4)
	require.False(t, r.Recoveries[0].Attested)
	require.Equal(t, 4, r.OldSharesRefused)
}

func TestDemoWithoutHardwareOrSlack(t *testing.T) {
	r := runDemo(t, "--keystore", "file", "--c", "0", "--clients", "2")
	require.Equal(t, 4, r.N)
	require.Equal(t, "file", r.Keystore)
	require.Zero(t, r.Lost)
	require.Len(t, r.Recoveries, 4)
	require.False(t, r.Recoveries[0].Attested)
	require.Zero(t, r.OldSharesRefused, "files cannot refuse a copy of themselves, and nobody says they do")
}

// startDemo starts the demonstration and waits until its replicas run.
func startDemo(t *testing.T, arguments ...string) (cmd *exec.Cmd, dir string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	dir = shortTempDir(t)
	t.Setenv("TMPDIR", dir)
	cmd = children{t}.start(log, append([]string{"demo"}, arguments...)...)
	require.Eventually(t, func() bool { return len(mentioning(t, dir)) >= 6 }, time.Minute, 10*time.Millisecond)
	return cmd, dir
}

func TestInterruptedDemoStopsEverything(t *testing.T) {
	for _, keystore := range []string{"file", "swtpm"} {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			t.Run(keystore+" "+signal.String(), func(t *testing.T) {
				cmd, dir := startDemo(t, "--keystore", keystore)
				require.NoError(t, cmd.Process.Signal(signal))
				require.Error(t, cmd.Wait())
				require.Equal(t, 1, cmd.ProcessState.ExitCode())
				require.Empty(t, mentioning(t, dir))
				entries, err := os.ReadDir(dir)
				require.NoError(t, err)
				require.Empty(t, entries)
			})
		}
	}
}

// TestKilledDemoTakesItsProcessesAlong: nobody can clean up files after SIGKILL, but no replica and
// no TPM outlives it.
func TestKilledDemoTakesItsProcessesAlong(t *testing.T) {
	cmd, dir := startDemo(t)
	t.Cleanup(func() {
		for _, pid := range mentioning(t, dir) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	running := filepath.Join(dir, "reseal-*", "cluster", "replica-6", "replica.log")
	require.Eventually(t, func() bool {
		found, err := filepath.Glob(running)
		return err == nil && len(found) == 1
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.Eventually(t, func() bool { return len(mentioning(t, dir)) == 0 }, time.Minute, 10*time.Millisecond)
}

func TestDemoKeepsItsDirectoryWhenAsked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kept")
	input := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(input, "file"), []byte("content"), 0o600))
	succeeds(t, "demo", "--keystore", "file", "--c", "0", "--duration", "1s", "--dir", dir, "--keep", "--input", input)
	require.FileExists(t, filepath.Join(dir, "cluster", "genesis.json"))
	fails(t, []string{"demo", "--keystore", "file", "--dir", dir}, "not empty")

	empty := t.TempDir()
	fails(t, []string{"demo", "--keystore", "file", "--dir", empty, "--input", "/nonexistent"}, "--input")
	entries, err := os.ReadDir(empty)
	require.NoError(t, err, "a directory that was there stays")
	require.Empty(t, entries)
}
