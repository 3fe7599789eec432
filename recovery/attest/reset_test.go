package attest

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/keystore"
)

const (
	second = 1000 // milliseconds
	ahead  = 5 * second
	opened = int64(1_800_000_000_000)
)

// reset judges the reset of a machine whose last recovery showed count 7, which became due at the
// time opened.
func reset(claims keystore.Claims, anchored int64, due Due) *Refusal {
	due.Height, due.Time = 100, opened
	p := &Policy{Ahead: ahead}
	return p.Rebooted(&claims, anchored, &Subject{ResetCount: 7, Due: due})
}

// counted is what a TPM's clock that runs at a rate counts in a time.
func counted(ms int64, rate float64) uint64 { return uint64(float64(ms) * rate) }

func TestResetAfterTheReplicaBecameDue(t *testing.T) {
	shown := func(count uint32) Due { return Due{Shown: true, ResetCount: count} }
	const hour = 3600 * second
	for _, test := range []struct {
		name     string
		claims   keystore.Claims
		anchored int64
		due      Due
		reason   Reason
		says     string
	}{
		{name: "the process was restarted, the machine was not", claims: keystore.Claims{ResetCount: 7}, anchored: opened + hour, reason: ReasonNoReboot, says: "still 7"},
		{name: "... and shows it", claims: keystore.Claims{ResetCount: 7}, anchored: opened + hour, due: shown(7), reason: ReasonNoReboot, says: "still 7"},
		{name: "cleared", claims: keystore.Claims{ResetCount: 6}, anchored: opened + hour, reason: ReasonResetCountFell},
		{
			name: "rebooted after its last recovery, an hour before it became due", claims: keystore.Claims{ResetCount: 8, SinceReset: hour + second},
			anchored: opened + second, reason: ReasonNoReboot, says: "reboot it now",
		},
		{
			name: "... and stays up long", claims: keystore.Claims{ResetCount: 8, SinceReset: counted(101*hour, 0.85)},
			anchored: opened + 100*hour, reason: ReasonNoReboot, says: "reboot it now",
		},
		{name: "... and had shown that boot", claims: keystore.Claims{ResetCount: 8, SinceReset: hour}, anchored: opened + second, due: shown(8), reason: ReasonNoReboot},
		{name: "rebooted at once, after it had shown its boot", claims: keystore.Claims{ResetCount: 9, SinceReset: 0}, anchored: opened + second, due: shown(8)},
		{name: "... however long ago", claims: keystore.Claims{ResetCount: 9, SinceReset: 50 * hour}, anchored: opened + 60*hour, due: shown(8)},
		{name: "rebooted at once, and had shown nothing", claims: keystore.Claims{ResetCount: 8, SinceReset: second}, anchored: opened + 2*second, reason: ReasonNoReboot},
		{name: "down when it became due, started a minute later", claims: keystore.Claims{ResetCount: 8, SinceReset: 20 * second}, anchored: opened + 80*second},
		{name: "... and showed only the new boot", claims: keystore.Claims{ResetCount: 8, SinceReset: 20 * second}, anchored: opened + 80*second, due: shown(8)},
		{
			name: "... and slept since, which sets the TPM's time back", claims: keystore.Claims{ResetCount: 8, RestartCount: 1, SinceReset: second},
			anchored: opened + hour, reason: ReasonNoReboot, says: "slept",
		},
		{name: "slept, but had shown the boot before", claims: keystore.Claims{ResetCount: 9, RestartCount: 3}, anchored: opened + second, due: shown(8)},
		{name: "slept, after it had shown its boot", claims: keystore.Claims{ResetCount: 8, RestartCount: 1}, anchored: opened + hour, due: shown(8), reason: ReasonNoReboot, says: "slept"},
		{
			name: "a quote of the boot in which it was last recovered, after it had shown a later one", claims: keystore.Claims{ResetCount: 7}, anchored: opened + hour,
			due: shown(8), reason: ReasonNoReboot, says: "still 7",
		},
		{name: "anchor as old as the round", claims: keystore.Claims{ResetCount: 8}, anchored: opened, reason: ReasonNoReboot},
		{name: "a time that would overflow", claims: keystore.Claims{ResetCount: 8, SinceReset: math.MaxUint64}, anchored: opened + hour, reason: ReasonNoReboot},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := reset(test.claims, test.anchored, test.due)
			if test.reason == ReasonNone {
				require.Nil(t, r)
				return
			}
			require.NotNil(t, r)
			require.Equal(t, test.reason, r.Reason)
			require.Contains(t, r.Sentence, test.says)
		})
	}
}

// A machine that was reset before it became due never passes by time alone: not with the slowest
// clock that the specification allows, nor with block times that are as wrong as they can be. One
// that was down long enough always does, also with the fastest.
func TestNoClockMakesAnEarlyResetLate(t *testing.T) {
	for _, rate := range []float64{0.85, 1, 1.15} {
		for _, up := range []time.Duration{0, time.Millisecond, time.Second, time.Minute, time.Hour, 24 * time.Hour, 365 * 24 * time.Hour} {
			ms := up.Milliseconds()
			claims := keystore.Claims{ResetCount: 8, SinceReset: counted(ms, rate)}
			// It was reset at the very moment; the opening's leader was late by Ahead, the anchor's
			// ahead by as much.
			require.NotNil(t, reset(claims, opened+ms+2*ahead, Due{}), "rate %v, up %v", rate, up)
			// It was reset so long after that tolerances do not matter.
			down := 2*ahead + ms/2 + second
			require.Nil(t, reset(claims, opened+down+ms, Due{}), "rate %v, up %v", rate, up)
		}
	}
}
