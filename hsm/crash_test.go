package hsm_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/hsm"
	"github.com/reseal-bft/reseal/hsm/softhsm"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/keystoretest"
	"github.com/stretchr/testify/require"
)

// dying is a library in a world: what changes the token is a step.
type dying struct {
	hsm.Library
	w *keystoretest.World
}

func (d dying) GenerateKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, t []*pkcs11.Attribute) (h pkcs11.ObjectHandle, err error) {
	err = d.w.Step(func() (err error) {
		h, err = d.Library.GenerateKey(s, m, t)
		return err
	})
	return h, err
}

func (d dying) DestroyObject(s pkcs11.SessionHandle, h pkcs11.ObjectHandle) error {
	return d.w.Step(func() error { return d.Library.DestroyObject(s, h) })
}

func (d dying) FindObjectsInit(s pkcs11.SessionHandle, t []*pkcs11.Attribute) error {
	return d.w.Read(func() error { return d.Library.FindObjectsInit(s, t) })
}

// crashing is a keystore of its own in a shared token, epoch 1 in force and epoch 2 sealed.
type crashing struct {
	t   *testing.T
	tok *softhsm.Token
	uri string
	w   *keystoretest.World
	old *keystoretest.World // a disk stolen in epoch 1
}

var crashes int

func newCrashing(t *testing.T, tok *softhsm.Token) *crashing {
	crashes++
	c := &crashing{t: t, tok: tok, w: keystoretest.NewWorld(), uri: fmt.Sprintf("pkcs11:token=%s;object=crash%d?%s", tok.Label, crashes, tok.Query())}
	s, err := hsm.InitOn(c.w.FS(), c.uri, options("k"))
	require.NoError(t, err)
	require.NoError(t, s.Seal(1, []byte("one")))
	require.NoError(t, s.Advance(1))
	c.old = c.w.Copy()
	require.NoError(t, s.Seal(2, []byte("draft")))
	require.NoError(t, s.Close())
	return c
}

// open opens the keystore with a disk.
func (c *crashing) open(w *keystoretest.World) *hsm.Store {
	s, err := hsm.OpenOn(w.FS(), c.uri, options("k"))
	require.NoError(c.t, err)
	return s
}

// run runs an operation that crashes before the n-th step, restarts, and reports whether it got
// that far.
func (c *crashing) run(n int, operation func(s *hsm.Store) error) (crashed bool) {
	s := c.open(c.w)
	restore := hsm.Intercept(c.tok.Module, func(l hsm.Library) hsm.Library { return dying{l, c.w} })
	c.w.CrashAt(n)
	err := operation(s)
	crashed = c.w.Crashed()
	if crashed {
		require.ErrorIs(c.t, err, keystoretest.ErrCrash)
	} else {
		require.NoError(c.t, err)
	}
	restore()
	require.NoError(c.t, s.Close())
	c.w = c.w.Restart()
	return crashed
}

// remove ends with a keystore; the token is faster without its objects.
func (c *crashing) remove(s *hsm.Store) {
	require.NoError(c.t, s.Close())
	require.NoError(c.t, hsm.Remove(c.t.Context(), c.uri, options("k")))
}

// keys counts the sealings' keys of the keystore in the token.
func (c *crashing) keys() int {
	return len(newIntruder(c.t, c.tok).find(pkcs11.NewAttribute(pkcs11.CKA_LABEL, fmt.Sprintf("crash%d-epoch", crashes))))
}

func opened(t *testing.T, s *hsm.Store, epoch uint64) string {
	secret, err := s.Unseal(epoch)
	require.NoError(t, err)
	return string(secret)
}

// TestCrashInSeal stops a sealing that replaces another at every step. The old secret or the new
// one opens; the key of the one that was replaced is gone once the keystore is open, and that of
// one that was abandoned once it is sealed again.
func TestCrashInSeal(t *testing.T) {
	tok := newToken(t, "crash-seal")
	keeper, err := hsm.Init(t.Context(), tok.URI(), options(filepath.Join(t.TempDir(), "keeper"))) // keeps the library loaded
	require.NoError(t, err)
	defer func() { require.NoError(t, keeper.Close()) }()
	saw := make(map[string]bool)
	n := 1
	for ; ; n++ {
		c := newCrashing(t, tok)
		crashed := c.run(n, func(s *hsm.Store) error { return s.Seal(2, []byte("new")) })
		s := c.open(c.w)
		require.Equal(t, "one", opened(t, s, 1), "step %d", n)
		second := opened(t, s, 2)
		require.Contains(t, []string{"draft", "new"}, second, "step %d", n)
		saw[second] = true
		if second == "new" {
			require.Equal(t, 2, c.keys(), "step %d", n)
		}
		require.LessOrEqual(t, c.keys(), 3, "step %d", n)
		require.NoError(t, s.Seal(2, []byte("newer")))
		require.Equal(t, 2, c.keys(), "step %d", n)
		require.NoError(t, s.Advance(2))
		require.Equal(t, "newer", opened(t, s, 2))
		require.Equal(t, 1, c.keys(), "step %d", n)
		c.remove(s)
		if !crashed {
			break
		}
	}
	require.Len(t, saw, 2)
	t.Log(n-1, "steps")
}

// TestCrashInAdvance stops the beginning of an epoch at every step, with a successor sealed,
// without one, and after a sealing that was abandoned. The old epoch is in force or the new one;
// from the new one on nothing opens the old secret, and once Advance has returned only the new key
// is in the token.
func TestCrashInAdvance(t *testing.T) {
	tok := newToken(t, "crash-advance")
	keeper, err := hsm.Init(t.Context(), tok.URI(), options(filepath.Join(t.TempDir(), "keeper")))
	require.NoError(t, err)
	defer func() { require.NoError(t, keeper.Close()) }()
	for name, tt := range map[string]struct {
		before func(c *crashing)
		to     uint64
		keys   int
	}{
		"to what is sealed": {func(*crashing) {}, 2, 1},
		"to nothing":        {func(*crashing) {}, 3, 0},
		"after an abandoned sealing": {func(c *crashing) {
			require.True(c.t, c.run(4, func(s *hsm.Store) error { return s.Seal(2, []byte("abandoned")) }))
			require.Equal(c.t, 3, c.keys())
		}, 2, 1},
	} {
		saw := make(map[uint64]bool)
		for n := 1; ; n++ {
			c := newCrashing(t, tok)
			tt.before(c)
			crashed := c.run(n, func(s *hsm.Store) error { return s.Advance(tt.to) })
			s := c.open(c.w)
			st, err := s.Status()
			require.NoError(t, err)
			saw[st.Epoch] = true
			if st.Epoch == 1 {
				require.Equal(t, "one", opened(t, s, 1), "%s, step %d", name, n)
				require.Equal(t, "draft", opened(t, s, 2), "%s, step %d", name, n)
			} else {
				require.Equal(t, tt.to, st.Epoch)
				c.requireOver(s, 1)
			}
			require.NoError(t, s.Advance(tt.to))
			c.requireOver(s, 1)
			require.Equal(t, tt.keys, c.keys(), "%s, step %d", name, n)
			if tt.to == 2 {
				require.Equal(t, "draft", opened(t, s, 2), "%s, step %d", name, n)
			} else {
				c.requireOver(s, 2)
			}
			c.remove(s)
			if !crashed {
				break
			}
		}
		require.Len(t, saw, 2, name)
	}
}

// requireOver requires that an epoch's secret opens neither here nor from the stolen disk, where
// the token itself refuses.
func (c *crashing) requireOver(s *hsm.Store, epoch uint64) {
	_, err := s.Unseal(epoch)
	require.ErrorIs(c.t, err, keystore.ErrErased)
	if epoch != 1 {
		return
	}
	stolen := c.open(c.old.Copy())
	_, err = stolen.Unseal(epoch)
	var refused *keystore.RefusedError
	require.ErrorAs(c.t, err, &refused)
	require.NoError(c.t, stolen.Close())
}

// TestFullDisk: when the disk takes nothing more, Seal and Advance fail and say so, and the present
// share still opens.
func TestFullDisk(t *testing.T) {
	c := newCrashing(t, newToken(t, "full"))
	s, err := hsm.OpenOn(keystoretest.Full(c.w.FS()), c.uri, options("k"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.ErrorIs(t, s.Seal(3, []byte("next")), syscall.ENOSPC)
	require.ErrorIs(t, s.Advance(2), syscall.ENOSPC)
	got, err := s.Unseal(1)
	require.NoError(t, err)
	require.Equal(t, "one", string(got))
}

// rawSigner signs with the module alone, as a measure of what the keystore adds.
type rawSigner struct {
	ctx     *pkcs11.Ctx
	session pkcs11.SessionHandle
	key     pkcs11.ObjectHandle
}

func (r rawSigner) sign(digest []byte) error {
	err := r.ctx.SignInit(r.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}, r.key)
	if err != nil {
		return err
	}
	_, err = r.ctx.Sign(r.session, digest)
	return err
}

// newRawSigners open sessions beside the keystore's, which keeps them logged in.
func newRawSigners(b *testing.B, module, label string, n int) []rawSigner {
	b.Helper()
	ctx := pkcs11.New(module)
	require.NotNil(b, ctx)
	slots, err := ctx.GetSlotList(true)
	require.NoError(b, err)
	for _, slot := range slots {
		info, err := ctx.GetTokenInfo(slot)
		require.NoError(b, err)
		if strings.TrimRight(info.Label, " \x00") != label {
			continue
		}
		out := make([]rawSigner, n)
		for i := range out {
			session, err := ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
			require.NoError(b, err)
			require.NoError(b, ctx.FindObjectsInit(session, []*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)}))
			found, _, err := ctx.FindObjects(session, 1)
			require.NoError(b, errors.Join(err, ctx.FindObjectsFinal(session)))
			out[i] = rawSigner{ctx, session, found[0]}
		}
		return out
	}
	require.Fail(b, "no token")
	return nil
}

// BenchmarkSign compares the identity's signatures with the module's own, by one
// caller and by eight.
func BenchmarkSign(b *testing.B) {
	tok := newToken(b, "benchmark")
	s, err := hsm.Init(b.Context(), tok.URI(), options(filepath.Join(b.TempDir(), "k")))
	require.NoError(b, err)
	defer func() { require.NoError(b, s.Close()) }()
	digest := sha256.Sum256(nil)
	signer := s.Identity()
	_, ok := signer.Public().(*ecdsa.PublicKey)
	require.True(b, ok)
	raw := newRawSigners(b, tok.Module, tok.Label, 8)
	for _, bench := range []struct {
		name    string
		callers int
		sign    func(caller int) error
	}{
		{"keystore/1", 1, func(int) error { _, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256); return err }},
		{"module/1", 1, func(i int) error { return raw[i].sign(digest[:]) }},
		{"keystore/8", 8, func(int) error { _, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256); return err }},
		{"module/8", 8, func(i int) error { return raw[i].sign(digest[:]) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var wg sync.WaitGroup
			for i := range bench.callers {
				wg.Go(func() {
					for range b.N / bench.callers {
						if err := bench.sign(i); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestLostDirectory: the identity outlives the directory, and what was sealed
// does not.
func TestLostDirectory(t *testing.T) {
	lost, tok, old := newStore(t, "lost-directory")
	o := options(filepath.Join(t.TempDir(), "new"))
	_, err := hsm.Init(t.Context(), tok.URI(), o)
	require.ErrorIs(t, err, keystore.ErrExists)
	o.Adopt = true
	s, err := hsm.Init(t.Context(), tok.URI(), o)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	require.Equal(t, lost.Identity().Public(), s.Identity().Public())
	found, err := hsm.Open(t.Context(), tok.URI(), options(old))
	require.NoError(t, err)
	defer func() { require.NoError(t, found.Close()) }()
	_, err = found.Unseal(1)
	require.ErrorIs(t, err, keystore.ErrErased)
}
