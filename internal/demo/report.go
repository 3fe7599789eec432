package demo

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/reseal-bft/reseal/bft"
)

// Report is what came out of a demo. Its JSON names are read by others' scripts: they do not change.
type Report struct {
	N        int    `json:"n"`
	F        int    `json:"f"`
	C        int    `json:"c"`
	Keystore string `json:"keystore"`

	// Acknowledged counts the writes that clients hold a verified reply for; Lost those of them
	// that are not read back.
	Acknowledged int `json:"acknowledged"`
	Lost         int `json:"lost"`
	// UnverifiedReplies counts the replies that did not verify under the group public key.
	UnverifiedReplies int        `json:"unverified_replies"`
	Epochs            int        `json:"epochs"`
	Recoveries        []Recovery `json:"recoveries"`
	GroupKeyBefore    string     `json:"group_key_before"`
	GroupKeyAfter     string     `json:"group_key_after"`
	// OldSharesRefused counts the sealed shares of past epochs that were offered to the keystore
	// again and refused.
	OldSharesRefused int `json:"old_shares_refused"`
	// OldCredentialsRefused counts the credentials, with their private keys, that were copied from
	// the memory of replicas before their reboot and admitted to nothing afterwards (0 without
	// root's rights, which it takes to read that memory), and OtherProcessesRefused the times that
	// a TPM opened nothing to another process in the replica's boot.
	OldCredentialsRefused int      `json:"old_credentials_refused"`
	OtherProcessesRefused int      `json:"other_processes_refused"`
	Tampered              Tampered `json:"tampered"`
	Restored              bool     `json:"restored"`
	SurvivedCrash         bool     `json:"survived_crash"`

	OperationsPerSecond               float64 `json:"ops_per_second"`
	OperationsPerSecondDuringRecovery float64 `json:"ops_per_second_during_recovery"`
	// LongestGapMS is the longest time without an acknowledgement to any client, in milliseconds.
	LongestGapMS     int64   `json:"longest_gap_ms"`
	CertificateBytes int     `json:"certificate_bytes"`
	Seconds          float64 `json:"seconds"`
}

// Recovery is one replica's reboot and readmission.
type Recovery struct {
	Replica bft.ReplicaID `json:"replica"`
	// Seconds pass from the kill to the first block of the epoch in which the replica votes again.
	Seconds          float64 `json:"seconds"`
	ResetCountBefore uint32  `json:"reset_count_before"`
	ResetCountAfter  uint32  `json:"reset_count_after"`
	Attested         bool    `json:"attested"`
}

// Tampered is what became of the replica that was started with a tampered binary.
type Tampered struct {
	Replica  bft.ReplicaID `json:"replica"`
	Admitted bool          `json:"admitted"`
	Reason   string        `json:"reason"`
}

// hasTPM reports whether the keystore attests.
func (r *Report) hasTPM() bool { return r.Keystore == "swtpm" }

// hasDevice reports whether shares are sealed by a device, which can refuse to open them.
func (r *Report) hasDevice() bool { return r.Keystore != "file" }

// Verdict returns nil if everything held that the demo set out to show, and otherwise all that did not.
func (r *Report) Verdict() error {
	checks := []struct {
		held bool
		says string
	}{
		{r.Acknowledged > 0, "no write was acknowledged"},
		{r.Lost == 0, fmt.Sprintf("%d acknowledged writes were lost", r.Lost)},
		{r.UnverifiedReplies == 0, fmt.Sprintf("%d replies did not verify", r.UnverifiedReplies)},
		{r.GroupKeyBefore != "" && r.GroupKeyBefore == r.GroupKeyAfter, "the group public key changed"},
		{r.CertificateBytes == 48, fmt.Sprintf("a certificate has %d bytes instead of 48", r.CertificateBytes)},
		{r.recoveredAll(), "not every replica recovered"},
		{!r.hasDevice() || r.OldSharesRefused >= len(r.Recoveries), fmt.Sprintf("only %d of %d old shares were refused", r.OldSharesRefused, len(r.Recoveries))},
		{r.OldCredentialsRefused == 0 || r.OldCredentialsRefused >= len(r.Recoveries), fmt.Sprintf("only %d of %d old credentials were refused", r.OldCredentialsRefused, len(r.Recoveries))},
		{!r.hasTPM() || r.OtherProcessesRefused >= len(r.Recoveries), fmt.Sprintf("only %d of %d TPMs refused another process", r.OtherProcessesRefused, len(r.Recoveries))},
		{!r.hasTPM() || r.allAttested(), "a replica recovered without a TPM quote of a later boot"},
		{!r.hasTPM() || !r.Tampered.Admitted && r.Tampered.Reason != "", "the tampered replica was admitted"},
		{!r.hasTPM() || r.Restored, "the tampered replica was not admitted after it was restored"},
		{r.C == 0 || r.SurvivedCrash, "the service stood still when a replica crashed while another was in recovery"},
	}
	var failures []error
	for _, check := range checks {
		if !check.held {
			failures = append(failures, errors.New(check.says))
		}
	}
	return errors.Join(failures...)
}

func (r *Report) recoveredAll() bool {
	recovered := map[bft.ReplicaID]bool{}
	for _, recovery := range r.Recoveries {
		recovered[recovery.Replica] = true
	}
	return len(recovered) == r.N
}

func (r *Report) allAttested() bool {
	for _, recovery := range r.Recoveries {
		if !recovery.Attested || recovery.ResetCountAfter <= recovery.ResetCountBefore {
			return false
		}
	}
	return true
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %s\t"+format+"\n", append([]any{name}, args...)...)
	}
	row("cluster", "n=%d (f=%d Byzantine and c=%d down at once), keys in %s", r.N, r.F, r.C, r.keys())
	row("acknowledged writes", "%d, of which lost: %d", r.Acknowledged, r.Lost)
	row("replies not verified", "%d", r.UnverifiedReplies)
	row("certificate", "%d bytes, whatever n", r.CertificateBytes)
	row("epochs", "%d", r.Epochs)
	row("group public key", "%s", r.groupKey())
	if r.hasDevice() {
		row("old sealed shares", "%d offered and refused", r.OldSharesRefused)
	}
	if r.OldCredentialsRefused > 0 {
		row("copies of memory", "%d credentials with their keys, admitted to nothing after the reboot", r.OldCredentialsRefused)
	}
	for _, recovery := range r.Recoveries {
		row(fmt.Sprintf("recovery of replica %d", recovery.Replica), "%s", recovery)
	}
	if r.hasTPM() {
		row("tampered replica", "%s", r.tampered())
	}
	if r.C > 0 {
		row("crash during a recovery", "%s", yes(r.SurvivedCrash, "the service went on", "the service stood still"))
	}
	row("operations per second", "%.0f; during recoveries %.0f", r.OperationsPerSecond, r.OperationsPerSecondDuringRecovery)
	row("longest gap", "%d ms between two acknowledgements", r.LongestGapMS)
	row("time", "%.0f s", r.Seconds)
	return w.Flush()
}

func (r *Report) keys() string {
	switch r.Keystore {
	case "swtpm":
		return "software TPMs, one each"
	case "softhsm":
		return "SoftHSM tokens: nothing is attested"
	}
	return "files: no hardware, nothing is attested"
}

func (r *Report) groupKey() string {
	short := r.GroupKeyAfter[:min(16, len(r.GroupKeyAfter))]
	return short + "... " + yes(r.GroupKeyBefore == r.GroupKeyAfter, "(unchanged)", "(CHANGED)")
}

func (r *Report) tampered() string {
	text := fmt.Sprintf("replica %d ", r.Tampered.Replica) + yes(r.Tampered.Admitted, "was ADMITTED", "was refused: "+r.Tampered.Reason)
	return text + yes(r.Restored, "; restored, it was admitted", "; restored, it was NOT admitted")
}

// String tells the recovery in a few words.
func (r Recovery) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.1f s", r.Seconds)
	if r.Attested {
		fmt.Fprintf(&b, ", attested, reset count %d -> %d", r.ResetCountBefore, r.ResetCountAfter)
	}
	return b.String()
}

func yes(condition bool, then, otherwise string) string {
	if condition {
		return then
	}
	return otherwise
}
