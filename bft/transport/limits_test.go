package transport

import (
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
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

// An answer that is not taken in time ends its connection; one that is taken, or is so small that it
// is not waited for, does not.
func TestAnAnswerHasItsTime(t *testing.T) {
	for name, c := range map[string]struct {
		size        int
		taken, ends bool
	}{
		"not taken": {leastHeld, false, true},
		"taken":     {leastHeld, true, false},
		"small":     {leastHeld - 1, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := connected(t)
				of := newCallers("clients", 1, 0, 1<<20, slog.New(slog.DiscardHandler))
				k, err := of.admit(near, "somewhere")
				require.NoError(t, err)
				answer, _ := k.answer(make([]byte, c.size))
				if held, ok := answer.(*heldReply); ok && c.taken {
					<-time.After(callTime - time.Second)
					held.Put(nil)
				}
				<-time.After(callTime - 2*time.Second)
				require.Equal(t, 1, count(of), "it has its time")
				<-time.After(callTime)
				require.Equal(t, c.ends, ended(far))
				require.Equal(t, !c.ends, count(of) == 1)
			})
		})
	}
}
