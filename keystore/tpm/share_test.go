package tpm_test

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// TestManyClients lets several keystores, as of several processes, use one TPM
// that serves one connection at a time.
func TestManyClients(t *testing.T) {
	dev := newTPM(t, ours)
	s, dir := newStore(t, dev.URI())
	require.NoError(t, s.Seal(0, []byte("share")))
	var g errgroup.Group
	for range 8 {
		k := openStore(t, dev.URI(), dir)
		g.Go(func() error {
			for range 5 {
				if _, err := k.Unseal(0); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	require.NoError(t, s.Claim())
	for range 8 {
		k := openStore(t, dev.URI(), dir)
		g.Go(func() error {
			digest := sha256.Sum256(nil)
			for range 5 {
				_, signErr := s.Identity().Sign(nil, digest[:], crypto.SHA256)
				_, statusErr := k.Status()
				if err := errors.Join(signErr, statusErr); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
}
