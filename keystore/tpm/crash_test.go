package tpm

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/keystoretest"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"github.com/reseal-bft/reseal/keystore/swtpm"
	"github.com/stretchr/testify/require"
)

// errCrash is what everything returns once the process has crashed.
var errCrash = errors.New("crashed")

// world is a process that crashes at a chosen step. Steps are the writes to the
// disk and the commands to the TPM, each of which may be cut before it happens,
// or after it happened but before its answer arrived.
type world struct {
	disk     *vfs.MemFS
	steps    int // taken so far
	crashAt  int // 0: never
	operator *ecdsa.PublicKey
	after    bool // the step at which it crashes still happens
}

// step counts a step, calls f unless the process crashed, and says whether the
// answer arrives.
func (w *world) step(f func() error) error {
	w.steps++
	switch {
	case w.crashAt == 0 || w.steps < w.crashAt:
		return f()
	case w.steps == w.crashAt && w.after:
		_ = f()
	}
	return errCrash
}

// crash returns what the disk holds afterwards: what was synced.
func (w *world) crash() *vfs.MemFS { return w.disk.CrashClone(vfs.CrashCloneCfg{}) }

// worldFS is a disk in a world.
type worldFS struct{ w *world }

func (f worldFS) MkdirAll(path string) error { return f.w.disk.MkdirAll(path, 0o700) }

func (f worldFS) Open(name string) (io.ReadCloser, error) { return f.w.disk.Open(name) }

func (f worldFS) List(path string) ([]string, error) { return f.w.disk.List(path) }

func (f worldFS) Rename(from, to string) error {
	return f.w.step(func() error { return f.w.disk.Rename(from, to) })
}

func (f worldFS) Remove(name string) error {
	return f.w.step(func() error { return f.w.disk.Remove(name) })
}

func (f worldFS) Create(name string) (statedir.File, error) {
	var file vfs.File
	err := f.w.step(func() (err error) {
		file, err = f.w.disk.Create(name, vfs.WriteCategoryUnspecified)
		return err
	})
	return worldFile{f.w, file}, err
}

func (f worldFS) SyncDir(path string) error {
	return f.w.step(func() error {
		d, err := f.w.disk.OpenDir(path)
		if err != nil {
			return err
		}
		return errors.Join(d.Sync(), d.Close())
	})
}

type worldFile struct {
	w    *world
	file vfs.File
}

func (f worldFile) Write(p []byte) (n int, err error) {
	err = f.w.step(func() error {
		n, err = f.file.Write(p)
		return err
	})
	return n, err
}

func (f worldFile) Sync() error  { return f.w.step(f.file.Sync) }
func (f worldFile) Close() error { return f.file.Close() }

// worldConn is a connection to the TPM in a world.
type worldConn struct {
	io.ReadWriteCloser
	w *world
}

// Write sends one command. When the process crashes at it, it either was not
// sent, or it is executed and its answer is lost.
func (c worldConn) Write(p []byte) (n int, err error) {
	err = c.w.step(func() error {
		n, err = c.ReadWriteCloser.Write(p)
		if err == nil && c.w.steps == c.w.crashAt {
			_, err = io.ReadAtLeast(c.ReadWriteCloser, make([]byte, maxResponse), headerSize)
		}
		return err
	})
	return n, err
}

// device returns the TPM as this world's process sees it.
func (w *world) device(t *testing.T, uri string) *device {
	t.Helper()
	d, _, err := deviceAt(uri, keystore.NewOptions())
	require.NoError(t, err)
	dial := d.dial
	d.dial = func(ctx context.Context) (io.ReadWriteCloser, error) {
		rw, err := dial(ctx)
		return worldConn{rw, w}, err
	}
	return d
}

// process opens the keystore in this world.
func (w *world) process(t *testing.T, uri string) *Store {
	t.Helper()
	dir, err := statedir.NewFS(worldFS{w}, "keystore")
	require.NoError(t, err)
	s, err := open(t.Context(), w.device(t, uri), dir, 0, keystore.NewOptions(keystore.WithOperatorKey(w.operator)))
	require.NoError(t, err)
	return s
}

// TestCrashAtEveryStep stops Seal and Advance before and after every write to
// the disk and every command to the TPM. Afterwards either the old or the new
// share opens, and never neither; and going on from there ends with the new
// share, and without the old.
func TestCrashAtEveryStep(t *testing.T) {
	dev := startTPM(t)
	first := &world{disk: vfs.NewCrashableMem()}
	prepareKeystore(t, first, dev.URI())

	disk := first.crash()
	var old uint64 = 1
	counts := make(map[string]int)
	for _, after := range []bool{false, true} {
		for crashAt := 1; ; crashAt++ {
			w := &world{disk: disk, operator: first.operator}
			s := w.process(t, dev.URI())
			w.steps, w.crashAt, w.after = 0, crashAt, after
			err := errors.Join(s.Seal(old+1, share(old+1)), s.Advance(old+1))
			finished := err == nil && w.steps < crashAt
			disk = w.crash()
			counts[requireOneOpens(t, &world{disk: disk, operator: first.operator}, dev.URI(), old, fmt.Sprintf("crash at step %d, after it: %v", crashAt, after))]++
			disk = goOn(t, &world{disk: disk, operator: first.operator}, dev.URI(), old)
			old++
			if finished {
				break
			}
		}
	}
	t.Logf("what opened after a crash: %v", counts)
	require.NotZero(t, counts["old"])
	require.NotZero(t, counts["new"])
}

// startTPM makes and starts a software TPM.
func startTPM(t *testing.T) *swtpm.TPM {
	t.Helper()
	ca, err := swtpm.NewCA(filepath.Join(t.TempDir(), "ca"))
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, ca.Manufacture(t.Context(), dir))
	dev, err := swtpm.Start(t.Context(), dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dev.Close()) })
	return dev
}

func share(epoch uint64) []byte { return fmt.Appendf(nil, "share %d", epoch) }

// prepareKeystore makes a keystore in epoch 1 whose boot state is approved.
func prepareKeystore(t *testing.T, w *world, uri string) {
	t.Helper()
	operator, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	w.operator = &operator.PublicKey
	dir, err := statedir.NewFS(worldFS{w}, "keystore")
	require.NoError(t, err)
	s, err := initialize(t.Context(), w.device(t, uri), dir, 0, keystore.NewOptions(keystore.WithOperatorKey(&operator.PublicKey)))
	require.NoError(t, err)
	values, err := s.ReadPCRs()
	require.NoError(t, err)
	st, err := s.Status()
	require.NoError(t, err)
	a, err := keystore.Approve(rand.Reader, operator, keystore.BootState{Device: s.DeviceID(), PCRs: values, Version: st.ApprovalVersion})
	require.NoError(t, err)
	require.NoError(t, s.AddApproval(a))
	require.NoError(t, s.Seal(1, share(1)))
	require.NoError(t, s.Advance(1))
	require.NoError(t, syncRoot(w.disk))
}

// syncRoot makes the directory itself survive a crash.
func syncRoot(disk *vfs.MemFS) error {
	d, err := disk.OpenDir("")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// requireOneOpens checks that the share of the epoch that is current after a
// crash opens: the old one until the commit, beside which the new one may, and
// from then on the new one alone. It returns which epoch it is.
func requireOneOpens(t *testing.T, w *world, uri string, old uint64, crash string) string {
	t.Helper()
	s := w.process(t, uri)
	oldShare, oldErr := s.Unseal(old)
	newShare, newErr := s.Unseal(old + 1)
	if newErr == nil {
		require.Equal(t, share(old+1), newShare, crash)
	}
	if oldErr == nil {
		require.Equal(t, share(old), oldShare, crash)
		return "old"
	}
	require.ErrorIs(t, oldErr, keystore.ErrErased, crash)
	require.NoError(t, newErr, "%s: neither opens", crash)
	return "new"
}

// goOn repeats the handoff after the crash, as the replica does, and checks that
// it ends as if there had been none.
func goOn(t *testing.T, w *world, uri string, old uint64) *vfs.MemFS {
	t.Helper()
	s := w.process(t, uri)
	if err := s.Seal(old+1, share(old+1)); err != nil {
		require.ErrorIs(t, err, keystore.ErrErased)
	}
	require.NoError(t, s.Advance(old+1))
	got, err := s.Unseal(old + 1)
	require.NoError(t, err)
	require.Equal(t, share(old+1), got)
	_, err = s.Unseal(old)
	require.ErrorIs(t, err, keystore.ErrErased)
	return w.crash()
}

// TestFullDisk: when the disk takes nothing more, Seal and Advance fail and say
// so, and the present share still opens.
func TestFullDisk(t *testing.T) {
	uri := startTPM(t).URI()
	w := &world{disk: vfs.NewCrashableMem()}
	prepareKeystore(t, w, uri)
	dir, err := statedir.NewFS(keystoretest.Full(worldFS{w}), "keystore")
	require.NoError(t, err)
	s, err := open(t.Context(), w.device(t, uri), dir, 0, keystore.NewOptions(keystore.WithOperatorKey(w.operator)))
	require.NoError(t, err)
	require.ErrorIs(t, s.Seal(2, share(2)), syscall.ENOSPC)
	require.ErrorIs(t, s.Advance(2), syscall.ENOSPC)
	got, err := s.Unseal(1)
	require.NoError(t, err)
	require.Equal(t, share(1), got)
}

// TestResetInTheMiddle takes the TPM's power at every command of an operation.
// The operation fails or succeeds, and the next one works.
func TestResetInTheMiddle(t *testing.T) {
	dev := startTPM(t)
	w := &world{disk: vfs.NewCrashableMem()}
	prepareKeystore(t, w, dev.URI())
	failed := 0
	for at := 1; ; at++ {
		s := w.process(t, dev.URI())
		commands := 0
		s.dev.dial = interrupt(s.dev.dial, &commands, func() {
			if commands == at {
				out, err := exec.Command("swtpm_ioctl", "--unix", dev.Socket()+".ctrl", "-i").CombinedOutput()
				require.NoError(t, err, "%s (run `apt-get install swtpm-tools`)", out)
			}
		})
		got, err := s.Unseal(1)
		if err != nil {
			failed++
			require.ErrorIs(t, err, tpm2.TPMRCInitialize, "command %d", at)
		} else {
			require.Equal(t, share(1), got)
		}
		require.NoError(t, dev.PowerCut())
		got, err = w.process(t, dev.URI()).Unseal(1)
		require.NoError(t, err, "after a reset at command %d", at)
		require.Equal(t, share(1), got)
		if commands < at {
			break
		}
	}
	require.NotZero(t, failed)
}

// interrupt calls f before each command of the connections that dial makes.
func interrupt(dial func(context.Context) (io.ReadWriteCloser, error), commands *int, f func()) func(context.Context) (io.ReadWriteCloser, error) {
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		rw, err := dial(ctx)
		return interruptedConn{rw, commands, f}, err
	}
}

type interruptedConn struct {
	io.ReadWriteCloser
	commands *int
	f        func()
}

func (c interruptedConn) Write(p []byte) (int, error) {
	*c.commands++
	c.f()
	return c.ReadWriteCloser.Write(p)
}
