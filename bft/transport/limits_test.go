package transport

import (
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft/budget"
)

// connected is a connection of which somebody else has the other end.
func connected(t *testing.T) (near, far net.Conn) {
	near, far = net.Pipe()
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near, far
}

// ended reports whether a connection has been closed at the other end.
func ended(far net.Conn) bool {
	_ = far.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := far.Read(make([]byte, 1))
	return err != nil && !isTimeout(err)
}

// count is how many connections there are.
func count(c *callers) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.conns)
}

// under is how many calls are in flight, and the bytes that are held.
func under(c *callers) (calls, held int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls, c.held
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}

// Whoever connects and does not authenticate has a place until there are too many such: then the
// one that has had it for longest goes, and nobody else. A place that is given back is free.
func TestConnectionsThatHaveNotAuthenticatedAreBounded(t *testing.T) {
	var h handshakes
	const more = 3
	var fars []net.Conn
	var leaves []func()
	enter := func() {
		near, far := connected(t)
		_, leave := h.enter(near, nil)
		leaves, fars = append(leaves, leave), append(fars, far)
	}
	for range maxHandshakes + more {
		enter()
	}
	require.Equal(t, maxHandshakes, h.conns.Len())
	for i, far := range fars {
		require.Equal(t, i < more, ended(far), "connection %d", i)
	}
	leaves[0]() // its place is another's by now
	require.Equal(t, maxHandshakes, h.conns.Len())
	leaves[more]()
	require.Equal(t, maxHandshakes-1, h.conns.Len())
	enter()
	require.False(t, ended(fars[more+1]), "there was room")
}

// An answer that is not taken in time ends its connection, however small; one that is taken does
// not. Its call is in flight until then.
func TestAnAnswerHasItsTime(t *testing.T) {
	for name, c := range map[string]struct {
		size  int
		taken bool
	}{
		"not taken":        {leastHeld, false},
		"taken":            {leastHeld, true},
		"small, not taken": {1, false},
		"small, taken":     {1, true},
		"none, not taken":  {0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := connected(t)
				of := newCallers("clients", 1, 0, 1<<20, slog.New(slog.DiscardHandler))
				k, err := of.admit(near, "somewhere")
				require.NoError(t, err)
				require.True(t, k.opened())
				answer, _ := k.answer(make([]byte, c.size))
				<-time.After(callTime - time.Second)
				require.Equal(t, 1, count(of), "it has its time")
				calls, held := under(of)
				require.Equal(t, 1, calls, "and is in flight")
				require.Equal(t, c.size+budget.Stream, held)
				if c.taken {
					answer.Put(nil)
				}
				<-time.After(callTime)
				require.Equal(t, c.taken, count(of) == 1)
				require.Equal(t, !c.taken, ended(far))
				answer.Put(nil) // gRPC may give it back when the connection has ended
				calls, held = under(of)
				require.Zero(t, calls)
				require.Zero(t, held)
			})
		})
	}
}

// What is written to who reads nothing ends the connection in time.
func TestAWriteHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := connected(t)
		of := newCallers("clients", 1, 0, 1<<20, slog.New(slog.DiscardHandler))
		k, err := of.admit(near, "somewhere")
		require.NoError(t, err)
		began := time.Now()
		_, err = k.Write(make([]byte, 1))
		require.Error(t, err)
		require.Equal(t, callTime, time.Since(began))
		require.Zero(t, count(of))
		require.True(t, ended(far))
	})
}
