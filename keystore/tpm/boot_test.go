package tpm

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"github.com/stretchr/testify/require"
)

// TestHolderEndsWithTheBoot: a copy of the replica's memory, with what held the boot,
// signs nothing after the reset, however it is bent.
func TestHolderEndsWithTheBoot(t *testing.T) {
	dev := startTPM(t)
	w := &world{disk: vfs.NewCrashableMem()}
	prepareKeystore(t, w, dev.URI())
	s := w.process(t, dev.URI())
	require.NoError(t, s.Claim())
	copied := *s.holder
	digest := sha256.Sum256(nil)
	sign := func(h holder) error {
		intruder := w.process(t, dev.URI())
		intruder.holder = &h
		_, err := intruder.Identity().Sign(nil, digest[:], crypto.SHA256)
		return err
	}
	require.NoError(t, sign(copied), "in its boot it is the key to everything")
	require.NoError(t, dev.Reboot())
	require.ErrorIs(t, sign(copied), keystore.ErrUnclaimed)
	bent := copied
	bent.reset++
	require.Error(t, sign(bent))
	bent.policy = keystore.UsePolicy(bent.reset, bent.public)
	require.Error(t, sign(bent), "the gate key did not sign that")
	bent.ticket = nil
	require.Error(t, sign(bent))

	// Nor does what another process holds in this boot do for it.
	again := w.process(t, dev.URI())
	require.NoError(t, again.Claim())
	bent = *again.holder
	bent.key = copied.key
	require.Error(t, sign(bent))
	require.NoError(t, sign(*again.holder))
}

// TestSessionBeforeTheIncrement: a session that proved its policy before Advance opens
// the secret after it, until the TPM is reset: erasure is counted from the reset on.
func TestSessionBeforeTheIncrement(t *testing.T) {
	dev := startTPM(t)
	w := &world{disk: vfs.NewCrashableMem()}
	prepareKeystore(t, w, dev.URI())
	s, other := w.process(t, dev.URI()), w.process(t, dev.URI())
	approvals, err := s.approvals()
	require.NoError(t, err)
	sealed, err := s.dir.Sealed(statedir.KindTPM, 1)
	require.NoError(t, err)
	require.NoError(t, s.operate(func(c *conn) error {
		session, end, err := s.approvedSession(c, approvals, out)
		require.NoError(t, err)
		defer end()
		require.NoError(t, s.epochCounter.policy(c, session, s.root.once(plain, s.cfg.CounterAuth), tpm2.TPMEOUnsignedLE, sealed.Binding))
		require.NoError(t, s.epochCounter.increment(c)) // what Advance of another process would do, which has to wait for this one
		key, unload, err := s.root.load(c, wrapped(t, sealed))
		require.NoError(t, err)
		_, err = tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: key.handle, Name: key.name, Auth: session}}.Execute(c)
		return errors.Join(err, unload())
	}))
	require.NoError(t, dev.Reboot())
	_, err = other.Unseal(1)
	require.ErrorIs(t, err, keystore.ErrErased)
}

// wrapped is the object of an envelope.
func wrapped(t *testing.T, sealed *statedir.Sealed) blob {
	t.Helper()
	w := sealed.Wrapped
	n := int(w[0])<<8 | int(w[1])
	return blob{Private: w[2 : 2+n], Public: w[2+n+2:]}
}

// TestCrashDuringClaim stops Claim before and after every command. Afterwards, in the
// same boot, the next process either claims it, or finds it claimed; after a reset it is
// as before.
func TestCrashDuringClaim(t *testing.T) {
	dev := startTPM(t)
	first := &world{disk: vfs.NewCrashableMem()}
	prepareKeystore(t, first, dev.URI())
	counts := make(map[string]int)
	for _, after := range []bool{false, true} {
		for crashAt := 1; ; crashAt++ {
			w := &world{disk: first.disk, operator: first.operator}
			s := w.process(t, dev.URI())
			w.steps, w.crashAt, w.after = 0, crashAt, after
			err := s.Claim()
			finished := err == nil && w.steps < crashAt
			next := first.process(t, dev.URI())
			switch err := next.Claim(); {
			case err == nil:
				counts["claimed by the next process"]++
				_, err = next.Quote(make([]byte, 32))
				require.NoError(t, err)
			default:
				require.ErrorIs(t, err, keystore.ErrClaimed, "crash at step %d", crashAt)
				counts["lost until the reset"]++
			}
			require.NoError(t, dev.Reboot())
			got, err := first.process(t, dev.URI()).Unseal(1)
			require.NoError(t, err)
			require.Equal(t, share(1), got)
			if finished {
				break
			}
		}
	}
	t.Logf("after a crash the boot was: %v", counts)
	require.NotZero(t, counts["claimed by the next process"])
	require.NotZero(t, counts["lost until the reset"])
}

// TestCommands counts what a replica asks of its TPM: the table is in docs/keystore.md.
func TestCommands(t *testing.T) {
	dev := startTPM(t)
	w := &world{disk: vfs.NewCrashableMem()}
	prepareKeystore(t, w, dev.URI())
	require.NoError(t, dev.Reboot())
	var s *Store
	fresh := func(epoch uint64) error { // nothing is sealed for it yet
		_, err := s.Unseal(epoch)
		if errors.Is(err, keystore.ErrNotFound) {
			return nil
		}
		return fmt.Errorf("unseal what is not there: %w", err)
	}
	digest := sha256.Sum256(nil)
	var before int64
	st, err := w.process(t, dev.URI()).Status()
	require.NoError(t, err)
	version := st.ApprovalVersion
	for _, step := range []struct {
		name string
		most int64
		run  func() error
	}{
		{"open", 8, func() error { s = w.process(t, dev.URI()); return nil }},
		{"unseal", 16, func() error { _, err := s.Unseal(1); return err }},
		{"unseal nothing", 2, func() error { return fresh(2) }},
		{"claim", 21, func() error { return s.Claim() }},
		{"sign", 10, func() error { _, err := s.Identity().Sign(nil, digest[:], crypto.SHA256); return err }},
		{"quote", 28, func() error { _, err := s.Quote(make([]byte, 32)); return err }},
		{"seal", 4, func() error { return s.Seal(2, share(2)) }},
		{"advance", 6, func() error { return s.Advance(2) }},
		{"revoke", 6, func() error { _, err := s.RevokeApprovals(version); return err }},
	} {
		if s != nil {
			before = s.DeviceCommands()
		}
		require.NoError(t, step.run(), step.name)
		sent := s.DeviceCommands() - before
		t.Logf("%-14s %2d commands: %s at 20 to 200 ms each", step.name, sent, fmt.Sprintf("%.1f to %.1f s", float64(sent)*0.02, float64(sent)*0.2))
		require.LessOrEqual(t, sent, step.most, step.name)
	}
}
