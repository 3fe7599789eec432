package bft

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Timers run on the monotonic clock: a wall clock that jumps changes no wait.
func TestTimersIgnoreTheWallClock(t *testing.T) {
	for _, jump := range []time.Duration{-time.Hour, -2 * time.Second, 0, 2 * time.Second, 240 * time.Hour} {
		t.Run(fmt.Sprint(jump), func(t *testing.T) {
			l := newLab(t, Size{1, 0}, 4)
			l.pass = func(_, _ ReplicaID, _ Message) Message { return nil }
			votedAt := int64(0)
			l.nodes[2].effects = func(e Effect) {
				if _, ok := e.(Sign); ok && votedAt == 0 {
					votedAt = l.now
				}
			}
			l.start()
			l.run(100*time.Millisecond, never)
			l.nodes[2].skew += jump.Milliseconds()
			l.run(time.Minute, never)
			require.Equal(t, labTimeouts.View.Milliseconds(), votedAt, "when the view was given up")
			if jump == 0 {
				require.Empty(t, l.nodes[2].off)
				return
			}
			require.Equal(t, jump, l.nodes[2].off[0].Jumped)
		})
	}
}

// All clocks are wrong, blocks are made, the clocks are put right: blocks go on at once, their time
// stands still until the clocks have caught up, and that is reported.
func TestBlocksGoOnWhenClocksArePutRight(t *testing.T) {
	for _, ahead := range []time.Duration{2 * time.Minute, 3 * time.Hour, -time.Hour} {
		t.Run(fmt.Sprint(ahead), func(t *testing.T) {
			l := newLab(t, Size{1, 0}, 4)
			for _, m := range l.nodes[1:] {
				m.skew = ahead.Milliseconds()
			}
			l.start()
			require.True(t, l.run(10*time.Second, func() bool { return l.final(1, 2, 3, 4) >= 5 }))
			for _, m := range l.nodes[1:] {
				m.skew = 0
			}
			at, before := l.now, l.final(1, 2, 3, 4)
			require.True(t, l.run(time.Second, func() bool { return l.final(1, 2, 3, 4) > before+3 }))
			last := l.nodes[1].core.final.Time
			require.Equal(t, max(last, labStart+at), last, "time went back")
			off := l.nodes[1].off
			require.Equal(t, -ahead, off[0].Jumped)
			if ahead > 0 {
				require.InDelta(t, ahead.Seconds(), off[0].Behind.Seconds(), 3)
				l.run(ahead+time.Second, never)
				require.Zero(t, l.nodes[1].off[len(l.nodes[1].off)-1], "the clock has caught up, and nobody says so")
			}
			l.run(time.Second, never)
			require.InDelta(t, labStart+l.now, l.nodes[1].core.final.Time, 2000)
		})
	}
}

// Clocks that differ by hours keep nobody from going on: a leader with the slowest clock is always
// believed.
func TestClocksThatDisagree(t *testing.T) {
	for _, skews := range [][]time.Duration{{0, time.Hour, -time.Hour, 24 * time.Hour}, {-5 * time.Hour, 0, 0, 0}, {time.Hour, 2 * time.Hour, 3 * time.Hour, 0}} {
		l := newLab(t, Size{1, 0}, 4)
		for i, skew := range skews {
			l.nodes[i+1].skew = skew.Milliseconds()
		}
		l.start()
		require.True(t, l.run(2*time.Minute, func() bool { return l.final(1, 2, 3, 4) > 50 }), skews)
	}
}

// Byzantine leaders that advance the time of every block as far as they are believed get it no
// further than the bound above a correct clock, however many blocks they make.
func TestTimeIsNoRatchet(t *testing.T) {
	size := Size{2, 0}
	l := newLab(t, size, 4)
	for _, id := range []ReplicaID{6, 7} {
		l.nodes[id].skew = (l.times.Ahead - 10*time.Millisecond).Milliseconds() // as far as the others believe
	}
	l.start()
	require.True(t, l.run(time.Minute, func() bool { return l.final(1, 2, 3, 4, 5) > 400 }))
	require.LessOrEqual(t, l.nodes[1].core.final.Time, labStart+l.now+l.times.Ahead.Milliseconds())
	require.NotZero(t, l.made[7])
}

func TestTimeOfABlock(t *testing.T) { require.NoError(t, checkTimes()) }

// checkTimes checks that a block's time is never before its parent's, and never further ahead of
// the voter's clock than its parent or the bound.
func checkTimes() error {
	cfg := Config{Size: Size{1, 0}, Self: 2, Leaders: ids(1, 4), Window: 4, Voter: true, Timeouts: labTimeouts, Base: Base{Time: labStart}}
	core, err := New(cfg, Restored{})
	if err != nil {
		return err
	}
	for _, x := range []struct {
		time, wall int64
		valid      bool
	}{
		{labStart - 1, labStart, false}, {labStart, labStart, true}, {labStart, 0, true}, {labStart + 1, 0, false},
		{labStart + 5000, labStart, true}, {labStart + 5001, labStart, false}, {labStart + 1, labStart - 4999, true}, {labStart + 1, labStart - 5000, false},
		{-1 << 63, labStart, false}, {1<<63 - 1, labStart, false},
	} {
		core.Step(Now{1, x.wall}, Expired{})
		b := &Block{Header: Header{View: 1, Height: 1, Proposer: 1, Time: x.time, Payload: emptyPayload}, Signature: make([]byte, SignatureSize)}
		n := &node{Block: b, digest: b.Digest(), parent: core.final, linked: true}
		if core.valid(n) != x.valid {
			return fmt.Errorf("%+v", x)
		}
	}
	return nil
}

func TestTimeoutsAreInOrder(t *testing.T) {
	require.NoError(t, labTimeouts.Validate())
	for name, change := range map[string]func(*Timeouts){
		"view: 0s":        func(x *Timeouts) { x.View = 0 },
		"view_max: 999ms": func(x *Timeouts) { x.ViewMax = 999 * time.Millisecond },
		"idle: 126ms":     func(x *Timeouts) { x.Idle = 126 * time.Millisecond },
		"idle: 0s":        func(x *Timeouts) { x.Idle = 0 },
		"finalize: 126ms": func(x *Timeouts) { x.Finalize = 126 * time.Millisecond },
		"resend: -1s":     func(x *Timeouts) { x.Resend = -time.Second },
		"ahead: 0s":       func(x *Timeouts) { x.Ahead = 0 },
		"ahead: 25h0m0s":  func(x *Timeouts) { x.Ahead = 25 * time.Hour },
	} {
		bad := labTimeouts
		change(&bad)
		require.ErrorContains(t, bad.Validate(), name)
	}
}

// All clocks are ahead, a leader's block is under way, and all are put right before the others see
// it, at one moment. With c = 0 and f replicas down, what the leader found valid the others must
// still come to find valid: one first vote keeps the view from being nullified (Lemma 5).
func TestClocksPutRightUnderABlock(t *testing.T) {
	for _, size := range []Size{{1, 0}, {2, 0}, {1, 1}} {
		for _, ahead := range []time.Duration{time.Minute, time.Hour, 100 * time.Hour} {
			t.Run(fmt.Sprint(size, ahead), func(t *testing.T) {
				l := newLab(t, size, 4)
				for _, m := range l.nodes[1:] {
					m.skew = ahead.Milliseconds()
				}
				l.start()
				up := ids(1, size.N()-size.F-size.C)
				for _, m := range l.nodes[len(up)+1:] {
					m.stop()
				}
				l.run(10*time.Second, never)
				for _, m := range l.nodes[1:] {
					m.effects = func(e Effect) {
						if b, ok := e.(Broadcast); ok && m.skew > 0 {
							if _, ok := b.Message.(*Block); ok {
								for _, m := range l.nodes[1:] {
									m.skew = 0
								}
							}
						}
					}
				}
				before := l.final(up...)
				require.True(t, l.run(30*time.Second, func() bool { return l.final(up...) > before+20 }))
			})
		}
	}
}

// Who gives a sign of life gets a leader's full time from when the view began, and so no more than
// any other; who is lost gets what is left of the little.
func TestALeadersTimeCountsFromTheViewsBegin(t *testing.T) {
	core, _ := restarted(t, keptConfig(), Restored{})
	full, now := labTimeouts.View.Milliseconds(), core.clock.entered
	little := milliseconds(labTimeouts.View / suspectedShare)
	core.clock.suspect(core, 1)
	require.Equal(t, now+little, core.clock.deadline[TimerView])
	core.Step(Now{now + little - 1, 1}, Receive{1, Status{Epoch: 3}})
	require.Equal(t, now+full, core.clock.deadline[TimerView])
	core.Step(Now{now + full/2, 1}, Expired{})
	core.clock.suspect(core, 1)
	require.Equal(t, now+full/2, core.clock.deadline[TimerView], "at once")
}
