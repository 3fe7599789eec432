package bft

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A replica was away. Once it is back it leads like the others, whether there is load or not, and
// timeouts are at their base.
func TestReturningReplicaLeadsAgain(t *testing.T) {
	for _, size := range []Size{{1, 0}, {1, 1}, {2, 0}} {
		for _, away := range []time.Duration{2 * time.Second, 12 * time.Second, 10 * time.Minute} {
			t.Run(fmt.Sprintf("f=%d,c=%d,%v", size.F, size.C, away), func(t *testing.T) {
				n := ReplicaID(size.N())
				l := newLab(t, size, 4)
				l.delay = 20
				l.start()
				l.run(5*time.Second, never)
				l.nodes[n].stop()
				l.run(away, never)
				if away > 5*time.Second {
					require.True(t, l.nodes[1].core.clock.suspected[n])
				}
				l.nodes[n].start()
				l.run(2*time.Second, never)
				clear(l.made)
				rotation := View(l.window * size.N())
				at := l.nodes[1].core.View()
				require.True(t, l.run(time.Minute, func() bool { return l.nodes[1].core.View() > at+2*rotation }))
				require.NotZero(t, l.made[n], l.made)
				require.InDelta(t, l.made[1], l.made[n], float64(l.window+1), "the one that was away leads less: %v", l.made)
				for _, m := range l.nodes[1:] {
					require.Zero(t, m.core.clock.nullified)
				}
			})
		}
	}
}

// Any message on its own channel is a sign of life.
func TestEverySignOfLifeReadmitsALeader(t *testing.T) {
	for _, m := range []Message{
		Vote{Statement: Statement{View: 2, Kind: Nullify}, First: true, Partial: []byte{1}}, Status{View: 1}, Certificate{Statement{View: 1, Kind: Nullify}, []byte("x")},
		&Block{Header: Header{View: 9, Height: 1, Proposer: 1, Payload: emptyPayload}, Signature: make([]byte, SignatureSize)},
	} {
		core := failedViews(t, 4)
		require.True(t, core.clock.suspected[1])
		core.Step(Now{1, 1}, Receive{1, m})
		require.False(t, core.clock.suspected[1], "%T", m)
	}
}

// A suspect that shows itself while it leads gets its full time at once.
func TestReadmittedWhileItLeads(t *testing.T) {
	core := failedViews(t, 16) // leader 1 again, in view 17
	require.Equal(t, ReplicaID(1), core.cfg.LeaderOf(core.View()))
	less := core.clock.deadline[TimerView]
	core.Step(Now{1, 1}, Receive{1, Status{}})
	require.Equal(t, suspectedShare*(less-core.clock.entered), core.clock.deadline[TimerView]-core.clock.entered)
}

// A replica hears nothing from itself. One whose turn has failed would have a 64th of the time in each
// turn to come, vote against its own view before its block is stored, and fail again.
func TestNobodySuspectsItself(t *testing.T) {
	core := failedViews(t, 28) // views 13 to 16, its own, were among them; from view 29 on it leads again
	require.Equal(t, core.cfg.Self, core.cfg.LeaderOf(core.View()))
	require.False(t, core.clock.suspected[core.cfg.Self])
	require.True(t, core.clock.suspected[1])
	require.Equal(t, milliseconds(labTimeouts.ViewMax), core.clock.deadline[TimerView]-core.clock.entered)
}

// failedViews returns replica 4's core after so many views were nullified, as replica 2 says.
func failedViews(t *testing.T, views View) *Core {
	core, err := New(Config{Size: Size{1, 0}, Self: 4, Leaders: ids(1, 4), Window: 4, Voter: true, Timeouts: labTimeouts}, Restored{})
	require.NoError(t, err)
	feed(core, core.Start(Now{1, 1}))
	for v := View(1); v <= views; v++ {
		feed(core, core.Step(Now{1, 1}, Receive{2, Certificate{Statement{0, v, Nullify, Digest{}}, []byte("certificate")}}))
	}
	require.Equal(t, views+1, core.View())
	return core
}

// feed answers effects at once.
func feed(core *Core, effects []Effect) {
	for _, e := range append([]Effect(nil), effects...) {
		switch e := e.(type) {
		case Sign:
			e.Vote.Partial = []byte{byte(core.cfg.Self)}
			feed(core, core.Step(Now{1, 1}, Signed{Vote: e.Vote}))
		case Combine:
			feed(core, core.Step(Now{1, 1}, Combined{Statement: e.Statement, Signature: []byte("certificate")}))
		case Verify:
			feed(core, core.Step(Now{1, 1}, Verified{e.Certificate, e.From, true}))
		case Finalized:
			feed(core, core.Step(Now{1, 1}, Executed{Height: e.Block.Height, Root: labRoot(e.Block.Height)}))
		}
	}
}

// After leaders have failed, one good view brings the timeouts back to their base, by whatever path
// its success is learned.
func TestTimeoutsReturnToTheirBase(t *testing.T) {
	block := func(core *Core, v View) (*Block, Statement) {
		b := &Block{Header: Header{View: v, Height: 1, Proposer: core.cfg.LeaderOf(v), Time: 1, Payload: emptyPayload}, Signature: make([]byte, SignatureSize)}
		return b, Statement{0, v, Notarize, b.Digest()}
	}
	first := func(core *Core, s Statement, from ...ReplicaID) {
		for _, id := range from {
			feed(core, core.Step(Now{1, 1}, Receive{id, Vote{s, true, []byte{byte(id)}}}))
		}
	}
	paths := map[string]func(*Core, *Block, Statement){
		"certificate": func(core *Core, _ *Block, s Statement) {
			feed(core, core.Step(Now{1, 1}, Receive{1, Certificate{s, []byte("certificate")}}))
		},
		"votes": func(core *Core, b *Block, s Statement) {
			feed(core, core.Step(Now{1, 1}, Receive{b.Proposer, b}))
			first(core, s, 1, 2, 3)
		},
		"finality overtakes the certificate": func(core *Core, b *Block, s Statement) {
			waiting := append([]Effect(nil), core.Step(Now{1, 1}, Receive{b.Proposer, b})...)
			for id := ReplicaID(1); id <= 3; id++ {
				waiting = append(waiting, core.Step(Now{1, 1}, Receive{id, Vote{s, true, []byte{byte(id)}}})...)
			}
			feed(core, waiting)
		},
		"finalization": func(core *Core, b *Block, s Statement) {
			s.Kind = Finalize
			feed(core, core.Step(Now{1, 1}, Receive{b.Proposer, b}))
			feed(core, core.Step(Now{1, 1}, Receive{1, Certificate{s, []byte("certificate")}}))
		},
		"fetched chain": func(core *Core, b *Block, s Statement) {
			s.Kind = Finalize
			feed(core, core.Step(Now{1, 1}, Receive{1, Certificate{s, []byte("certificate")}}))
			feed(core, core.Step(Now{1, 1}, Fetched{[]*Block{b}}))
		},
	}
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			core := failedViews(t, 12)
			require.Equal(t, 3, core.clock.nullified)
			b, s := block(core, 13)
			core.cfg.Leaders[3] = 3 // the view is led by another than this replica
			b.Proposer = 3
			s.Block = b.Digest()
			path(core, b, s)
			require.Zero(t, core.clock.nullified)
			require.Equal(t, View(14), core.View())
			if core.clock.deadline[TimerView] > 0 {
				require.LessOrEqual(t, core.clock.patience(core), labTimeouts.View)
			}
		})
	}
}

// The last block of one that has ended may become final after that. Of one that had failed, it shows
// that it is up.
func TestTheLastBlockOfALostLeaderIsNoSignOfLife(t *testing.T) {
	for _, isLost := range []bool{true, false} {
		core, err := New(Config{Size: Size{1, 0}, Self: 4, Leaders: ids(1, 4), Window: 4, Voter: true, Timeouts: labTimeouts}, Restored{})
		require.NoError(t, err)
		feed(core, core.Start(Now{1, 1}))
		core.Step(Now{2, 2}, Lost{1})
		core.clock.lost[1] = isLost
		core.clock.succeeded(core, 1)
		require.Equal(t, isLost, core.clock.suspected[1])
		require.Equal(t, milliseconds(core.clock.patience(core)), core.clock.deadline[TimerView]-core.clock.entered, "the time that it has follows")
	}
}

// A leader that has ended is given up after a 64th of its time, and has all of it again with its
// first word. Who does not lead is not waited for in any case.
func TestALeaderThatIsLostIsNotWaitedFor(t *testing.T) {
	core, err := New(Config{Size: Size{1, 0}, Self: 4, Leaders: ids(1, 4), Window: 4, Voter: true, Timeouts: labTimeouts}, Restored{})
	require.NoError(t, err)
	feed(core, core.Start(Now{1, 1}))
	full := core.clock.deadline[TimerView] - core.clock.entered
	require.Empty(t, core.Step(Now{2, 2}, Lost{2}))
	for _, stranger := range []ReplicaID{0, 4, 5, 255} {
		require.Empty(t, core.Step(Now{2, 2}, Lost{stranger}))
	}
	set := those[SetTimer](core.Step(Now{2, 2}, Lost{1}))
	require.Len(t, set, 1)
	require.Equal(t, time.Duration(milliseconds(labTimeouts.View/suspectedShare)-1)*time.Millisecond, set[0].After)
	require.Empty(t, core.Step(Now{3, 3}, Lost{1}), "it is said again")
	core.Step(Now{4, 4}, Receive{1, Status{}})
	require.Equal(t, full, core.clock.deadline[TimerView]-core.clock.entered)
	require.Empty(t, those[Sign](core.Step(Now{50, 50}, Expired{set[0].Timer})))
	set = those[SetTimer](core.Step(Now{60, 60}, Lost{1})) // a 64th is over
	require.Len(t, set, 1)
	require.Zero(t, set[0].After)
	require.Len(t, those[Sign](core.Step(Now{60, 60}, Expired{set[0].Timer})), 1)
}
