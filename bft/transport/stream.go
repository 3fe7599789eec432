package transport

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// protocol is what the two ends agree on, by ALPN, for a connection of frames; calls use HTTP/2 on
// connections of their own.
const protocol = "reseal-frames/1"

const (
	recordBytes = 16 << 10  // the largest TLS record; small frames are gathered up to it
	smallFrame  = 4 << 10   // larger frames are not worth the copy
	wireBuffer  = 128 << 10 // bytes for one read or write of the socket

	// The byte by which a replica says that it takes frames, or that it does not, see errTwin.
	accepted = 1
	twice    = 2
)

// stallTimeout is how long a connection of frames may get nothing through. A test has less patience.
var stallTimeout = 15 * time.Second

// keepAlive notices within some ten seconds that a silent peer is gone.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}

// bufferedConn is a connection below TLS. It gathers TLS records, of 16 KiB at most, into fewer
// reads and writes of the socket.
type bufferedConn struct {
	net.Conn
	in *bufio.Reader

	mu  sync.Mutex
	out *bufio.Writer // nil: writes go through at once
}

// newBufferedConn starts with a small buffer: strangers connect too.
func newBufferedConn(conn net.Conn) *bufferedConn {
	return &bufferedConn{Conn: conn, in: bufio.NewReaderSize(conn, smallFrame)}
}

// widen gives the connection a large buffer for reads. Nobody may read meanwhile.
func (c *bufferedConn) widen() {
	rest, _ := c.in.Peek(c.in.Buffered()) // what is buffered can be peeked at
	c.in = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(rest)), c.Conn), wireBuffer)
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.in.Read(p) }

func (c *bufferedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out == nil {
		return c.Conn.Write(p)
	}
	return c.out.Write(p)
}

// hold keeps writes back until flush, from now on.
func (c *bufferedConn) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = bufio.NewWriterSize(c.Conn, wireBuffer)
}

func (c *bufferedConn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Flush()
}

// frameWriter writes frames, each behind its length (4 bytes), to a connection.
type frameWriter struct {
	wire     *bufferedConn
	secure   *tls.Conn
	gathered []byte
}

func newFrameWriter(wire *bufferedConn, secure *tls.Conn) *frameWriter {
	wire.hold()
	return &frameWriter{wire: wire, secure: secure, gathered: make([]byte, 0, recordBytes)}
}

// write sends a batch. It fails when the peer takes nothing for some time.
func (w *frameWriter) write(batch [][]byte) error {
	if err := w.wire.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
		return err
	}
	for _, frame := range batch {
		if err := w.add(frame); err != nil {
			return err
		}
	}
	if err := w.seal(); err != nil {
		return err
	}
	return w.wire.flush()
}

func (w *frameWriter) add(frame []byte) error {
	large := len(frame) > smallFrame
	need := 4
	if !large {
		need += len(frame)
	}
	if len(w.gathered)+need > recordBytes {
		if err := w.seal(); err != nil {
			return err
		}
	}
	w.gathered = binary.BigEndian.AppendUint32(w.gathered, uint32(len(frame)))
	if !large {
		w.gathered = append(w.gathered, frame...)
		return nil
	}
	if err := w.seal(); err != nil {
		return err
	}
	_, err := w.secure.Write(frame)
	return err
}

// seal encrypts what is gathered.
func (w *frameWriter) seal() error {
	if len(w.gathered) == 0 {
		return nil
	}
	_, err := w.secure.Write(w.gathered)
	w.gathered = w.gathered[:0]
	return err
}

var errFrameTooLarge = errors.New("a peer sent a frame that is too large")

// readFrame reads the next frame, into memory of its own.
func readFrame(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > MaxFrame {
		return nil, errFrameTooLarge
	}
	frame := make([]byte, n)
	_, err := io.ReadFull(r, frame)
	return frame, err
}
