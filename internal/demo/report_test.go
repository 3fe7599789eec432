package demo

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// good is a report of a demo in which everything held.
func good() *Report {
	r := &Report{
		N: 6, F: 1, C: 1, Keystore: "swtpm", Acknowledged: 100, Epochs: 9, GroupKeyBefore: "aabb", GroupKeyAfter: "aabb",
		OldSharesRefused: 6, OldCredentialsRefused: 6, OtherProcessesRefused: 6, Tampered: Tampered{Replica: 2, Reason: "PCR 14 is not approved"}, Restored: true, SurvivedCrash: true,
		CertificateBytes: 48,
	}
	for id := bft.ReplicaID(1); id <= 6; id++ {
		r.Recoveries = append(r.Recoveries, Recovery{Replica: id, Seconds: 3, ResetCountBefore: 2, ResetCountAfter: 3, Attested: true})
	}
	return r
}

func TestVerdict(t *testing.T) {
	require.NoError(t, good().Verdict())
	for says, spoil := range map[string]func(*Report){
		"no write":                    func(r *Report) { r.Acknowledged = 0 },
		"1 acknowledged writes":       func(r *Report) { r.Lost = 1 },
		"2 replies":                   func(r *Report) { r.UnverifiedReplies = 2 },
		"key changed":                 func(r *Report) { r.GroupKeyAfter = "aacc" },
		"96 bytes":                    func(r *Report) { r.CertificateBytes = 96 },
		"not every replica":           func(r *Report) { r.Recoveries[0].Replica = 2 },
		"only 5 of 6":                 func(r *Report) { r.OldSharesRefused = 5 },
		"without a TPM quote":         func(r *Report) { r.Recoveries[3].Attested = false },
		"of a later boot":             func(r *Report) { r.Recoveries[3].ResetCountAfter = 2 },
		"the tampered replica was":    func(r *Report) { r.Tampered.Admitted = true },
		"not admitted after":          func(r *Report) { r.Restored = false },
		"the service stood still whe": func(r *Report) { r.SurvivedCrash = false },
	} {
		r := good()
		spoil(r)
		require.ErrorContains(t, r.Verdict(), says)
	}
}

func TestVerdictWithoutHardwareNeedsNoAttestation(t *testing.T) {
	r := good()
	r.Keystore, r.Tampered, r.Restored, r.OldSharesRefused = "file", Tampered{}, false, 0
	for i := range r.Recoveries {
		r.Recoveries[i] = Recovery{Replica: r.Recoveries[i].Replica, Seconds: 3}
	}
	require.NoError(t, r.Verdict())
}

func TestReportHasTheFieldsThatScriptsRead(t *testing.T) {
	text, err := json.Marshal(good())
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(text, &fields))
	for _, name := range []string{
		"n", "f", "c", "keystore", "acknowledged", "lost", "unverified_replies", "epochs", "recoveries", "group_key_before", "group_key_after",
		"old_shares_refused", "tampered", "ops_per_second", "ops_per_second_during_recovery", "longest_gap_ms", "certificate_bytes",
	} {
		require.Contains(t, fields, name)
	}
	require.Equal(t, map[string]any{"replica": 1.0, "seconds": 3.0, "reset_count_before": 2.0, "reset_count_after": 3.0, "attested": true},
		fields["recoveries"].([]any)[0])
	require.Equal(t, map[string]any{"replica": 2.0, "admitted": false, "reason": "PCR 14 is not approved"}, fields["tampered"])
}

func TestTableTellsWhatMatters(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, good().WriteTable(&out))
	for _, says := range []string{"lost: 0", "48 bytes", "(unchanged)", "reset count 2 -> 3", "was refused: PCR 14", "restored, it was admitted"} {
		require.Contains(t, out.String(), says)
	}
	bad := good()
	bad.GroupKeyAfter, bad.Tampered.Admitted = "ff", true
	out.Reset()
	require.NoError(t, bad.WriteTable(&out))
	require.Contains(t, out.String(), "CHANGED")
	require.Contains(t, out.String(), "ADMITTED")
}
