package hsm_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/hsm"
	"github.com/reseal-bft/reseal/hsm/softhsm"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/stretchr/testify/require"
)

// newStore makes a keystore in a new token, with a share in epoch 1.
func newStore(t *testing.T, label string) (*hsm.Store, *softhsm.Token, string) {
	t.Helper()
	tok := newToken(t, label)
	dir := filepath.Join(t.TempDir(), "keystore")
	s, err := hsm.Init(t.Context(), tok.URI(), options(dir))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.Seal(1, []byte("share")))
	require.NoError(t, s.Advance(1))
	return s, tok, dir
}

func requireOpens(t *testing.T, s *hsm.Store) {
	t.Helper()
	got, err := s.Unseal(1)
	require.NoError(t, err)
	require.Equal(t, "share", string(got))
}

// TestToolShowsProtectedKeys: pkcs11-tool shows every private and secret key as
// sensitive and never extractable, and cannot read one.
func TestToolShowsProtectedKeys(t *testing.T) {
	_, tok, _ := newStore(t, "tool")
	pin, err := os.ReadFile(tok.PINFile)
	require.NoError(t, err)
	t.Setenv("RESEAL_TOOL_PIN", strings.TrimSpace(string(pin)))
	tool := func(args ...string) (string, error) {
		args = append([]string{"--module", tok.Module, "--token-label", tok.Label, "--login", "--pin", "env:RESEAL_TOOL_PIN"}, args...)
		out, err := exec.Command("pkcs11-tool", args...).CombinedOutput()
		return string(out), err
	}
	out, err := tool("--list-objects")
	require.NoError(t, err, "%s (run `apt-get install opensc`)", out)
	keys := 0
	for _, object := range strings.Split(out, "\n\n") {
		for part := range strings.SplitSeq(object, " Object; ") {
			if strings.Contains(part, "Access:") && strings.Contains(part, "never extractable") {
				require.Contains(t, part, "always sensitive")
				keys++
			}
		}
	}
	require.GreaterOrEqual(t, strings.Count(out, "never extractable"), 2, out)
	require.Equal(t, strings.Count(out, "never extractable"), strings.Count(out, "always sensitive"), out)
	require.NotZero(t, keys)
	out, err = tool("--read-object", "--type", "secrkey", "--label", "reseal-epoch")
	require.Error(t, err, out)
}

// TestWrongPIN: a wrong PIN is tried once, however often the keystore is used.
func TestWrongPIN(t *testing.T) {
	_, tok, dir := newStore(t, "wrong-pin")
	wrong := filepath.Join(t.TempDir(), "pin")
	require.NoError(t, os.WriteFile(wrong, []byte("000000"), 0o600))
	uri := strings.Replace(tok.URI(), url.PathEscape(tok.PINFile), wrong, 1)
	uri = strings.Replace(uri, tok.PINFile, wrong, 1)
	// Another process, as a login is shared by a whole process.
	t.Setenv(helperDir, dir)
	t.Setenv(helperURI, tok.URI())
	out, err := exec.Command(os.Args[0], "-test.run", "^TestHelperOpen$", "-test.v").CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Setenv(helperURI, uri)
	out, err = exec.Command(os.Args[0], "-test.run", "^TestHelperOpen$", "-test.v").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), keystore.ErrWrongPIN.Error())
	require.NotContains(t, string(out), "000000")
}

const (
	helperURI = "RESEAL_TEST_URI"
	helperDir = "RESEAL_TEST_DIR"
)

// TestHelperOpen opens the keystore that the environment names: other tests run
// it as another process.
func TestHelperOpen(t *testing.T) {
	uri := os.Getenv(helperURI)
	if uri == "" {
		return
	}
	s, err := hsm.Open(t.Context(), uri, options(os.Getenv(helperDir)))
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

// TestLostSessions: another user of the library in this process closes all
// sessions, which logs out too. Every operation goes on.
func TestLostSessions(t *testing.T) {
	s, tok, _ := newStore(t, "lost-sessions")
	ctx := pkcs11.New(tok.Module) // the library that the keystore initialised
	require.NotNil(t, ctx)
	defer ctx.Destroy()
	slots, err := ctx.GetSlotList(true)
	require.NoError(t, err)
	lose := func() {
		for _, slot := range slots {
			require.NoError(t, ctx.CloseAllSessions(slot))
		}
	}
	digest := sha256.Sum256(nil)
	for name, operation := range map[string]func() error{
		"sign":    func() error { _, err := s.Identity().Sign(rand.Reader, digest[:], crypto.SHA256); return err },
		"seal":    func() error { return s.Seal(1, []byte("share")) },
		"unseal":  func() error { _, err := s.Unseal(1); return err },
		"status":  func() error { _, err := s.Status(); return err },
		"advance": func() error { return s.Advance(1) },
	} {
		lose()
		require.NoError(t, operation(), name)
	}
	requireOpens(t, s)
}

// TestVanishingToken: the token's storage goes away in use, and comes back. No
// operation takes that for an erased share.
func TestVanishingToken(t *testing.T) {
	s, tok, dir := newStore(t, "vanishing")
	hidden := filepath.Join(t.TempDir(), "hidden")
	storage := tokenStorage(t, tok.Label)
	digest := sha256.Sum256(nil)
	for name, operation := range map[string]func() error{
		"sign":   func() error { _, err := s.Identity().Sign(rand.Reader, digest[:], crypto.SHA256); return err },
		"seal":   func() error { return s.Seal(2, []byte("next")) },
		"unseal": func() error { _, err := s.Unseal(1); return err },
		"status": func() error { _, err := s.Status(); return err },
	} {
		requireOpens(t, s)
		require.NoError(t, os.Rename(storage, hidden))
		err := operation()
		if err != nil {
			require.NotErrorIs(t, err, keystore.ErrErased, name)
			require.NotErrorIs(t, err, keystore.ErrCorrupt, name)
		}
		require.NoError(t, os.RemoveAll(storage)) // what the library may have made
		require.NoError(t, os.Rename(hidden, storage))
		requireOpens(t, s)
	}
	// An Advance that did not reach the token says so, and is done when repeated.
	backup := filepath.Join(t.TempDir(), "backup")
	require.NoError(t, os.CopyFS(backup, os.DirFS(dir)))
	require.NoError(t, s.Seal(2, []byte("next")))
	require.NoError(t, os.Rename(storage, hidden))
	require.Error(t, s.Advance(2))
	require.NoError(t, os.RemoveAll(storage))
	require.NoError(t, os.Rename(hidden, storage))
	requireOpens(t, s)
	require.NoError(t, s.Advance(2))
	old, err := hsm.Open(t.Context(), tok.URI(), options(backup))
	require.NoError(t, err)
	_, err = old.Unseal(1)
	require.ErrorIs(t, err, keystore.ErrErased)
	require.NoError(t, old.Close())

	require.NoError(t, os.Rename(storage, hidden))
	_, err = hsm.Open(t.Context(), tok.URI(), options(dir))
	require.Error(t, err)
	require.NoError(t, os.Rename(hidden, storage))
}

// tokenStorage returns the directory of a token.
func tokenStorage(t *testing.T, label string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(filepath.Dir(tokens.Token(label).PINFile), "tokens", "*", "token.object"))
	require.NoError(t, err)
	for _, name := range names {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		if strings.Contains(string(data), label+strings.Repeat(" ", 32-len(label))) {
			return filepath.Dir(name)
		}
	}
	require.Fail(t, "the token has no directory", label)
	return ""
}

// TestReinitialised: a token that was initialised anew is not the one that the
// directory belongs to, and nothing in the directory opens.
func TestReinitialised(t *testing.T) {
	s, tok, dir := newStore(t, "again")
	require.NoError(t, s.Close())
	require.NoError(t, os.RemoveAll(tokenStorage(t, tok.Label)))
	tok = newToken(t, tok.Label)
	_, err := hsm.Open(t.Context(), tok.URI(), options(dir))
	require.ErrorIs(t, err, keystore.ErrForeignDevice)
	fresh, err := hsm.Init(t.Context(), tok.URI(), options(filepath.Join(t.TempDir(), "new")))
	require.NoError(t, err)
	require.NoError(t, fresh.Close())
}

// TestURIs: an error names the part that is wrong.
func TestURIs(t *testing.T) {
	for uri, want := range map[string]string{
		"pkcs11:token=x":                                 "module-path",
		"pkcs11:?module-path=/x.so":                      "token=LABEL",
		"pkcs11:token=x;slot-id=1?module-path=/x.so":     "slot-id",
		"pkcs11:token=x?module-path=/x.so&pin-value=123": "pin-source",
		"pkcs11:token=x;token=y?module-path=/x.so":       "twice",
		"pkcs11:token=%zz?module-path=/x.so":             "token",
		"tpm:/dev/tpm0":                                  "pkcs11:",
	} {
		err := hsm.ParseURI(uri)
		require.ErrorContains(t, err, want, uri)
		require.NotContains(t, err.Error(), "123")
	}
	require.NoError(t, hsm.ParseURI("pkcs11:token=my%20token;serial=12?module-path=/x.so&pin-source=file:/p"))
	_, err := hsm.Open(t.Context(), "pkcs11:token=x?module-path=/no/such.so", options(t.TempDir()))
	require.ErrorContains(t, err, "PIN")
	t.Setenv("RESEAL_TEST_PIN", "1234")
	_, err = hsm.Open(t.Context(), "pkcs11:token=x?module-path=/no/such.so&pin-source=env:RESEAL_TEST_PIN", options(t.TempDir()))
	require.ErrorIs(t, err, keystore.ErrUnavailable)
	module, err := softhsm.Module()
	require.NoError(t, err)
	_, err = hsm.Open(t.Context(), "pkcs11:token=none?pin-source=env:RESEAL_TEST_PIN&module-path="+module+"&x-softhsm2-conf="+tokens.Token("").Conf, options(t.TempDir()))
	require.ErrorContains(t, err, `there is no token "none"`)
}
