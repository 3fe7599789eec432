package swtpm_test

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/reseal-bft/reseal/keystore/swtpm"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// TestSeveralAtOnce makes TPMs concurrently under one new authority, and runs,
// reboots and ends them.
func TestSeveralAtOnce(t *testing.T) {
	dir := t.TempDir()
	ca, err := swtpm.NewCA(filepath.Join(dir, "ca"))
	require.NoError(t, err)
	var g errgroup.Group
	tpms := make([]*swtpm.TPM, 3)
	for i := range tpms {
		g.Go(func() error {
			d := filepath.Join(dir, "tpm", string(rune('a'+i)))
			if err := ca.Manufacture(t.Context(), d); err != nil {
				return err
			}
			var err error
			tpms[i], err = swtpm.Start(t.Context(), d)
			return err
		})
	}
	require.NoError(t, g.Wait())
	certs, err := ca.Certificates()
	require.NoError(t, err)
	require.NoError(t, certs[1].CheckSignatureFrom(certs[0]))
	for _, tpm := range tpms {
		require.NoError(t, tpm.Reboot())
		require.NoError(t, tpm.PowerCut())
		// A client that goes away leaves the TPM running.
		conn, err := net.Dial("unix", strings.TrimPrefix(tpm.URI(), "tpm:unix:"))
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		require.NoError(t, tpm.Reboot())
		pid := tpm.PID()
		require.NoError(t, tpm.Close())
		require.NoError(t, tpm.Close(), "twice is once")
		require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	}
}

// TestMistakes covers what people do wrong.
func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	_, err := swtpm.Start(t.Context(), dir)
	require.ErrorContains(t, err, "there is no TPM in")

	ca, err := swtpm.NewCA(filepath.Join(dir, "ca"))
	require.NoError(t, err)
	tpmDir := filepath.Join(dir, "tpm")
	require.NoError(t, ca.Manufacture(t.Context(), tpmDir))
	require.ErrorContains(t, ca.Manufacture(t.Context(), tpmDir), "already")

	tpm, err := swtpm.Start(t.Context(), tpmDir)
	require.NoError(t, err)
	defer func() { require.NoError(t, tpm.Close()) }()
	_, err = swtpm.Start(t.Context(), tpmDir)
	require.Error(t, err, "two processes on one state")
}
