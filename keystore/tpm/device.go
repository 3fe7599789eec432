package tpm

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/internal/files"
	"github.com/reseal-bft/reseal/keystore"
)

const (
	headerSize  = 10   // tag, size, response code
	maxResponse = 4096 // of every TPM so far
	retryFirst  = time.Millisecond
	retryMax    = 100 * time.Millisecond
)

// device is a TPM that other processes use too. It is connected for the
// duration of an operation only.
type device struct {
	address string
	managed bool // a resource manager flushes what a client leaves behind
	timeout time.Duration
	// Of the hierarchies, when the caller has them; of the keystore that Init made, too.
	owner, endorsement authorization
	dial               func(ctx context.Context) (io.ReadWriteCloser, error)

	mu   sync.Mutex   // one operation at a time
	busy atomic.Int64 // nanoseconds that the TPM took for commands
	sent atomic.Int64 // commands
}

// newDevice understands what follows "tpm:" in a URI, without the query.
func newDevice(address string, o keystore.Options) (*device, error) {
	d := &device{address: address, timeout: o.Timeout, owner: authorization(o.OwnerAuth.Reveal()), endorsement: authorization(o.EndorsementAuth.Reveal())}
	d.endorsement = cmp.Or(d.endorsement, d.owner)
	var dialer net.Dialer
	switch {
	case strings.HasPrefix(address, "unix:"):
		path := strings.TrimPrefix(address, "unix:")
		d.dial = func(ctx context.Context) (io.ReadWriteCloser, error) { return dialer.DialContext(ctx, "unix", path) }
	case strings.HasPrefix(address, "tcp:"):
		host := strings.TrimPrefix(address, "tcp:")
		if _, _, err := net.SplitHostPort(host); err != nil {
			return nil, fmt.Errorf("tpm:%s: %w: write it as tpm:tcp:host:port", address, err)
		}
		d.dial = func(ctx context.Context) (io.ReadWriteCloser, error) { return dialer.DialContext(ctx, "tcp", host) }
	case strings.HasPrefix(address, "/"):
		d.managed = strings.Contains(address, "tpmrm")
		d.dial = func(context.Context) (io.ReadWriteCloser, error) { return files.OpenDevice(address) }
	default:
		return nil, fmt.Errorf("tpm:%s: write tpm:/dev/tpmrm0, tpm:unix:/path or tpm:tcp:host:port", address)
	}
	return d, nil
}

// run connects, calls f and disconnects. When the TPM has no room because some
// client died and left objects or sessions behind, they are flushed and f is
// called again; so f changes nothing lasting before its last command.
func (d *device) run(ctx context.Context, f func(c *conn) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	rw, err := d.connect(ctx)
	if err != nil {
		return fmt.Errorf("tpm:%s: %w: %w", d.address, keystore.ErrUnavailable, err)
	}
	c := &conn{rw: rw, ctx: ctx, device: d}
	defer func() { _ = rw.Close() }()
	defer c.flushPassing()
	if nc, ok := rw.(net.Conn); ok {
		// Wakes what waits for the TPM. A character device cannot be woken.
		stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(0, 0)) })
		defer stop()
	}
	err = f(c)
	if !d.managed && outOfRoom(err) {
		c.flushPassing()
		if flushErr := c.flushAll(); flushErr != nil {
			return errors.Join(err, flushErr)
		}
		err = f(c)
	}
	return err
}

// connect dials. A socket refuses for the moment when as many clients wait as it
// takes, and a device when another process has it open.
func (d *device) connect(ctx context.Context) (io.ReadWriteCloser, error) {
	for wait := retryFirst; ; wait = min(2*wait, retryMax) {
		rw, err := d.dial(ctx)
		if !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EBUSY) {
			return rw, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("other processes have it, and keep it: %w", err)
		case <-time.After(wait):
		}
	}
}

func outOfRoom(err error) bool {
	return errors.Is(err, tpm2.TPMRCObjectMemory) || errors.Is(err, tpm2.TPMRCContextGap) ||
		errors.Is(err, tpm2.TPMRCSessionMemory) || errors.Is(err, tpm2.TPMRCSessionHandles)
}

// conn is a connection to a TPM. It implements transport.TPM.
type conn struct {
	rw     io.ReadWriteCloser
	ctx    context.Context
	device *device
	// passing are objects that are flushed with the connection.
	passing []tpm2.TPMHandle
}

// flushPassing flushes what was loaded for the duration of the connection. When
// the TPM does not answer any more there is nothing to flush.
func (c *conn) flushPassing() {
	for _, h := range c.passing {
		_ = c.flush(h)
	}
	c.passing = nil
}

// Send sends a command and returns the response, after as many tries as the
// TPM asks for within the operation's time.
func (c *conn) Send(cmd []byte) ([]byte, error) {
	for wait := retryFirst; ; wait = min(2*wait, retryMax) {
		rsp, err := c.exchange(cmd)
		if err != nil {
			return nil, fmt.Errorf("tpm:%s: %w: %w", c.device.address, keystore.ErrUnavailable, err)
		}
		switch tpm2.TPMRC(binary.BigEndian.Uint32(rsp[6:headerSize])) {
		case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting:
		default:
			return rsp, nil
		}
		select {
		case <-c.ctx.Done():
			return nil, fmt.Errorf("tpm:%s: %w: it is busy, and remained so: %w", c.device.address, keystore.ErrUnavailable, c.ctx.Err())
		case <-time.After(wait):
		}
	}
}

// exchange writes a command and reads one response. A character device gives
// the response to one read; a socket may give it in parts.
func (c *conn) exchange(cmd []byte) ([]byte, error) {
	start := time.Now()
	c.device.sent.Add(1)
	defer func() { c.device.busy.Add(int64(time.Since(start))) }()
	if _, err := c.rw.Write(cmd); err != nil {
		return nil, err
	}
	buf := make([]byte, maxResponse)
	n, err := io.ReadAtLeast(c.rw, buf, headerSize)
	if err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(buf[2:6]))
	if size < n || size > maxResponse {
		return nil, fmt.Errorf("a response of %d bytes announces %d", n, size)
	}
	_, err = io.ReadFull(c.rw, buf[n:size])
	return buf[:size], err
}

// flushAll flushes every transient object and session.
func (c *conn) flushAll() error {
	for _, kind := range []uint32{0x80000000, 0x02000000, 0x03000000} { // transient, loaded, saved
		handles, err := c.handles(kind)
		if err != nil {
			return err
		}
		for _, h := range handles {
			if err := c.flush(h); err != nil {
				return err
			}
		}
	}
	return nil
}

// handles lists the handles of a kind that are in use.
func (c *conn) handles(first uint32) ([]tpm2.TPMHandle, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 64}.Execute(c)
	if err != nil {
		return nil, fmt.Errorf("list handles: %w", err)
	}
	list, err := rsp.CapabilityData.Data.Handles()
	if err != nil {
		return nil, fmt.Errorf("list handles: %w", err)
	}
	var out []tpm2.TPMHandle
	for _, h := range list.Handle {
		if uint32(h)>>24 == first>>24 || first>>24 == 0x03 && uint32(h)>>24 == 0x02 {
			out = append(out, h)
		}
	}
	return out, nil
}

// flush unloads an object or session.
func (c *conn) flush(h tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: h}.Execute(c)
	if err != nil {
		return fmt.Errorf("flush %#x: %w", uint32(h), err)
	}
	return nil
}
