package transport

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// work takes turns for as long as each, one after the other, and says when each was over.
func work(ctx context.Context, t *turns, address, connection any, each time.Duration, over func(error)) {
	go func() {
		leave, err := t.enter(ctx, address, connection)
		if err == nil {
			<-time.After(each) // of the clock of the bubble
			leave()
		}
		over(err)
	}()
}

// However much somebody has waiting, and however many connections it is spread over, somebody else
// waits for one turn of each other address, and of each connection at the own one.
func TestWhoeverAsksForLittleHasTheNextTurn(t *testing.T) {
	for name, honest := range map[string]struct {
		address string
		within  time.Duration
	}{
		"another address":                {"honest", 2 * time.Second},
		"another connection of the same": {"greedy", 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				queue := newTurns(1)
				ctx, cancel := context.WithCancel(t.Context())
				var greedy atomic.Int64
				for i := range 800 {
					work(ctx, queue, "greedy", i%8, time.Second, func(err error) {
						if err == nil {
							greedy.Add(1)
						}
					})
				}
				<-time.After(100*time.Second + 1)
				for range 3 { // time and again
					began, answered := time.Now(), make(chan error)
					work(ctx, queue, honest.address, "honest", 0, func(err error) { answered <- err })
					require.NoError(t, <-answered)
					require.LessOrEqual(t, time.Since(began), honest.within)
				}
				require.GreaterOrEqual(t, greedy.Load(), int64(100), "the turns are taken meanwhile")
				cancel()
				synctest.Wait()
				<-time.After(time.Second)
				synctest.Wait()
				require.Less(t, greedy.Load(), int64(200), "who gives up leaves the queue")
				require.Zero(t, queue.root.Children(), "and nothing behind")
				require.Equal(t, 1, queue.free)
			})
		})
	}
}

// Turns are shared in time: one long turn is worth many short ones.
func TestTurnsAreSharedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		queue := newTurns(1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var long, short atomic.Int64
		for range 1000 {
			work(ctx, queue, "long", 0, 10*time.Second, func(error) { long.Add(1) })
			work(ctx, queue, "short", 0, time.Second, func(error) { short.Add(1) })
		}
		<-time.After(1000 * time.Second)
		require.InDelta(t, 50, long.Load(), 2)
		require.InDelta(t, 500, short.Load(), 20)
		cancel()
		<-time.After(time.Minute)
	})
}

// No more are at work than there are turns, also when some give up at the moment that theirs comes.
func TestTurnsAreBounded(t *testing.T) {
	queue := newTurns(2)
	working, done := make(chan struct{}, 2), make(chan struct{})
	for i := range 400 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*10*time.Microsecond)
		go func() {
			defer func() { done <- struct{}{} }()
			defer cancel()
			leave, err := queue.enter(ctx, i%3, i%7)
			if err != nil {
				return
			}
			select {
			case working <- struct{}{}:
				<-working
			default:
				t.Error("a third one is at work")
			}
			leave()
		}()
	}
	for range 400 {
		<-done
	}
	require.Equal(t, 2, queue.free)
	require.Zero(t, queue.root.Children())
}

// Whoever has calls in flight, whole or not, leaves some to others.
func TestCallsOfOneLeaveRoomForOthers(t *testing.T) {
	const limit = 90
	members := newMembers(t, 1)
	cfg := members[0].config(t, nil)
	cfg.MaxClientCalls = limit
	busy := members[0]
	busy.start(t, cfg)
	busy.HandleClient("reseal/wait", func(ctx context.Context, _ *Sender, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, nil })
	busy.HandleClient("reseal/ping", func(context.Context, *Sender, []byte) ([]byte, error) { return nil, nil })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range 2 { // each leaves a third of what there is, so that few of them leave something of so few
		greedy := dialClient(t, cluster, busy.peer)
		for range limit {
			go func() { _, _ = greedy.Call(ctx, "reseal/wait", nil) }()
		}
		eventually(t, func() bool { return inFlight(busy) >= limit/3 }, fmt.Sprint("the calls of ", i, " are in flight"))
	}
	_, err := dialClient(t, cluster, busy.peer).Call(t.Context(), "reseal/ping", nil)
	require.NoError(t, err, "there is room for another connection")
	require.Less(t, inFlight(busy), limit)
}

func inFlight(m *member) int {
	c := m.clients.callers
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}
