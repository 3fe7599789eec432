package tpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/stretchr/testify/require"
)

// scripted is a TPM that gives the same answers whatever it is asked.
type scripted struct {
	io.Reader
	commands int
}

func (s *scripted) Write(p []byte) (int, error) {
	s.commands++
	return len(p), nil
}

func (s *scripted) Close() error { return nil }

func response(rc tpm2.TPMRC) []byte {
	b := []byte{0x80, 1, 0, 0, 0, headerSize}
	return binary.BigEndian.AppendUint32(b, uint32(rc))
}

// scriptedDevice is a device behind which a scripted TPM is.
func scriptedDevice(s *scripted, timeout time.Duration) *device {
	return &device{address: "scripted", managed: true, timeout: timeout,
		dial: func(context.Context) (io.ReadWriteCloser, error) { return s, nil }}
}

// TestBusyTPM: a command is sent again when the TPM asks for it, until the
// operation's time is over.
func TestBusyTPM(t *testing.T) {
	busy := &scripted{Reader: bytes.NewReader(bytes.Join([][]byte{
		response(tpm2.TPMRCRetry), response(tpm2.TPMRCYielded), response(tpm2.TPMRCTesting), response(0),
	}, nil))}
	// Each answer arrives on its own, as from a device.
	busy.Reader = &byAnswer{busy.Reader}
	require.NoError(t, scriptedDevice(busy, time.Minute).run(t.Context(), func(c *conn) error {
		_, err := c.Send([]byte("command"))
		return err
	}))
	require.Equal(t, 4, busy.commands)

	always := &scripted{Reader: endless(response(tpm2.TPMRCRetry))}
	err := scriptedDevice(always, 10*time.Millisecond).run(t.Context(), func(c *conn) error {
		_, err := c.Send([]byte("command"))
		return err
	})
	require.ErrorIs(t, err, keystore.ErrUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// byAnswer reads one response at a time.
type byAnswer struct{ io.Reader }

func (b *byAnswer) Read(p []byte) (int, error) { return io.ReadFull(b.Reader, p[:headerSize]) }

// endless repeats a response for ever.
type endless []byte

func (e endless) Read(p []byte) (int, error) { return copy(p, e), nil }

// TestHostileTPM: nothing that comes over the wire makes the transport panic or
// allocate without limit.
func TestHostileTPM(t *testing.T) {
	for name, answer := range map[string][]byte{
		"short":     {0x80, 1},
		"too large": {0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"too small": {0x80, 1, 0, 0, 0, 2, 0, 0, 0, 0},
		"cut":       {0x80, 1, 0, 0, 0, 20, 0, 0, 0, 0},
	} {
		err := scriptedDevice(&scripted{Reader: bytes.NewReader(answer)}, time.Second).run(t.Context(), func(c *conn) error {
			_, err := c.Send([]byte("command"))
			return err
		})
		require.ErrorIs(t, err, keystore.ErrUnavailable, name)
	}
}

// TestSilentTPM: a TPM that another process does not let go of is given up after
// the operation's time.
func TestSilentTPM(t *testing.T) {
	ours, theirs := net.Pipe()
	defer func() { require.NoError(t, theirs.Close()) }()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	d := &device{address: "silent", timeout: 10 * time.Millisecond,
		dial: func(context.Context) (io.ReadWriteCloser, error) { return ours, nil }}
	err := d.run(t.Context(), func(c *conn) error {
		_, err := c.Send([]byte("command"))
		return err
	})
	require.ErrorIs(t, err, keystore.ErrUnavailable)
}

// TestCancelled: an operation that waits for the TPM ends with its context.
func TestCancelled(t *testing.T) {
	ours, theirs := net.Pipe()
	defer func() { require.NoError(t, theirs.Close()) }()
	d := &device{address: "silent", timeout: time.Hour,
		dial: func(context.Context) (io.ReadWriteCloser, error) { return ours, nil }}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = io.ReadFull(theirs, make([]byte, len("command")))
		cancel()
	}()
	err := d.run(ctx, func(c *conn) error {
		_, err := c.Send([]byte("command"))
		return err
	})
	require.ErrorIs(t, err, keystore.ErrUnavailable)
}

// TestURIs: an error names the part that is wrong.
func TestURIs(t *testing.T) {
	for uri, want := range map[string]string{
		"tpm:tpmrm0":                "tpm:/dev/tpmrm0",
		"tpm:tcp:localhost":         "tpm:tcp:host:port",
		"tpm:/dev/tpmrm0?slot=x":    "slot=x",
		"tpm:/dev/tpmrm0?slots=1":   `unknown attribute "slots"`,
		"tpm:/dev/tpmrm0?slot=1;%z": "query",
		"file:/dev/tpmrm0":          "tpm:/dev/tpmrm0",
	} {
		_, _, err := deviceAt(uri, keystore.NewOptions())
		require.ErrorContains(t, err, want, uri)
	}
	for _, uri := range []string{"tpm:/dev/tpmrm0", "tpm:/dev/tpmrm0?slot=255", "tpm:unix:/run/s", "tpm:tcp:[::1]:2321"} {
		_, _, err := deviceAt(uri, keystore.NewOptions())
		require.NoError(t, err, uri)
	}
}
