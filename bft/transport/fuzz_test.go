package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/credentials"

	"github.com/reseal-bft/reseal/bft"
)

// fed is a connection on which given bytes arrive, and then no more.
type fed struct {
	io.Reader
	sent bytes.Buffer
}

func (f *fed) Write(p []byte) (int, error)    { return f.sent.Write(p) }
func (*fed) Close() error                     { return nil }
func (*fed) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*fed) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)} }
func (*fed) SetDeadline(time.Time) error      { return nil }
func (*fed) SetReadDeadline(time.Time) error  { return nil }
func (*fed) SetWriteDeadline(time.Time) error { return nil }

// allocated returns how many bytes a call allocates, and whatever else is running.
func allocated(call func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	call()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// hello is what a caller sends first, offering a protocol.
func hello(t testing.TB, offered string) []byte {
	conn := &fed{Reader: bytes.NewReader(nil)}
	config := baseTLS()
	config.InsecureSkipVerify, config.NextProtos = true, []string{offered}
	require.Error(t, tls.Client(conn, config).Handshake())
	return conn.sent.Bytes()
}

// Whatever an outsider says first, it is refused, and what is sent and allocated for it is bounded:
// nobody is amplified.
func FuzzHandshake(f *testing.F) {
	members := newMembers(f, 2)
	certificate, err := Credential(members[0].identity, cluster, 1, Term{}, newEpochKey(f))
	require.NoError(f, err)
	for _, offered := range []string{protocol, "h2", "other"} {
		f.Add(hello(f, offered))
	}
	f.Add([]byte{})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	t1 := &Transport{cfg: Config{Cluster: cluster, Self: 1, Log: slog.New(slog.DiscardHandler)}, peers: map[bft.ReplicaID]*peer{2: {Peer: members[1].peer}}, ctx: context.Background()}
	g := &gate{credentials.NewTLS(listenTLS(func() *tls.Certificate { return &certificate }, nil)), t1, new(handshakes)}
	f.Fuzz(func(t *testing.T, data []byte) {
		conn := &fed{Reader: bytes.NewReader(data)}
		bytes := allocated(func() {
			_, _, err := g.ServerHandshake(conn)
			require.Error(t, err)
		})
		require.Less(t, bytes, uint64(4<<20+8*len(data)), "allocated, by others of this process too")
		require.Less(t, conn.sent.Len(), 4<<10, "sent")
		require.Zero(t, g.handshakes.conns.Len())
	})
}

// Whatever a peer sends as frames: the handler gets what has arrived whole, and no more is allocated
// than that, one frame of the largest size, and some for each frame.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 'a', 'b', 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0x20, 0, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		got := 0
		tr := &Transport{cfg: Config{Handler: func(_ Sender, frame []byte) { got += 4 + len(frame) }}}
		in := &incoming{conn: &fed{Reader: bytes.NewReader(data)}, stopped: make(chan struct{})}
		bytes := allocated(func() { require.Error(t, tr.receive(Sender{ID: 2}, in)) })
		require.LessOrEqual(t, got, len(data))
		require.Less(t, bytes, uint64(MaxFrame+4<<20+8*len(data)), "allocated, by others of this process too")
	})
}

// BenchmarkHandshake is what a handshake costs both ends together, and what an outsider's hello costs
// the replica alone.
func BenchmarkHandshake(b *testing.B) {
	members := newMembers(b, 1)
	certificate, err := Credential(members[0].identity, cluster, 1, Term{}, newEpochKey(b))
	require.NoError(b, err)
	config := listenTLS(func() *tls.Certificate { return &certificate }, nil)
	b.Run("hello made", func(b *testing.B) {
		for b.Loop() {
			hello(b, "h2")
		}
	})
	b.Run("hello answered", func(b *testing.B) {
		first := hello(b, "h2")
		for b.Loop() {
			require.Error(b, tls.Server(&fed{Reader: bytes.NewReader(first)}, config).Handshake())
		}
	})
	b.Run("hello repeated", func(b *testing.B) { // what it costs who does not make it anew
		first := hello(b, "h2")
		for b.Loop() {
			_, _ = (&fed{}).Write(first)
		}
	})
}
