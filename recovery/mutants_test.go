//go:build mutants

package recovery

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/recovery/internal/plant"
)

func TestRevocationThatNobodyExecutesIsFound(t *testing.T) {
	plant.Planted = "revocation-not-executed"
	defer func() { plant.Planted = "" }()
	l := &ledgerTPM{counter: 1}
	d := &tpmDriver{attester: l, approved: map[string]bool{}}
	require.NoError(t, d.obey(3, nil))
	require.NotEqualValues(t, 3, l.counter, "see TestTPMObeysTheLog, which demands it")
}

func TestCredentialOfAnEpochThatIsOverIsFound(t *testing.T) {
	plant.Planted = "old-credential"
	defer func() { plant.Planted = "" }()
	require.True(t, admitsOldCredential(t), "see TestACredentialEndsWithItsEpoch")
}

func TestCredentialOfAnEpochToComeIsFound(t *testing.T) {
	plant.Planted = "credential-ahead"
	defer func() { plant.Planted = "" }()
	require.True(t, admitsCredentialAhead(t), "see TestACredentialForAnEpochThatHasNotBegunCountsNowhere")
}
