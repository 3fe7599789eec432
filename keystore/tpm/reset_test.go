package tpm_test

import (
	"crypto"
	"crypto/sha256"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/tpm"
)

// TestResetOfTheTPMAlone: somebody resets the TPM by its pins, while the machine goes on with an
// intruder's operating system. What the replica held of the boot ends, what is over stays over, and
// the reset is counted. But its registers begin at zero, and who measures what the boot chain
// measures has them say that the approved software runs: docs/threat-model.md assumes that a TPM is
// reset with its machine only.
func TestResetOfTheTPMAlone(t *testing.T) {
	dev := newTPM(t, ours)
	dir := filepath.Join(t.TempDir(), "keystore")
	s, err := tpm.Init(t.Context(), dev.URI(), options(dir))
	require.NoError(t, err)
	takeAway(t, dir)
	binary, digest := sha256.Sum256([]byte("binary")), sha256.Sum256([]byte("x"))
	measure := func() {
		require.NoError(t, tpm.Extend(t.Context(), dev.URI(), 14, binary, options("")))
	}
	require.NoError(t, s.Seal(1, []byte("over")))
	require.NoError(t, s.Seal(2, []byte("share")))
	require.NoError(t, s.Advance(2))
	require.NoError(t, dev.Reboot())
	measure()
	approvePresent(t, s)
	require.NoError(t, s.Claim())
	claims := func(s *tpm.Store) *keystore.Claims {
		q, err := s.Quote(nonce)
		require.NoError(t, err)
		claims, err := keystore.VerifyQuote(s.AttestationKey(), nonce, q)
		require.NoError(t, err)
		return claims
	}
	before := claims(s)

	require.NoError(t, dev.PowerCut())
	intruder := openStore(t, dev.URI(), dir)
	_, err = s.Identity().Sign(nil, digest[:], crypto.SHA256)
	require.ErrorIs(t, err, keystore.ErrUnclaimed, "the replica that still runs")
	_, err = intruder.Unseal(2)
	require.ErrorIs(t, err, keystore.ErrNotApproved)
	require.ErrorIs(t, intruder.Claim(), keystore.ErrNotApproved)
	_, err = intruder.Unseal(1)
	require.ErrorIs(t, err, keystore.ErrErased)

	measure() // what was not run
	_, err = intruder.Unseal(2)
	require.NoError(t, err, "a TPM knows nothing of the machine but what it is told")
	_, err = intruder.Unseal(1)
	require.ErrorIs(t, err, keystore.ErrErased)
	require.NoError(t, intruder.Claim())
	after := claims(intruder)
	require.Equal(t, before.PCRs, after.PCRs)
	require.Equal(t, before.ResetCount+1, after.ResetCount)
	require.ErrorIs(t, s.Claim(), keystore.ErrClaimed)
}
