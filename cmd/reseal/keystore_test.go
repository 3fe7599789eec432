package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/hsm/softhsm"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/check"
	"github.com/reseal-bft/reseal/keystore/swtpm"
)

// runCommand runs a command as the shell would, and returns what it printed.
func runCommand(t *testing.T, cmd *cobra.Command, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestKeystoreCheck(t *testing.T) {
	for name, uri := range map[string]string{
		"tpm":     softwareTPM(t),
		"softhsm": softToken(t),
		"file":    "file:" + filepath.Join(t.TempDir(), "none"),
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // it leaves nothing behind that would be in its way
				out, err := runCommand(t, newKeystoreCommand(), "check", uri, "--json", "-")
				require.NoError(t, err, out)
				var report check.Report
				require.NoError(t, json.Unmarshal([]byte(out), &report))
				require.NotEmpty(t, report.Rows)
				require.True(t, report.Software)
			}
			out, err := runCommand(t, newKeystoreCommand(), "check", uri)
			require.NoError(t, err)
			t.Log("\n" + out)
		})
	}
}

func TestKeystoreInitAndStatus(t *testing.T) {
	uri, dir := softwareTPM(t), filepath.Join(t.TempDir(), "keystore")
	_, err := runCommand(t, newKeystoreCommand(), "init", uri, "--dir", dir)
	require.ErrorContains(t, err, "--operator-key")
	_, err = runCommand(t, newKeystoreCommand(), "status", uri, "--dir", dir)
	require.ErrorIs(t, err, keystore.ErrNoKeystore)

	operator, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(&operator.PublicKey)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "operator.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
	out, err := runCommand(t, newKeystoreCommand(), "init", uri, "--dir", dir, "--operator-key", file, "--pcrs", "7,14")
	require.NoError(t, err)
	require.Contains(t, out, "7,14")
	again, err := runCommand(t, newKeystoreCommand(), "status", uri, "--dir", dir, "--operator-key", file, "--pcrs", "7,14")
	require.NoError(t, err)
	require.Equal(t, out, again)
	_, err = runCommand(t, newKeystoreCommand(), "status", uri, "--dir", dir)
	require.ErrorContains(t, err, "--operator-key", "the directory does not say who approves boot states")

	// The directory is lost, and made again from its backup.
	backup := filepath.Join(t.TempDir(), "backup")
	_, err = runCommand(t, newKeystoreCommand(), "backup", "--dir", dir, "--out", backup)
	require.NoError(t, err)
	_, err = runCommand(t, newKeystoreCommand(), "backup", "--dir", dir, "--out", backup)
	require.ErrorIs(t, err, os.ErrExist)
	require.NoError(t, os.RemoveAll(dir))
	restored, err := runCommand(t, newKeystoreCommand(), "init", uri, "--dir", dir, "--operator-key", file, "--pcrs", "7,14", "--backup", backup)
	require.NoError(t, err)
	require.Equal(t, identityLine(out), identityLine(restored))

	_, err = runCommand(t, newKeystoreCommand(), "status", "tpm:nonsense", "--dir", dir)
	require.ErrorContains(t, err, "tpm:/dev/tpmrm0")
	_, err = runCommand(t, newKeystoreCommand(), "status")
	require.ErrorContains(t, err, "URI")
}

// identityLine is the line of a status that names the identity key.
func identityLine(status string) string {
	for line := range strings.Lines(status) {
		if strings.HasPrefix(line, "identity") {
			return line
		}
	}
	return ""
}

func softwareTPM(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ca, err := swtpm.NewCA(filepath.Join(dir, "ca"))
	require.NoError(t, err)
	require.NoError(t, ca.Manufacture(t.Context(), filepath.Join(dir, "tpm")))
	tpm, err := swtpm.Start(t.Context(), filepath.Join(dir, "tpm"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tpm.Close()) })
	return tpm.URI()
}

func softToken(t *testing.T) string {
	t.Helper()
	store, err := softhsm.New(t.TempDir())
	require.NoError(t, err)
	token, err := store.NewToken(t.Context(), rand.Reader, "check")
	require.NoError(t, err)
	return token.URI()
}

func TestKeystorePredict(t *testing.T) {
	log := filepath.Join("..", "..", "keystore", "testdata", "eventlog-small")
	out, err := runCommand(t, newKeystoreCommand(), "predict", "--eventlog", log, "--pcrs", "0,9")
	require.NoError(t, err)
	zero := strings.Repeat("0", 63)
	require.Equal(t, "0 "+zero+"3\n9 "+zero+"0\n", out)
	for want, args := range map[string][]string{
		"--eventlog":          {"predict", "--eventlog", "/no/such/log"},
		"does not begin as":   {"predict", "--eventlog", "keystore_test.go"},
		"write it as 0,2,4,7": {"predict", "--eventlog", log, "--pcrs", "x"},
		"is not known here":   {"predict", "x"},
	} {
		_, err := runCommand(t, newKeystoreCommand(), args...)
		require.ErrorContains(t, err, want)
	}
}
