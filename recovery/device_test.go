package recovery

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/keystore"
)

// ledgerTPM takes approvals and revocations down, and fails when it is told to.
type ledgerTPM struct {
	keystore.Attester
	counter uint64
	atOnce  uint64 // how far it counts in a call; 0 for as far as it has to
	taken   []string
	fails   error
}

func (l *ledgerTPM) RevokeApprovals(upTo uint64) (uint64, error) {
	if l.fails != nil {
		return 0, l.fails
	}
	to := upTo + 1
	if l.atOnce != 0 {
		to = min(to, l.counter+l.atOnce)
	}
	l.counter = max(l.counter, to)
	return l.counter, nil
}

func (l *ledgerTPM) AddApproval(a *keystore.Approval) error {
	if l.fails == nil {
		l.taken = append(l.taken, string(a.Signature))
	}
	return l.fails
}

func approval(version uint64, signature string) *keystore.Approval {
	return &keystore.Approval{State: keystore.BootState{Version: version}, Signature: []byte(signature)}
}

// obeys says whether a TPM has carried out a revocation and the new approvals, when its driver was
// told of them.
func obeys(t *testing.T) bool {
	l := &ledgerTPM{counter: 1}
	d := &tpmDriver{attester: l, status: keystore.Status{ApprovalVersion: 1}, approved: map[string]bool{}}
	require.NoError(t, d.obey(1, []*keystore.Approval{approval(1, "v1"), approval(1, "v2")}))
	require.NoError(t, d.obey(1, []*keystore.Approval{approval(1, "v1"), approval(1, "v2")}))
	require.EqualValues(t, 1, l.counter)
	require.Equal(t, []string{"v1", "v2"}, l.taken, "each once")

	l.fails = errors.New("the device does not answer")
	require.ErrorIs(t, d.obey(3, []*keystore.Approval{approval(3, "v2 again")}), l.fails)
	l.fails = nil
	require.NoError(t, d.obey(3, []*keystore.Approval{approval(1, "late"), approval(3, "v2 again")}), "it is tried again")
	require.Equal(t, "v2 again", l.taken[2])
	require.NotContains(t, l.taken, "late", "the TPM would refuse it")
	return l.counter == 3
}

// TestTPMCountsFar: a TPM whose counter has far to go is asked again until it is there, and takes
// no approval before.
func TestTPMCountsFar(t *testing.T) {
	l := &ledgerTPM{counter: 1, atOnce: 256}
	d := &tpmDriver{attester: l, status: keystore.Status{ApprovalVersion: 1}, approved: map[string]bool{}}
	calls := 0
	for d.obey(1000, []*keystore.Approval{approval(1000, "v2")}) != nil {
		require.Empty(t, l.taken)
		calls++
	}
	require.Equal(t, 3, calls)
	require.EqualValues(t, 1000, l.counter)
	require.Equal(t, []string{"v2"}, l.taken)
}

func TestTPMObeysTheLog(t *testing.T) { require.True(t, obeys(t)) }
