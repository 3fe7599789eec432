package swtpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	stateFile     = "tpm2-00.permall" // where swtpm keeps what survives power loss
	dataSocket    = "tpm.sock"
	controlSocket = "tpm.sock.ctrl" // where tpm2-tools look for it
	logFile       = "swtpm.log"
	maxSocketPath = 107 // of sockaddr_un on Linux
	startTimeout  = 10 * time.Second
	stopTimeout   = 5 * time.Second
	pollInterval  = 2 * time.Millisecond
)

// Commands of swtpm's control channel and of the TPM.
const cmdInit = 2

var (
	tpmStartupClear  = []byte{0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0}
	tpmShutdownClear = []byte{0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x45, 0, 0}
	tpmStartupState  = []byte{0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 1}
	tpmShutdownState = []byte{0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x45, 0, 1}
	// By the platform hierarchy, with an empty password.
	tpmAllowClear = []byte{0x80, 2, 0, 0, 0, 28, 0, 0, 1, 0x27, 0x40, 0, 0, 0x0c, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0}
	tpmClear      = []byte{0x80, 2, 0, 0, 0, 27, 0, 0, 1, 0x26, 0x40, 0, 0, 0x0c, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0}
)

// TPM is a running software TPM. Its methods are safe for concurrent use; those
// that reset it wait for their turn as clients do.
type TPM struct {
	dir, sockets string
	cmd          *exec.Cmd
	exited       chan struct{}
	exitErr      error

	mu     sync.Mutex
	closed bool
}

// Start runs the TPM that was manufactured in dir and powers it on. The process
// outlives ctx; Close ends it.
func Start(ctx context.Context, dir string) (*TPM, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("swtpm: %w", err)
	}
	if _, err := os.Stat(filepath.Join(abs, stateFile)); err != nil {
		return nil, fmt.Errorf("swtpm: there is no TPM in %s: %w", abs, err)
	}
	t := &TPM{dir: abs, sockets: abs, exited: make(chan struct{})}
	if len(filepath.Join(abs, controlSocket)) > maxSocketPath {
		if t.sockets, err = os.MkdirTemp("", "tpm"); err != nil {
			return nil, fmt.Errorf("swtpm: %w", err)
		}
	}
	if t.probe(controlSocket) == nil {
		return nil, fmt.Errorf("swtpm: the TPM in %s runs already", abs)
	}
	if err := t.start(ctx); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// start runs the process and waits until it answers.
func (t *TPM) start(ctx context.Context) error {
	t.cmd = exec.Command("swtpm", "socket", "--tpm2",
		"--tpmstate", "dir="+t.dir,
		"--server", "type=unixio,path="+t.socket(dataSocket),
		"--ctrl", "type=unixio,path="+t.socket(controlSocket),
		"--flags", "not-need-init,startup-clear",
		"--log", "file="+filepath.Join(t.dir, logFile)+",level=1")
	// Its own group: a Ctrl-C for the terminal's foreground group is not for it.
	// And it ends with the thread that started it, so with this process, whatever way that ends.
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := t.cmd.Start(); err != nil {
		close(t.exited)
		return fmt.Errorf("swtpm: %w: run `apt-get install swtpm`", err)
	}
	go func() {
		t.exitErr = t.cmd.Wait()
		close(t.exited)
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := errors.Join(t.probe(controlSocket), t.probe(dataSocket))
		if err == nil {
			return nil
		}
		select {
		case <-t.exited:
			return fmt.Errorf("swtpm: the TPM in %s does not start: %w: %s", t.dir, t.exitErr, t.lastLog())
		case <-ctx.Done():
			return fmt.Errorf("swtpm: the TPM in %s does not answer: %w", t.dir, ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}

// probe checks that a socket takes connections.
func (t *TPM) probe(socket string) error {
	conn, err := t.dial(socket)
	if err != nil {
		return err
	}
	return conn.Close()
}

// URI returns the address by which a keystore opens the TPM.
func (t *TPM) URI() string { return "tpm:unix:" + t.Socket() }

// Socket returns the path of the socket that takes TPM commands.
func (t *TPM) Socket() string { return t.socket(dataSocket) }

// PID returns the id of the TPM's process.
func (t *TPM) PID() int { return t.cmd.Process.Pid }

// Reboot does what an orderly restart of the machine does: the TPM is told to
// shut down, loses its power, and starts. PCRs are zero and resetCount is one
// more afterwards.
func (t *TPM) Reboot() error {
	if err := t.command(tpmShutdownClear); err != nil {
		return fmt.Errorf("swtpm: shutdown: %w", err)
	}
	return t.PowerCut()
}

// PowerCut takes the power away without warning, and gives it back.
func (t *TPM) PowerCut() error {
	if err := t.control(cmdInit, 0); err != nil {
		return fmt.Errorf("swtpm: power cycle: %w", err)
	}
	if err := t.command(tpmStartupClear); err != nil {
		return fmt.Errorf("swtpm: startup: %w", err)
	}
	return nil
}

// Clear does what the firmware's setup does when a person has it clear the TPM: keys,
// counters and authorizations of the owner are gone. It works until the platform
// hierarchy was taken away in this boot.
func (t *TPM) Clear() error {
	for _, cmd := range [][]byte{tpmAllowClear, tpmClear} {
		if err := t.command(cmd); err != nil {
			return fmt.Errorf("swtpm: clear: %w", err)
		}
	}
	return nil
}

// Suspend does what a machine that is suspended to memory and resumed does: PCRs and
// resetCount stay, restartCount is one more, and the TPM's time begins again.
func (t *TPM) Suspend() error {
	if err := t.command(tpmShutdownState); err != nil {
		return fmt.Errorf("swtpm: suspend: %w", err)
	}
	if err := t.control(cmdInit, 0); err != nil {
		return fmt.Errorf("swtpm: power cycle: %w", err)
	}
	if err := t.command(tpmStartupState); err != nil {
		return fmt.Errorf("swtpm: resume: %w", err)
	}
	return nil
}

// Close shuts the TPM down and ends its process, and no other. The manufactured
// state stays in the directory, for the next Start.
func (t *TPM) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	err := t.stop()
	for _, name := range []string{dataSocket, controlSocket} {
		_ = os.Remove(t.socket(name))
	}
	if t.sockets != t.dir {
		err = errors.Join(err, os.RemoveAll(t.sockets))
	}
	return err
}

// stop asks the process to end, and makes it.
func (t *TPM) stop() error {
	if t.cmd == nil || t.cmd.Process == nil {
		return nil
	}
	if err := t.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("swtpm: %w", err)
	}
	select {
	case <-t.exited:
		return nil
	case <-time.After(stopTimeout):
	}
	if err := t.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("swtpm: %w", err)
	}
	<-t.exited
	return nil
}

// command sends one command to the TPM and checks that it succeeds.
func (t *TPM) command(cmd []byte) error {
	rsp, err := t.exchange(dataSocket, cmd, 10)
	if err != nil {
		return err
	}
	if rc := binary.BigEndian.Uint32(rsp[6:]); rc != 0 {
		return fmt.Errorf("the TPM answers %#x", rc)
	}
	return nil
}

// control sends one command to the control channel and checks that it succeeds.
func (t *TPM) control(cmd uint32, args ...uint32) error {
	b := binary.BigEndian.AppendUint32(nil, cmd)
	for _, a := range args {
		b = binary.BigEndian.AppendUint32(b, a)
	}
	rsp, err := t.exchange(controlSocket, b, 4)
	if err != nil {
		return err
	}
	if rc := binary.BigEndian.Uint32(rsp); rc != 0 {
		return fmt.Errorf("swtpm answers %#x", rc)
	}
	return nil
}

// exchange sends a message and reads an answer of a known size.
func (t *TPM) exchange(socket string, msg []byte, size int) ([]byte, error) {
	conn, err := t.dial(socket)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(msg); err != nil {
		return nil, err
	}
	rsp := make([]byte, size)
	_, err = io.ReadFull(conn, rsp)
	return rsp, err
}

// dial connects to a socket. When as many clients wait as the socket takes, it
// waits too.
func (t *TPM) dial(socket string) (net.Conn, error) {
	deadline := time.Now().Add(startTimeout)
	for {
		conn, err := net.Dial("unix", t.socket(socket))
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(deadline) {
			return conn, err
		}
		time.Sleep(pollInterval)
	}
}

func (t *TPM) socket(name string) string { return filepath.Join(t.sockets, name) }

// lastLog returns the last line of swtpm's log, for an error message.
func (t *TPM) lastLog() string {
	data, err := os.ReadFile(filepath.Join(t.dir, logFile))
	if err != nil || len(data) == 0 {
		return "it left no log"
	}
	return lastLine(data)
}
