package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// TestRestartEndsTheClaim: a restart (Shutdown(STATE), which anybody may send, and Startup(CLEAR))
// begins a boot with fresh PCRs and the same resetCount. A copy of the memory from before it is
// worth nothing in it.
func TestRestartEndsTheClaim(t *testing.T) {
	dev := newTPM(t, ours)
	s, dir := newStore(t, dev.URI())
	require.NoError(t, s.Seal(0, []byte("share")))
	require.NoError(t, dev.Reboot())
	s = openStore(t, dev.URI(), dir)
	before, err := s.ReadPCRs()
	require.NoError(t, err)
	require.NoError(t, s.Claim())
	digest := sha256.Sum256([]byte("x"))
	_, err = s.Identity().Sign(nil, digest[:], crypto.SHA256)
	require.NoError(t, err)

	// The intruder has s, its memory. Anybody may send Shutdown(STATE).
	command := func(f func(raw transport.TPM) error) {
		c, err := net.Dial("unix", dev.Socket())
		require.NoError(t, err)
		require.NoError(t, f(transport.FromReadWriteCloser(c)))
		require.NoError(t, c.Close())
	}
	command(func(raw transport.TPM) error {
		_, err := tpm2.Shutdown{ShutdownType: tpm2.TPMSUState}.Execute(raw)
		return err
	})
	ctl := dev.Socket() + ".ctrl"
	// CMD_INIT (2), flags 0: power cycle; then the firmware's Startup(CLEAR)
	control(t, ctl, 0, 0, 0, 2, 0, 0, 0, 0)
	command(func(raw transport.TPM) error {
		_, err := tpm2.Startup{StartupType: tpm2.TPMSUClear}.Execute(raw)
		return err
	})
	clean := openStore(t, dev.URI(), dir)
	after, err := clean.ReadPCRs()
	require.NoError(t, err)
	require.Equal(t, before, after, "the PCRs are those of a new boot")
	_, err = clean.Unseal(0)
	require.NoError(t, err)
	require.ErrorIs(t, clean.Claim(), keystore.ErrClaimed, "such a boot is claimed by nobody")
	_, err = s.Identity().Sign(nil, digest[:], crypto.SHA256)
	require.ErrorIs(t, err, keystore.ErrUnclaimed, "the copy of the memory signs after the reboot")
	_, err = s.Quote(nonce)
	require.ErrorIs(t, err, keystore.ErrUnclaimed)
}

// TestForgedRecordKeepsNothingAlive: the record of epochs says that the next one has begun already.
// The Advance to it ends the present one all the same.
func TestForgedRecordKeepsNothingAlive(t *testing.T) {
	dev := newTPM(t, ours)
	s, dir := newStore(t, dev.URI())
	require.NoError(t, s.Advance(1))
	require.NoError(t, s.Seal(1, []byte("share of epoch 1")))
	names, _ := filepath.Glob(filepath.Join(dir, "sealed-*"))
	require.Len(t, names, 1)
	copied, err := os.ReadFile(names[0])
	require.NoError(t, err)
	// The intruder, once.
	record, err := os.ReadFile(filepath.Join(dir, "epoch.json"))
	require.NoError(t, err)
	t.Logf("%s", record)
	forged := bytes.Replace(bytes.ReplaceAll(record, []byte(" "), nil), []byte(`"epoch":1`), []byte(`"epoch":2`), 1)
	require.NotEqual(t, record, forged)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "epoch.json"), forged, 0o600))
	require.NoError(t, os.Remove(names[0]))
	// A clean boot: the share is lost, the group gives another.
	require.NoError(t, s.Close())
	require.NoError(t, dev.Reboot())
	s = openStore(t, dev.URI(), dir)
	_, err = s.Unseal(1)
	t.Log("unseal(1):", err)
	require.NoError(t, s.Claim())
	require.NoError(t, s.Seal(2, []byte("share of epoch 2")))
	require.NoError(t, s.Advance(2))
	// The copy, afterwards.
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(names[0], copied, 0o600))
	require.NoError(t, dev.Reboot())
	s = openStore(t, dev.URI(), dir)
	got, err := s.Unseal(1)
	require.Error(t, err, "epoch 1 opened after Advance(2): %s", got)
}

// TestForgedEnvelopeKeepsNothingAlive: an envelope of this epoch is given out as one of the next.
func TestForgedEnvelopeKeepsNothingAlive(t *testing.T) {
	dev := newTPM(t, ours)
	s, dir := newStore(t, dev.URI())
	require.NoError(t, s.Advance(1))
	require.NoError(t, s.Seal(1, []byte("share of epoch 1")))
	all := statedirOf(t, dir)
	old, err := all.Sealed(statedir.KindTPM, 1)
	require.NoError(t, err)
	forged := *old
	forged.Epoch = 2
	require.NoError(t, all.PutSealed(&forged))
	require.NoError(t, all.RemoveBefore(2))
	require.NoError(t, s.Close())
	require.NoError(t, dev.Reboot())
	s = openStore(t, dev.URI(), dir)
	_, err = s.Unseal(1)
	t.Log("unseal(1):", err)
	_, err = s.Unseal(2)
	t.Log("unseal(2):", err)
	require.NoError(t, s.Claim())
	require.NoError(t, s.Seal(2, []byte("share of epoch 2")))
	require.NoError(t, s.Advance(2))
	require.NoError(t, s.Close())
	require.NoError(t, all.PutSealed(old))
	require.NoError(t, dev.Reboot())
	s = openStore(t, dev.URI(), dir)
	got, err := s.Unseal(1)
	require.Error(t, err, "epoch 1 opened after Advance(2): %s", got)
}
func control(t *testing.T, socket string, cmd ...byte) {
	c, err := net.Dial("unix", socket)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write(cmd)
	require.NoError(t, err)
	b := make([]byte, 4)
	_, err = c.Read(b)
	require.NoError(t, err)
	require.Equal(t, make([]byte, 4), b)
}
func statedirOf(t *testing.T, dir string) *statedir.Dir {
	d, err := statedir.New(dir)
	require.NoError(t, err)
	return d
}
