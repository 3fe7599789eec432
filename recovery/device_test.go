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
	taken   []string
	fails   error
}

func (l *ledgerTPM) RevokeApprovals(upTo uint64) (uint64, error) {
	if l.fails != nil {
		return 0, l.fails
	}
	l.counter = max(l.counter, upTo+1)
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

// obeys says whether a TPM has carried out a revocation and the new approvals, when its driver was told of them.
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

func TestTPMObeysTheLog(t *testing.T) { require.True(t, obeys(t)) }
