package tpm_test

import (
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/tpm"
	"github.com/stretchr/testify/require"
)

// TestLostDirectory: the identity outlives the directory, and what was sealed
// does not.
func TestLostDirectory(t *testing.T) {
	dev := newTPM(t, ours)
	lost, old := newStore(t, dev.URI())
	require.NoError(t, lost.Seal(0, []byte("share")))
	o := options(filepath.Join(t.TempDir(), "new"))
	_, err := tpm.Init(t.Context(), dev.URI(), o)
	require.ErrorIs(t, err, keystore.ErrExists)
	require.ErrorContains(t, err, "--adopt")
	o.Adopt = true
	s, err := tpm.Init(t.Context(), dev.URI(), o)
	require.NoError(t, err)
	require.Equal(t, lost.Identity().Public(), s.Identity().Public())
	approvePresent(t, s)
	require.NoError(t, s.Seal(0, []byte("new share")))
	secret, err := s.Unseal(0)
	require.NoError(t, err)
	require.Equal(t, "new share", string(secret))

	// The old directory, when it turns up again, opens nothing.
	found := openStore(t, dev.URI(), old)
	_, err = found.Unseal(0)
	require.Error(t, err)

	// Not even with the authorization of the new counters.
	copySealed(t, old, o.Dir)
	_, err = s.Unseal(0)
	require.ErrorIs(t, err, keystore.ErrErased)

	_, err = tpm.Init(t.Context(), dev.URI(), o)
	require.ErrorIs(t, err, keystore.ErrExists, "the directory is in use")
}

// TestOverTCP reaches the TPM by TCP, where a response arrives in parts.
func TestOverTCP(t *testing.T) {
	dev := newTPM(t, ours)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			forward(client, dev.Socket())
		}
	}()
	s, _ := newStore(t, "tpm:tcp:"+listener.Addr().String())
	require.NoError(t, s.Seal(0, []byte("share")))
	secret, err := s.Unseal(0)
	require.NoError(t, err)
	require.Equal(t, "share", string(secret))
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
