package governance

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"fmt"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/attest"
)

// member is what the state holds of one replica.
type member struct {
	id             bft.ReplicaID
	address        string
	identityDER    []byte
	identity       *ecdsa.PublicKey // parsed from identityDER
	attestationKey []byte
	epochKey       ed25519.PublicKey
	// nextKey is the fresh key that the member attested in this epoch; it takes the place of epochKey at the epoch's end.
	nextKey ed25519.PublicKey

	// resetCount is that of the last recovery or of enrolment; attested, bootState and recovered tell about the last recovery, if any.
	resetCount uint32
	attested   bool
	bootState  string
	recovered  bft.Epoch // the epoch that the last recovery led to, 0: none yet
	recoveries uint64

	// holdsShare: the member has a share of this epoch's key (in epoch 0: it votes). If not, lapse says why.
	holdsShare bool
	lapse      string
	// quarantined is an operators' order: no share of any later epoch until released; the reason is theirs.
	quarantined bool
	quarantine  string
	// accused: it was proven Byzantine since its last recovery.
	accused bool
	// lastDue is the round in which the member was last due; 0: none yet.
	lastDue Round

	recovery recoveryStatus
}

// recoveryStatus is where a member stands in the recovery round of this epoch.
type recoveryStatus struct {
	due     bool
	verdict verdictKind
	// anchor is the height of the last evidence's anchor: older evidence is not judged again.
	anchor bft.Height
	// refusal is the last refusal in this round.
	refusal attest.Refusal
	// proven is what the accepted evidence proves.
	proven attest.Verdict
	// eligible: receives a share in the running handoff.
	eligible bool
}

type verdictKind uint8

const (
	verdictNone verdictKind = iota
	verdictAttested
	verdictRefused
	numVerdicts
)

// pending: the round waits for the member's evidence.
func (m *member) pending() bool {
	return m.recovery.due && m.recovery.verdict == verdictNone && !m.quarantined
}

// leased: the member holds a share, and nothing that it showed in this epoch speaks against another.
func (m *member) leased() bool { return m.holdsShare && m.recovery.verdict != verdictRefused }

// mayReceive says whether the member gets a share of the next epoch: not quarantined, and either attested in this epoch, or leased and not due.
func (m *member) mayReceive() bool {
	return !m.quarantined && (m.recovery.verdict == verdictAttested || m.leased() && !m.recovery.due)
}

// recovers: the end of this epoch completes the member's recovery.
func (m *member) recovers() bool { return m.recovery.eligible && m.recovery.verdict == verdictAttested }

// beginRecovery makes the member due, or not, in a new round. The verdict on earlier evidence of this epoch stays when it is not due again.
func (m *member) beginRecovery(due bool, round Round) {
	m.recovery.due, m.recovery.eligible = due, false
	if due {
		m.lastDue = round
		m.recovery.verdict, m.recovery.refusal, m.recovery.proven = verdictNone, attest.Refusal{}, attest.Verdict{}
	}
}

// endEpoch carries the member over into the given next epoch.
func (m *member) endEpoch(next bft.Epoch, round Round) {
	r := &m.recovery
	switch {
	case m.recovers():
		m.epochKey = m.nextKey
		m.attested, m.bootState = r.proven.Attested, r.proven.State
		if r.proven.Attested {
			m.resetCount = r.proven.ResetCount
		}
		m.recovered, m.recoveries = next, m.recoveries+1
	case m.quarantined:
		m.lapse = "quarantined: " + m.quarantine
	case r.verdict == verdictRefused:
		m.lapse = clip("evidence refused: " + r.refusal.Sentence)
	case r.due:
		m.lapse = fmt.Sprintf("lease lapsed: did not attest in round %d", round)
	}
	if r.eligible {
		m.lapse = ""
	}
	if r.due || !r.eligible {
		m.accused = false // recovered, or without a share to misuse
	}
	m.holdsShare = r.eligible
	m.nextKey, m.recovery = nil, recoveryStatus{}
}

func clip(s string) string { return s[:min(len(s), attest.MaxSentence)] }
