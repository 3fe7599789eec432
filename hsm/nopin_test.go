package hsm_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/hsm"
	"github.com/reseal-bft/reseal/hsm/softhsm"
	"github.com/stretchr/testify/require"
)

// withoutPIN runs pkcs11-tool on a token as somebody who reaches it and has no PIN.
func withoutPIN(t *testing.T, tok *softhsm.Token, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("pkcs11-tool", append([]string{"--module", tok.Module, "--token-label", tok.Label}, args...)...)
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+tok.Conf)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestWithoutPIN: who reaches the token and has no PIN sees nothing of the keystore, and deletes
// nothing, so that a lost directory can be made again. What he puts there is destroyed, and it is
// not said that he had the PIN.
func TestWithoutPIN(t *testing.T) {
	s, tok, dir := newStore(t, "without-pin")
	out, err := withoutPIN(t, tok, "--list-objects")
	require.NoError(t, err, out)
	require.NotContains(t, out, "reseal-", "he sees nothing")
	out, err = withoutPIN(t, tok, "--delete-object", "--type", "pubkey", "--label", "reseal-identity")
	require.Error(t, err, out)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("his"), 0o600))
	for _, label := range []string{"reseal-epoch", "reseal-identity"} {
		out, err = withoutPIN(t, tok, "--write-object", file, "--type", "data", "--label", label)
		require.NoError(t, err, out)
	}
	requireOpens(t, s)

	again, err := hsm.Open(t.Context(), tok.URI(), options(dir))
	require.NoError(t, err)
	require.Empty(t, newIntruder(t, tok).find(attribute(pkcs11.CKA_CLASS, pkcs11.CKO_DATA)))
	st, err := again.Status()
	require.NoError(t, err)
	require.Contains(t, st.Cautions, "The token held an object with the name of a sealing's key that this keystore did not make: it is another kind of object. It was destroyed. That takes no PIN: anybody who reaches the token can put it there.")
	require.NotContains(t, st.Cautions, "change it")
	require.NoError(t, again.Close())
	adopts(t, s, tok)
}

// adopts makes a directory again that was lost.
func adopts(t *testing.T, s *hsm.Store, tok *softhsm.Token) {
	t.Helper()
	o := options(filepath.Join(t.TempDir(), "new"))
	o.Adopt = true
	adopted, err := hsm.Init(t.Context(), tok.URI(), o)
	require.NoError(t, err)
	require.Equal(t, s.Identity().Public(), adopted.Identity().Public())
	require.NoError(t, adopted.Close())
}

// TestPublicHalfIsPutBack: the public key of the identity was deleted, or is one that everybody
// sees, as keystores made before did. The next start puts it where it belongs.
func TestPublicHalfIsPutBack(t *testing.T) {
	for how, spoil := range map[string]func(i *intruder, h pkcs11.ObjectHandle){
		"deleted": func(i *intruder, h pkcs11.ObjectHandle) { require.NoError(i.t, i.ctx.DestroyObject(i.session, h)) },
		"seen by everybody": func(i *intruder, h pkcs11.ObjectHandle) {
			point, params := i.read(h, pkcs11.CKA_EC_POINT), i.read(h, pkcs11.CKA_EC_PARAMS)
			require.NoError(i.t, i.ctx.DestroyObject(i.session, h))
			_, err := i.ctx.CreateObject(i.session, []*pkcs11.Attribute{
				attribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC), attribute(pkcs11.CKA_TOKEN, true),
				attribute(pkcs11.CKA_PRIVATE, false), attribute(pkcs11.CKA_LABEL, "reseal-identity"), attribute(pkcs11.CKA_EC_PARAMS, params), attribute(pkcs11.CKA_EC_POINT, point)})
			require.NoError(i.t, err)
		},
	} {
		t.Run(how, func(t *testing.T) {
			s, tok, dir := newStore(t, numbered("public-half"))
			i := newIntruder(t, tok)
			public := []*pkcs11.Attribute{attribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), attribute(pkcs11.CKA_PRIVATE, true)}
			found := i.find(public...)
			require.Len(t, found, 1)
			spoil(i, found[0])
			require.Empty(t, i.find(public...))
			again, err := hsm.Open(t.Context(), tok.URI(), options(dir))
			require.NoError(t, err)
			require.NoError(t, again.Close())
			require.Len(t, i.find(public...), 1)
			adopts(t, s, tok)
		})
	}
}

// TestInitIsRepeatable loses the session, or the disk, after every call that Init makes to the
// library: it goes on, or fails and leaves nothing that the next Init would find.
func TestInitIsRepeatable(t *testing.T) {
	keeper := newToken(t, "keeper") // keeps the library loaded
	kept, err := hsm.Init(t.Context(), keeper.URI(), options(filepath.Join(t.TempDir(), "kept")))
	require.NoError(t, err)
	defer func() { require.NoError(t, kept.Close()) }()
	tok := newToken(t, "repeatable")
	for _, code := range []uint{pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_FUNCTION_FAILED} {
		outcomes := map[string]int{}
		for at := 1; ; at++ {
			uri := "pkcs11:token=" + tok.Label + ";object=" + numbered("n") + "?" + tok.Query()
			faulty := &failing{at: at, code: pkcs11.Error(code)}
			restore := hsm.Intercept(tok.Module, func(l hsm.Library) hsm.Library { faulty.Library = l; return faulty })
			s, err := hsm.Init(t.Context(), uri, options(filepath.Join(t.TempDir(), "first")))
			restore()
			if err == nil {
				outcomes["goes on"]++
			} else {
				outcomes["fails"]++
				require.Equal(t, uint(pkcs11.CKR_FUNCTION_FAILED), code, "a lost session is no reason to fail: call %d: %v", at, err)
				s, err = hsm.Init(t.Context(), uri, options(filepath.Join(t.TempDir(), "second")))
				require.NoError(t, err, "after call %d failed", at)
			}
			requireSigns(t, s)
			require.NoError(t, s.Close())
			if !faulty.failed {
				break
			}
		}
		t.Log(outcomes)
		require.Greater(t, outcomes["goes on"]+outcomes["fails"], 5)
	}
}

// failing is a library of which one call is carried out, and fails all the same.
type failing struct {
	hsm.Library
	at     int
	code   pkcs11.Error
	failed bool
}

func (l *failing) fails(err error) error {
	if l.at--; err != nil || l.at != 0 {
		return err
	}
	l.failed = true
	return l.code
}

func (l *failing) GenerateKeyPair(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pub, priv pkcs11.ObjectHandle, err error) {
	pub, priv, err = l.Library.GenerateKeyPair(s, m, public, private)
	return pub, priv, l.fails(err)
}

func (l *failing) GetAttributeValue(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, a []*pkcs11.Attribute) ([]*pkcs11.Attribute, error) {
	got, err := l.Library.GetAttributeValue(s, h, a)
	return got, l.fails(err)
}

func (l *failing) Sign(s pkcs11.SessionHandle, message []byte) ([]byte, error) {
	sig, err := l.Library.Sign(s, message)
	return sig, l.fails(err)
}

func (l *failing) DestroyObject(s pkcs11.SessionHandle, h pkcs11.ObjectHandle) error {
	return l.fails(l.Library.DestroyObject(s, h))
}
