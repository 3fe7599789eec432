package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// methodInfo is what a replica answers with its [Info].
const methodInfo = "reseal/info"

// Info is what a replica says of itself, as far as this program reads it. It proves nothing by
// itself: see [Members.Agreed].
type Info struct {
	Epoch           bft.Epoch  `json:"epoch"`
	View            bft.View   `json:"view"`
	Height          bft.Height `json:"height"`
	CertifiedHeight bft.Height `json:"certified_height"`
	Voter           bool       `json:"voter"`
	Diverged        bool       `json:"diverged"`
	Amnesia         bool       `json:"amnesia"`
	AmnesiaReason   string     `json:"amnesia_reason"`
	Keystore        string     `json:"keystore"`
	Goroutines      int        `json:"goroutines"`
	// Twice are the replicas as which it has seen two processes run.
	Twice []bft.ReplicaID `json:"twice"`
	// Clock is its wall clock, in milliseconds since 1970; 0: it does not say.
	Clock int64 `json:"clock_ms"`
	// State is the replicated state of the cluster: the same bytes from every replica that has come
	// as far.
	State json.RawMessage `json:"state"`
}

// The phases of a recovery round that this program waits for.
const PhaseAttesting = "attesting"

// State is the replicated state that governs a cluster, see governance.View.
type State struct {
	Cluster       string                 `json:"cluster"`
	Epoch         bft.Epoch              `json:"epoch"`
	GroupKey      string                 `json:"group_key"`
	Phase         string                 `json:"phase"`
	Round         uint64                 `json:"round"`
	Note          string                 `json:"note"`
	Due           []bft.ReplicaID        `json:"due"`
	LastHandoff   Handoff                `json:"last_handoff"`
	Members       []MemberState          `json:"members"`
	Leaders       []bft.ReplicaID        `json:"leaders"`
	Approved      []attest.ApprovedState `json:"approved"`
	OrderSequence uint64                 `json:"order_sequence"`
}

// Handoff says of whose dealings the shares of an epoch are made.
type Handoff struct {
	Dealings []struct {
		Dealer bft.ReplicaID `json:"dealer"`
	} `json:"dealings"`
}

// Dealers are those whose dealings made this epoch's shares; none in epoch 0.
func (s *State) Dealers() (dealers []bft.ReplicaID) {
	for _, d := range s.LastHandoff.Dealings {
		dealers = append(dealers, d.Dealer)
	}
	return dealers
}

// Dealt reports whether a replica is one of them.
func (s *State) Dealt(id bft.ReplicaID) bool { return slices.Contains(s.Dealers(), id) }

// MemberState is one member in a [State].
type MemberState struct {
	ID             bft.ReplicaID `json:"id"`
	Address        string        `json:"address"`
	HoldsShare     bool          `json:"holds_share"`
	Status         string        `json:"status"`
	Accused        bool          `json:"accused"`
	Attested       bool          `json:"attested"`
	ResetCount     uint32        `json:"reset_count"`
	BootState      string        `json:"state"`
	RecoveredEpoch bft.Epoch     `json:"recovered_epoch"`
	EpochKey       []byte        `json:"epoch_key"` // Ed25519
	Awaited        struct {
		Shown bool `json:"shown"`
	} `json:"awaited"`
	// Device is what is known of the member's TPM; nil without one.
	Device *DeviceState `json:"device"`
}

// DeviceState is what the log knows of a member's TPM, see governance.DeviceView.
type DeviceState struct {
	Running           string `json:"running"`
	Outlawed          bool   `json:"outlawed"`
	ApprovalVersion   uint64 `json:"approval_version"`
	ApprovableVersion uint64 `json:"approvable_version"`
	RevocationReached bool   `json:"revocation_reached"`
	ShownTime         int64  `json:"shown_time"` // milliseconds since 1970; 0: never
}

// Member returns the member with the given ID. Every state that [Members.Agreed] returns has all
// members of the genesis.
func (s *State) Member(id bft.ReplicaID) *MemberState { return &s.Members[id-1] }

// LaterThan compares two states of one cluster.
func (s *State) LaterThan(t *State) bool {
	return s.Epoch > t.Epoch || s.Epoch == t.Epoch && (s.Round > t.Round || s.Round == t.Round && s.OrderSequence > t.OrderSequence)
}

func parseInfo(answer []byte) (*Info, error) {
	var info Info
	if err := json.Unmarshal(answer, &info); err != nil {
		return nil, fmt.Errorf("it answers nonsense: %w", err)
	}
	if len(info.State) == 0 {
		return nil, errors.New("it answers without a state")
	}
	return &info, nil
}

// parseState reads a state and checks what callers rely on.
func parseState(raw []byte, members int) (*State, error) {
	var s State
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("state of the cluster: %w", err)
	}
	if len(s.Members) != members {
		return nil, fmt.Errorf("state of the cluster: %d members instead of %d", len(s.Members), members)
	}
	for i, m := range s.Members {
		if int(m.ID) != i+1 {
			return nil, fmt.Errorf("state of the cluster: member %d stands in place %d", m.ID, i+1)
		}
	}
	return &s, nil
}
