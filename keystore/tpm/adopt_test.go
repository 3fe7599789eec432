package tpm_test

import (
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/swtpm"
	"github.com/reseal-bft/reseal/keystore/tpm"
	"github.com/stretchr/testify/require"
)

// TestLostDirectory: without the directory nobody has the identity; with a backup it
// goes on, and what was sealed is erased.
func TestLostDirectory(t *testing.T) {
	dev := newTPM(t, ours)
	lost, old := newStore(t, dev.URI())
	require.NoError(t, lost.Seal(0, []byte("share")))
	for epoch := uint64(1); epoch <= 8; epoch++ { // ahead as far as it goes
		require.NoError(t, lost.Seal(epoch, []byte("pending")))
	}
	require.ErrorContains(t, lost.Seal(9, nil), "advance first")
	backup, err := tpm.Backup(old)
	require.NoError(t, err)

	stranger, _ := newStore(t, newTPM(t, theirs).URI())
	require.NotEqual(t, lost.Identity().Public(), stranger.Identity().Public())
	o := options(filepath.Join(t.TempDir(), "new"))
	o.Backup = backup
	s, err := tpm.Init(t.Context(), dev.URI(), o)
	require.NoError(t, err)
	require.Equal(t, lost.Identity().Public(), s.Identity().Public())
	require.Equal(t, lost.AttestationKey(), s.AttestationKey())
	require.ErrorIs(t, s.Claim(), keystore.ErrNotApproved, "approvals are not in the backup")
	approvePresent(t, s)
	copySealed(t, old, o.Dir)
	for _, epoch := range []uint64{0, 8} {
		_, err = s.Unseal(epoch)
		require.ErrorIs(t, err, keystore.ErrErased)
		var refused *keystore.RefusedError
		require.ErrorAs(t, err, &refused, "the TPM says so")
	}
	require.NoError(t, s.Seal(0, []byte("new share")))
	secret, err := s.Unseal(0)
	require.NoError(t, err)
	require.Equal(t, "new share", string(secret))
	require.NoError(t, s.Claim())
	_, err = s.Quote(nonce)
	require.NoError(t, err)

	_, err = tpm.Init(t.Context(), dev.URI(), o)
	require.ErrorIs(t, err, keystore.ErrExists, "the directory is in use")
	for name, bad := range map[string][]byte{"empty": {}, "garbage": []byte("{"), "another kind": []byte(`{"kind":"pkcs11","version":3}`), "nothing in it": []byte(`{"kind":"tpm","version":3}`)} {
		o := options(filepath.Join(t.TempDir(), "bad"))
		if o.Backup = bad; len(bad) == 0 {
			continue
		}
		_, err = tpm.Init(t.Context(), dev.URI(), o)
		require.Error(t, err, name)
	}
	o = options(filepath.Join(t.TempDir(), "elsewhere"))
	o.Backup = backup
	_, err = tpm.Init(t.Context(), newTPM(t, theirs).URI(), o)
	require.ErrorIs(t, err, keystore.ErrForeignDevice)
}

// TestOverTCP reaches the TPM by TCP, where a response arrives in parts.
func TestOverTCP(t *testing.T) {
	dev := newTPM(t, ours)
	s, _ := newStore(t, relay(t, dev))
	require.NoError(t, s.Seal(0, []byte("share")))
	secret, err := s.Unseal(0)
	require.NoError(t, err)
	require.Equal(t, "share", string(secret))
}

// relay reaches a TPM by TCP until the test ends, and returns the URI to give.
func relay(t *testing.T, dev *swtpm.TPM) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			forward(client, dev.Socket())
		}
	}()
	return "tpm:tcp:" + listener.Addr().String()
}

// forward connects a client to a socket, and hands responses on byte by byte.
func forward(client net.Conn, socket string) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	one := make([]byte, 1)
	for {
		if _, err := server.Read(one); err != nil {
			return
		}
		if _, err := client.Write(one); err != nil {
			return
		}
	}
}
