package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
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
	t1 := &Transport{cfg: Config{Cluster: cluster, Self: 1, Log: slog.New(slog.DiscardHandler)}, peers: map[bft.ReplicaID]*peer{2: {Peer: members[1].peer}}, ctx: context.Background(), turns: newTurns(1)}
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

// once is a connection on which given bytes arrive, and then no more, of which what is sent is counted.
type once struct {
	fed
	mu     sync.Mutex
	bytes  int // sent
	closed chan struct{}
	close  sync.Once
}

func (o *once) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bytes += len(p)
	return len(p), nil
}

func (o *once) Close() error {
	o.close.Do(func() { close(o.closed) })
	return nil
}

// calling is what a client of HTTP/2 sends for calls of a method, with data each.
func calling(t testing.TB, method string, data []byte, calls int, settings ...http2.Setting) []byte {
	var out, fields bytes.Buffer
	out.WriteString(http2.ClientPreface)
	framer, encoder := http2.NewFramer(&out, nil), hpack.NewEncoder(&fields)
	require.NoError(t, framer.WriteSettings(settings...))
	for i := range calls {
		fields.Reset()
		for _, field := range [][2]string{
			{":method", "POST"}, {":scheme", "https"}, {":path", method}, {":authority", "replica"}, {"content-type", "application/grpc"}, {"te", "trailers"},
		} {
			require.NoError(t, encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}))
		}
		stream := uint32(2*i + 1)
		require.NoError(t, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: fields.Bytes(), EndHeaders: true}))
		message := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(data))), data...)
		require.NoError(t, framer.WriteData(stream, true, message))
	}
	require.NoError(t, framer.WritePing(false, [8]byte{1}))
	return out.Bytes()
}

// Whatever a client sends within TLS, to gRPC: its connection ends with what it sent, what it is
// answered is a multiple of that, and so is what is allocated, beside what each connection takes.
func FuzzStreams(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte(http2.ClientPreface))
	f.Add(calling(f, "/reseal/echo", []byte("hello"), 3))
	f.Add(calling(f, "/none", nil, 1))
	large := calling(f, "/reseal/echo", make([]byte, 100), 1)
	f.Add(large[:len(large)-60]) // half a request
	members := newMembers(f, 1)
	members[0].start(f, members[0].config(f, nil))
	members[0].HandleClient("reseal/echo", func(_ context.Context, _ *Sender, request []byte) ([]byte, error) { return request, nil })
	f.Fuzz(func(t *testing.T, data []byte) {
		conn := &once{fed: fed{Reader: bytes.NewReader(data)}, closed: make(chan struct{})}
		bytes := allocated(func() {
			require.NoError(t, members[0].acceptClient(conn, credentials.TLSInfo{}))
			select {
			case <-conn.closed:
			case <-time.After(patience):
				require.FailNow(t, "the connection does not end")
			}
		})
		require.Less(t, bytes, uint64(4<<20+512*len(data)), "allocated, by others of this process too")
		conn.mu.Lock()
		defer conn.mu.Unlock()
		require.LessOrEqual(t, conn.bytes, 1<<10+32*len(data), "sent")
	})
}

// No certificate is a replica's but the one that its identity issued.
func FuzzCertificate(f *testing.F) {
	members := newMembers(f, 1)
	certificate, err := Credential(members[0].identity, cluster, 1, Term{}, newEpochKey(f))
	require.NoError(f, err)
	f.Add(certificate.Certificate[0])
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		sender, err := CheckCredential(cluster, 1, &members[0].identity.PublicKey, leaf, time.Now())
		if err == nil {
			require.Equal(t, certificate.Leaf.RawTBSCertificate, leaf.RawTBSCertificate)
			require.EqualValues(t, 1, sender.ID)
		}
	})
}

// No answer vouches for a key but what the identity signed, for the nonce that was asked.
func FuzzVouched(f *testing.F) {
	members := newMembers(f, 1)
	cfg := members[0].config(f, nil)
	cfg.Identity = members[0].identity
	members[0].start(f, cfg)
	nonce := make([]byte, nonceSize)
	answer, err := (&voucher{t: members[0].Transport}).serve(f.Context(), nil, nonce)
	require.NoError(f, err)
	f.Add(nonce, answer)
	f.Add([]byte("another"), answer)
	f.Fuzz(func(t *testing.T, asked, said []byte) {
		key, err := vouched(cluster, 1, members[0].peer.Identity, asked, said)
		if err == nil {
			require.Equal(t, nonce, asked)
			require.Equal(t, members[0].epochKey.Public(), key)
		}
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
