package governance

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"fmt"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/recovery/attest"
	"github.com/reseal-bft/reseal/recovery/internal/plant"
)

// member is what the state holds of one replica.
type member struct {
	id             bft.ReplicaID
	address        string
	identityDER    []byte
	identity       *ecdsa.PublicKey // parsed from identityDER
	attestationKey []byte
	epochKey       ed25519.PublicKey
	// nextKey is the fresh key that the member attested last in this epoch. While that counts (see
	// attestedKey) it is to take the place of epochKey at the epoch's end; and it is never attested
	// again: whoever was there since has it.
	nextKey ed25519.PublicKey

	// shown is what the TPM last showed of its boot, by presence or evidence; shownAt is the
	// anchor's block, with height 0 before.
	shown   attest.Boot
	shownAt moment
	// outlawed: the state it was last seen in is not approved, or no longer.
	outlawed bool
	// required is the version that the TPM's approval counter must have reached: then it refuses
	// all that was revoked. issued is the highest version of an approval ever given; the next
	// revocation goes beyond it.
	required, issued uint64
	// evidence is the last that was accepted, encoded, for auditors.
	evidence []byte

	// resetCount is that of the last recovery or of enrolment; attested, bootState and recovered
	// tell about the last recovery, if any.
	resetCount uint32
	attested   bool
	bootState  string
	recovered  bft.Epoch // the epoch that the last recovery led to, 0: none yet
	recoveries uint64

	// holdsShare: the member has a share of this epoch's key (in epoch 0: it votes). If not, lapse
	// says why.
	holdsShare bool
	lapse      string
	// quarantined is an operators' order: no share of any later epoch until released; the reason is
	// theirs.
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
	due bool
	// since is the block in which the member became due; seen is whether its presence was shown
	// after that, first with seenCount.
	since     moment
	seen      bool
	seenCount uint32
	verdict   verdictKind
	// anchor is the height of the last evidence's anchor: older evidence is not judged again.
	anchor bft.Height
	// refusal is the last refusal in this round.
	refusal attest.Refusal
	// proven is what the accepted evidence proves.
	proven attest.Verdict
	// eligible: receives a share in the running handoff.
	eligible bool
}

// awaited says since when evidence is awaited, and what was shown since.
func (r *recoveryStatus) awaited() attest.Due {
	return attest.Due{Height: r.since.height, Time: r.since.time, Shown: r.seen, ResetCount: r.seenCount}
}

// moment is a block's place in the log and its time in milliseconds.
type moment struct {
	height bft.Height
	time   int64
}

type verdictKind uint8

const (
	verdictNone verdictKind = iota
	verdictAttested
	verdictRefused
	numVerdicts
)

// pending: the round waits for the member's evidence, or for its TPM to show that what was revoked
// is refused.
func (m *member) pending() bool {
	return !m.quarantined && (m.recovery.due && m.recovery.verdict == verdictNone || m.admitted() && !m.reached())
}

// reached: the TPM has shown that it refuses all approvals that were revoked. Without a TPM there
// are none.
func (m *member) reached() bool { return m.shown.ApprovalVersion >= m.required }

// stranded: the TPM's counter is above all approvals, so that it opens nothing in any state:
// somebody raised it.
func (m *member) stranded() bool { return m.shown.ApprovalVersion > m.issued }

// show takes note of what the TPM showed of its boot.
func (m *member) show(boot attest.Boot, at moment) {
	m.outlawed = boot.State == ""
	if m.outlawed && boot.ResetCount == m.shown.ResetCount {
		boot.State = m.shown.State // the same boot, by the name that its state had
	}
	m.shown, m.shownAt = boot, at
}

// leased: the member holds a share, and nothing that it showed in this epoch speaks against another.
func (m *member) leased() bool { return m.holdsShare && m.recovery.verdict != verdictRefused }

// admitted: the member attested in this epoch, or is leased and not due.
func (m *member) admitted() bool {
	return m.recovery.verdict == verdictAttested || m.leased() && !m.recovery.due
}

// mayReceive says whether the member gets a share of the next epoch: admitted, not quarantined, and
// its TPM opens nothing that was revoked.
func (m *member) mayReceive() bool {
	return !m.quarantined && m.admitted() && (m.reached() || plant.Bug("version-not-asked"))
}

// recovers: the end of this epoch completes the member's recovery.
func (m *member) recovers() bool { return m.recovery.eligible && m.recovery.verdict == verdictAttested }

// beginRecovery makes the member due, or not, in a new round. The verdict on earlier evidence of
// this epoch stays when it is not due again. One that was due already and has not attested is due
// since then: a round that is begun again asks for no second reboot.
func (m *member) beginRecovery(due bool, round Round, now moment) {
	r := &m.recovery
	if !due || !r.due || r.verdict == verdictAttested {
		r.since, r.seen, r.seenCount = moment{}, false, 0
		if due {
			r.since = now
		}
	}
	r.due, r.eligible = due, false
	if due {
		m.lastDue = round
		r.verdict, r.refusal, r.proven = verdictNone, attest.Refusal{}, attest.Verdict{}
	}
}

// attestedKey is the key under which the member is to enter the next epoch; nil when it has
// attested none, or none that counts.
func (m *member) attestedKey() ed25519.PublicKey {
	if m.recovery.verdict != verdictAttested {
		return nil
	}
	return m.nextKey
}

// forget makes the member attest again: the state that it attested was revoked.
func (m *member) forget() {
	m.recovery.verdict, m.recovery.proven = verdictNone, attest.Verdict{}
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
	case r.due && r.verdict == verdictNone:
		m.lapse = fmt.Sprintf("lease lapsed: did not attest in round %d", round)
	case !m.reached():
		m.lapse = fmt.Sprintf("lease lapsed: its TPM did not show by round %d that it refuses what was revoked", round)
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
