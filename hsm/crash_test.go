package hsm_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/hsm"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"github.com/stretchr/testify/require"
)

// TestCrashDuringAdvance: when the process dies after it wrote down the new epoch
// and before it destroyed the old key, the new share opens, and the next Open
// destroys the old key.
func TestCrashDuringAdvance(t *testing.T) {
	s, tok, dir := newStore(t, "crash")
	require.NoError(t, s.Seal(2, []byte("next")))
	backup := filepath.Join(t.TempDir(), "backup")
	require.NoError(t, os.CopyFS(backup, os.DirFS(dir)))
	d, err := statedir.New(dir)
	require.NoError(t, err)
	require.NoError(t, d.WriteJSON("epoch.json", map[string]uint64{"epoch": 2}))

	again, err := hsm.Open(t.Context(), tok.URI(), options(dir))
	require.NoError(t, err)
	defer func() { require.NoError(t, again.Close()) }()
	got, err := again.Unseal(2)
	require.NoError(t, err)
	require.Equal(t, "next", string(got))
	old, err := hsm.Open(t.Context(), tok.URI(), options(backup))
	require.NoError(t, err)
	defer func() { require.NoError(t, old.Close()) }()
	_, err = old.Unseal(1)
	require.ErrorIs(t, err, keystore.ErrErased)
	var refused *keystore.RefusedError
	require.ErrorAs(t, err, &refused)
}

// TestFullDisk: Seal fails, and the present share still opens. A directory in
// the way of the file stands for a disk that takes nothing.
func TestFullDisk(t *testing.T) {
	s, _, dir := newStore(t, "full")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sealed-00000000000000000002.tmp"), 0o700))
	require.Error(t, s.Seal(2, []byte("next")))
	requireOpens(t, s)
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
