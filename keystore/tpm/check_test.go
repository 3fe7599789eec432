package tpm_test

import (
	"testing"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/check"
	"github.com/stretchr/testify/require"
)

// TestCheckBesideAReplica: a check of a TPM in which a replica's keystore is needs the owner's
// authorization, says so, and leaves everything as it was.
func TestCheckBesideAReplica(t *testing.T) {
	dev := newTPM(t, ours)
	s, dir := claimedStore(t, dev.URI())
	_, err := check.Run(t.Context(), dev.URI())
	require.ErrorIs(t, err, keystore.ErrOwned)
	report, err := check.Run(t.Context(), asOwner(dev.URI(), dir))
	require.NoError(t, err)
	require.Zero(t, report.Failed(), "%+v", report.Rows)
	requireReplica(t, dev, s, dir, 1)
}
