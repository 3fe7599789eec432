package governance

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// View is a copy of the state for drivers and operators, as of the last block that changed it. It
// is not changed afterwards; share it freely. It marshals to JSON.
type View struct {
	Cluster  string    `json:"cluster"` // hexadecimal
	Epoch    bft.Epoch `json:"epoch"`
	F        int       `json:"f"`
	C        int       `json:"c"`
	N        int       `json:"n"`
	Quorum   int       `json:"quorum"`
	GroupKey string    `json:"group_key,omitempty"` // hexadecimal; empty in epoch 0

	Phase Phase `json:"phase"`
	Round Round `json:"round"` // the running one, or the last
	// Opened is the height of the block in which the round opened: evidence needs an anchor that is
	// not below it.
	Opened bft.Height `json:"opened"`
	// Deadline is the block time in milliseconds at which the phase is over; 0: none.
	Deadline int64 `json:"deadline,omitempty"`
	// NextRound is the block time at which the next round opens by itself; 0: none does.
	NextRound int64 `json:"next_round,omitempty"`
	// Note says how the last round was abandoned.
	Note string `json:"note,omitempty"`

	Due      []bft.ReplicaID `json:"due"`
	Attested []bft.ReplicaID `json:"attested"`
	Refused  []bft.ReplicaID `json:"refused"`
	// Eligible are the receivers of the running handoff: fixed for a round number, in phases
	// Dealing and Ready.
	Eligible []bft.ReplicaID `json:"eligible"`
	// Dealings are those ordered so far in the log's order; in phase Ready they are the quorum that
	// makes the next sharing.
	Dealings []ChosenDealing `json:"dealings"`
	// LastHandoff made this epoch's sharing. Its dealings are empty in epoch 0.
	LastHandoff Handoff `json:"last_handoff"`

	Members       []MemberView           `json:"members"`
	Leaders       []bft.ReplicaID        `json:"leaders"`
	Approved      []attest.ApprovedState `json:"approved"`       // without the approvals, which are not for people
	OrderSequence uint64                 `json:"order_sequence"` // of the last order
	Counts        Counts                 `json:"counts"`

	approved []attest.ApprovedState // with the approvals
	evidence [][]byte               // by member
}

// MemberView is one member in a [View].
type MemberView struct {
	ID      bft.ReplicaID `json:"id"`
	Address string        `json:"address"`
	// HoldsShare: the member has a share of this epoch's key (in epoch 0: it votes). Status says it
	// in words, and why not.
	HoldsShare  bool   `json:"holds_share"`
	Status      string `json:"status"`
	Quarantined bool   `json:"quarantined"`
	Accused     bool   `json:"accused"`
	Due         bool   `json:"due"`
	// Refusal is that of the member's last evidence in this epoch.
	Refusal *attest.Refusal `json:"refusal,omitempty"`
	// Attested says whether the last recovery was shown by a TPM quote; ResetCount and State are
	// what it showed (ResetCount before the first recovery: that of enrolment).
	Attested   bool   `json:"attested"`
	ResetCount uint32 `json:"reset_count"`
	State      string `json:"state,omitempty"`
	// RecoveredEpoch is the epoch that the last recovery led to; 0: none yet.
	RecoveredEpoch bft.Epoch `json:"recovered_epoch"`
	Recoveries     uint64    `json:"recoveries"`
	// EpochKey authenticates the member in this epoch; NextKey is the key it attested for the next.
	EpochKey ed25519.PublicKey `json:"epoch_key"`
	NextKey  ed25519.PublicKey `json:"next_key,omitempty"`
	// Awaited says since when evidence is awaited, and what the member's TPM showed since; zero
	// when the member is not due.
	Awaited attest.Due `json:"awaited"`
	// Device is what the log knows of the member's TPM; nil without one.
	Device *DeviceView `json:"device,omitempty"`
}

// DeviceView is what the log knows of a member's TPM and of the boot that it is in.
type DeviceView struct {
	// Running names the boot state that was shown last; empty: none yet, or one without a name.
	// Outlawed: it is not approved, or no longer.
	Running  string `json:"running,omitempty"`
	Outlawed bool   `json:"outlawed"`
	// ResetCount and ApprovalVersion are what the TPM showed last, with an anchor of the given
	// height and time, 0 before the first.
	ResetCount      uint32     `json:"reset_count"`
	ApprovalVersion uint64     `json:"approval_version"`
	ShownAt         bft.Height `json:"shown_at"`
	ShownTime       int64      `json:"shown_time"`
	// RequiredVersion is what the TPM's approval counter must have reached, ApprovableVersion that
	// for which approvals are to be signed.
	RequiredVersion   uint64 `json:"required_version"`
	ApprovableVersion uint64 `json:"approvable_version"`
	// RevocationReached: the TPM has shown that it refuses all that was revoked. Stranded: its
	// counter is above all approvals.
	RevocationReached bool `json:"revocation_reached"`
	Stranded          bool `json:"stranded"`
}

// Counts are kept over the cluster's life.
type Counts struct {
	Recoveries        uint64            `json:"recoveries"`
	RoundsAbandoned   uint64            `json:"rounds_abandoned"`
	DealingsRestarted uint64            `json:"dealings_restarted"`
	Refused           map[string]uint64 `json:"refused"` // evidence held against its replica, by reason
}

// Member returns the member with the given ID, or nil.
func (v *View) Member(id bft.ReplicaID) *MemberView {
	if id < 1 || int(id) > len(v.Members) {
		return nil
	}
	return &v.Members[id-1]
}

// newView copies the state. Approved states are never changed in place and are shared.
func (s *State) newView() *View {
	v := &View{
		Cluster: hex.EncodeToString(s.cluster[:]), Epoch: s.epoch, F: s.size.F, C: s.size.C, N: s.size.N(), Quorum: s.size.Quorum(),
		GroupKey: hex.EncodeToString(s.groupKey),
		Phase:    s.round.phase, Round: s.round.number, Opened: s.round.opened, Deadline: s.round.deadline, NextRound: s.nextRound(), Note: s.round.note,
		Due: []bft.ReplicaID{}, Attested: []bft.ReplicaID{}, Refused: []bft.ReplicaID{}, Eligible: []bft.ReplicaID{},
		Dealings: slices.Clone(s.round.dealings), LastHandoff: s.last,
		Leaders: slices.Clone(s.leaders), OrderSequence: s.sequence, approved: s.approved,
		Counts: Counts{
			Recoveries: s.counts.recoveries, RoundsAbandoned: s.counts.abandoned, DealingsRestarted: s.counts.restarted,
			Refused: map[string]uint64{},
		},
	}
	for reason, n := range s.counts.refused {
		if n > 0 {
			v.Counts.Refused[attest.Reason(reason).String()] = n
		}
	}
	for _, state := range s.approved {
		state.Approvals = nil
		v.Approved = append(v.Approved, state)
	}
	for i := range s.members {
		v.addMember(&s.members[i])
	}
	return v
}

func (v *View) addMember(m *member) {
	r := &m.recovery
	x := MemberView{
		ID: m.id, Address: m.address, HoldsShare: m.holdsShare, Status: m.status(), Quarantined: m.quarantined, Accused: m.accused, Due: r.due,
		Attested: m.attested, ResetCount: m.resetCount, State: m.bootState, RecoveredEpoch: m.recovered, Recoveries: m.recoveries,
		EpochKey: slices.Clone(m.epochKey), NextKey: slices.Clone(m.attestedKey()), Awaited: r.awaited(),
	}
	if len(m.attestationKey) > 0 {
		x.Device = m.device()
	}
	v.evidence = append(v.evidence, m.evidence)
	if r.verdict == verdictRefused {
		refusal := r.refusal
		x.Refusal = &refusal
		v.Refused = append(v.Refused, m.id)
	}
	if r.due {
		v.Due = append(v.Due, m.id)
	}
	if r.verdict == verdictAttested {
		v.Attested = append(v.Attested, m.id)
	}
	if r.eligible {
		v.Eligible = append(v.Eligible, m.id)
	}
	v.Members = append(v.Members, x)
}

func (m *member) device() *DeviceView {
	return &DeviceView{
		Running: m.shown.State, Outlawed: m.outlawed, ResetCount: m.shown.ResetCount, ApprovalVersion: m.shown.ApprovalVersion,
		ShownAt: m.shownAt.height, ShownTime: m.shownAt.time, RequiredVersion: m.required, ApprovableVersion: m.approvable(),
		RevocationReached: m.reached(), Stranded: m.stranded(),
	}
}

// Evidence returns the last evidence of a member that was accepted, encoded; nil if there is none.
func (v *View) Evidence(id bft.ReplicaID) []byte {
	if v.Member(id) == nil {
		return nil
	}
	return bytes.Clone(v.evidence[id-1])
}

// status says in words where a member stands, and what is to be done.
func (m *member) status() string {
	text := m.standing()
	if m.outlawed && m.recovery.verdict != verdictRefused {
		text += "; it runs in a boot state that is not approved: reboot it into one that is"
	}
	if !m.reached() {
		text += "; its TPM has not shown yet that it refuses what was revoked"
	}
	if m.stranded() {
		text += fmt.Sprintf("; somebody raised the approval counter of its TPM to %d, which then opens nothing: give `order approve` for its boot state again", m.shown.ApprovalVersion)
	}
	return text
}

func (m *member) standing() string {
	r := &m.recovery
	switch {
	case m.quarantined:
		return "quarantined: " + m.quarantine
	case r.verdict == verdictRefused:
		return "evidence refused: " + r.refusal.Sentence
	case r.verdict == verdictAttested:
		return "attested"
	case r.due && r.seen:
		return "due for recovery: reboot it now"
	case r.due && len(m.attestationKey) > 0:
		return "due for recovery: reboot it when it has shown its present boot, or is down"
	case r.due:
		return "due for recovery"
	case !m.holdsShare:
		return m.lapse
	}
	return "holds a share"
}
