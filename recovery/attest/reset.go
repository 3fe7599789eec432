package attest

import (
	"math"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/internal/plant"
)

// Due is the moment at which a replica became due for recovery, and what its TPM has shown since.
type Due struct {
	// Height and Time, in milliseconds, are of the block in which it became due.
	Height bft.Height `json:"height"`
	Time   int64      `json:"time"`
	// Shown says that the replica showed its presence after that block, with this reset count.
	Shown      bool   `json:"shown"`
	ResetCount uint32 `json:"reset_count"`
}

// Rebooted says whether claims, which answer an anchor of the given block time, prove that the
// machine was reset after the replica became due. There are two proofs. Its TPM showed a lower
// reset count after that moment; or it was reset so short a time ago that the moment lies before
// it, by the TPM's own clock.
//
// The latter is for a machine that was down, or that was rebooted before its presence was ordered.
// A TPM's clock may be slow by 15% (TPM 2.0 Part 1, "Clock"), also on purpose
// (TPM2_ClockRateAdjust): so much more time may have passed than it counted. The two block times
// are by clocks that differ by Ahead, and a Byzantine leader may add as much, which correct
// replicas accept. The TPM's time begins anew also when the machine resumes from sleep, which is no
// reboot; a restart count other than 0 tells of that.
func (p *Policy) Rebooted(claims *keystore.Claims, anchored int64, subject *Subject) *Refusal {
	due := &subject.Due
	switch {
	case claims.ResetCount > subject.ResetCount && plant.Bug("presence-not-required"):
		return nil
	case claims.ResetCount < subject.ResetCount:
		return resetCountFell(claims, subject)
	case claims.ResetCount == subject.ResetCount:
		return Refuse(ReasonNoReboot, "the reset count is still %d: the machine did not reboot since its last recovery", claims.ResetCount)
	case due.Shown && claims.ResetCount > due.ResetCount:
		return nil
	case claims.RestartCount != 0:
		return Refuse(ReasonNoReboot, "reboot it now: the machine slept since its reset, so its TPM cannot tell when that was")
	case mostSince(claims.SinceReset)+2*p.Ahead > anchored-due.Time:
		return Refuse(ReasonNoReboot, "reboot it now: its last reset may have been before it became due, which was %d ms before the anchor; the TPM counts %d ms since the reset",
			anchored-due.Time, claims.SinceReset)
	}
	return nil
}

func resetCountFell(claims *keystore.Claims, subject *Subject) *Refusal {
	return Refuse(ReasonResetCountFell, "the reset count fell from %d to %d: the TPM was cleared or replaced, enrol it again", subject.ResetCount, claims.ResetCount)
}

// mostSince is the longest time, in milliseconds, in which a TPM's clock counts the given one: it
// counts at least 85%.
func mostSince(counted uint64) int64 {
	const limit = math.MaxInt64 / 64 // far more than any machine runs, and far from an overflow
	if plant.Bug("tpm-clock-trusted") {
		return int64(min(counted, limit))
	}
	return (int64(min(counted, limit))+1)*20/17 + 1
}
