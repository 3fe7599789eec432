package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/hsm"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/stretchr/testify/require"
)

func requireSigns(t *testing.T, s *hsm.Store) {
	t.Helper()
	digest := sha256.Sum256([]byte("message"))
	sig, err := s.Identity().Sign(rand.Reader, digest[:], crypto.SHA256)
	require.NoError(t, err)
	require.True(t, ecdsa.VerifyASN1(s.Identity().Public().(*ecdsa.PublicKey), digest[:], sig))
}

// curve is CKA_EC_PARAMS of P-256.
var curve = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}

// pair makes a key pair of the identity's label in the token.
func (i *intruder) pair(s *hsm.Store, id []byte, changed ...*pkcs11.Attribute) (public, private pkcs11.ObjectHandle) {
	i.t.Helper()
	public, private, err := i.ctx.GenerateKeyPair(i.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)},
		[]*pkcs11.Attribute{attribute(pkcs11.CKA_TOKEN, true), attribute(pkcs11.CKA_LABEL, "reseal-identity"), attribute(pkcs11.CKA_ID, id),
			attribute(pkcs11.CKA_EC_PARAMS, curve), attribute(pkcs11.CKA_VERIFY, true)},
		with(append(hsm.IdentityTemplate(s), attribute(pkcs11.CKA_ID, id)), changed...))
	require.NoError(i.t, err)
	return public, private
}

// importIdentity writes a private key of known value under the identity's label.
func (i *intruder) importIdentity(s *hsm.Store, id []byte) pkcs11.ObjectHandle {
	i.t.Helper()
	scalar := bytes.Repeat([]byte{1}, 32)
	h, err := i.create(with(hsm.IdentityTemplate(s),
		attribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC),
		attribute(pkcs11.CKA_EC_PARAMS, curve), attribute(pkcs11.CKA_ID, id), attribute(pkcs11.CKA_VALUE, scalar)))
	require.NoError(i.t, err)
	return h
}

// TestPlantedIdentity puts private keys, public keys and data beside the identity, while the
// keystore is open and before it is opened. The identity signs, and the others are gone.
func TestPlantedIdentity(t *testing.T) {
	s, tok, dir := newStore(t, "identity")
	before := s.Identity().Public()
	i := newIntruder(t, tok)
	own := i.find(attribute(pkcs11.CKA_LABEL, "reseal-identity"), attribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY))
	require.Len(t, own, 1)
	id := i.read(own[0], pkcs11.CKA_ID)
	plant := func() {
		i.importIdentity(s, id)
		i.importIdentity(s, []byte{1})
		i.pair(s, []byte{2}, attribute(pkcs11.CKA_EXTRACTABLE, true))
		_, err := i.create([]*pkcs11.Attribute{attribute(pkcs11.CKA_CLASS, pkcs11.CKO_DATA), attribute(pkcs11.CKA_TOKEN, true),
			attribute(pkcs11.CKA_LABEL, "reseal-identity"), attribute(pkcs11.CKA_VALUE, []byte("data"))})
		require.NoError(t, err)
	}
	i.pair(s, id) // made in the token: not used, and not destroyed on the word of a file
	plant()
	requireSigns(t, s)
	require.Len(t, i.find(attribute(pkcs11.CKA_LABEL, "reseal-identity"), attribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)), 2)
	plant()
	again, err := hsm.Open(t.Context(), tok.URI(), options(dir))
	require.NoError(t, err)
	defer func() { require.NoError(t, again.Close()) }()
	require.Equal(t, before, again.Identity().Public())
	requireSigns(t, again)
	requireOpens(t, again)
	require.Len(t, i.labelled("reseal-identity"), 4, "two pairs")
	st, err := again.Status()
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(st.Cautions), "change it")
	require.LessOrEqual(t, len(st.Cautions), 12)
}

// TestExchangedIdentity destroys the identity's key and puts another in its place: nothing is
// signed by it, the error says what it is, and nothing else is destroyed.
func TestExchangedIdentity(t *testing.T) {
	for name, put := range map[string]func(i *intruder, s *hsm.Store){
		"of known value":    func(i *intruder, s *hsm.Store) { i.importIdentity(s, []byte{1}) },
		"made in the token": func(i *intruder, s *hsm.Store) { i.pair(s, []byte{1}) },
		"nothing":           func(*intruder, *hsm.Store) {},
	} {
		s, tok, dir := newStore(t, numbered("exchanged"))
		i := newIntruder(t, tok)
		for _, h := range i.labelled("reseal-identity") {
			require.NoError(t, i.ctx.DestroyObject(i.session, h))
		}
		put(i, s)
		objects, err := hsm.Inventory(t.Context(), tok.URI(), options(dir))
		require.NoError(t, err)
		digest := sha256.Sum256([]byte("message"))
		_, err = s.Identity().Sign(rand.Reader, digest[:], crypto.SHA256)
		require.Error(t, err, name)
		_, err = hsm.Open(t.Context(), tok.URI(), options(dir))
		require.ErrorIs(t, err, keystore.ErrForeignDevice, name)
		after, err := hsm.Inventory(t.Context(), tok.URI(), options(dir))
		require.NoError(t, err)
		require.Equal(t, objects, after, name)
		o := options(filepath.Join(t.TempDir(), "adopted"))
		_, err = hsm.Init(t.Context(), tok.URI(), o)
		if name != "nothing" {
			require.ErrorIs(t, err, keystore.ErrExists, name)
		}
		if name == "of known value" {
			o.Adopt = true
			_, err = hsm.Init(t.Context(), tok.URI(), o)
			require.ErrorIs(t, err, keystore.ErrForeignDevice)
			require.ErrorContains(t, err, "delete it")
		}
	}
}

// TestPointedAtAnother changes the identity in keystore.json to that of a key that the intruder had
// the token make. The keystore is another's then, and when the file is put back it is the replica's
// again.
func TestPointedAtAnother(t *testing.T) {
	s, tok, dir := newStore(t, "pointed")
	i := newIntruder(t, tok)
	public, _ := i.pair(s, []byte{1})
	var point []byte
	_, err := asn1.Unmarshal(i.read(public, pkcs11.CKA_EC_POINT), &point)
	require.NoError(t, err)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(key)
	require.NoError(t, err)
	path := filepath.Join(dir, "keystore.json")
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	own, err := x509.MarshalPKIXPublicKey(s.Identity().Public())
	require.NoError(t, err)
	changed := bytes.Replace(whole, []byte(base64.StdEncoding.EncodeToString(own)), []byte(base64.StdEncoding.EncodeToString(der)), 1)
	require.NotEqual(t, whole, changed)
	require.NoError(t, os.WriteFile(path, changed, 0o600))
	other, err := hsm.Open(t.Context(), tok.URI(), options(dir))
	require.NoError(t, err)
	require.Equal(t, key, other.Identity().Public(), "whoever opens it compares it with the genesis")
	require.NoError(t, other.Close())
	require.NoError(t, os.WriteFile(path, whole, 0o600))
	again, err := hsm.Open(t.Context(), tok.URI(), options(dir))
	require.NoError(t, err)
	require.Equal(t, s.Identity().Public(), again.Identity().Public())
	requireSigns(t, again)
	requireOpens(t, again)
	require.NoError(t, again.Close())
}

// TestAdoptAmong adopts the identity when somebody put keys of his own beside it, and does not
// choose between two that the token made.
func TestAdoptAmong(t *testing.T) {
	s, tok, _ := newStore(t, "adopt-among")
	i := newIntruder(t, tok)
	i.importIdentity(s, []byte{1})
	_, loose := i.pair(s, []byte{2}, attribute(pkcs11.CKA_EXTRACTABLE, true))
	o := options(filepath.Join(t.TempDir(), "one"))
	o.Adopt = true
	adopted, err := hsm.Init(t.Context(), tok.URI(), o)
	require.NoError(t, err)
	require.Equal(t, s.Identity().Public(), adopted.Identity().Public())
	require.NoError(t, adopted.Close())
	require.NotContains(t, i.find(), loose)

	i.pair(s, []byte{3})
	o.Dir = filepath.Join(t.TempDir(), "two")
	_, err = hsm.Init(t.Context(), tok.URI(), o)
	require.ErrorContains(t, err, "more than one key")
}

// TestOthersKeys: an envelope that names another keystore's key destroys nothing of it.
func TestOthersKeys(t *testing.T) {
	s, tok, dir := newStore(t, "others-keys")
	otherDir := filepath.Join(t.TempDir(), "other")
	uri := "pkcs11:token=" + tok.Label + ";object=reseal-epoch?" + tok.Query() // its labels begin with those of the first
	other, err := hsm.Init(t.Context(), uri, options(otherDir))
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close()) }()
	require.NoError(t, other.Seal(1, []byte("share")))
	require.NoError(t, os.MkdirAll(dir, 0o700))
	file := "sealed-00000000000000000001"
	whole, err := os.ReadFile(filepath.Join(otherDir, file))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, file), whole, 0o600))
	_, err = s.Unseal(1)
	require.True(t, keystore.Lost(err), err)
	require.NoError(t, s.Seal(1, []byte("share")))
	require.NoError(t, s.Advance(2))
	requireOpens(t, other)
	requireSigns(t, other)
}

// TestCopiesAreHarmless: opening an old copy of the directory destroys nothing that the original needs.
func TestCopiesAreHarmless(t *testing.T) {
	s, tok, dir := newStore(t, "copies")
	stolen := filepath.Join(t.TempDir(), "stolen")
	require.NoError(t, os.CopyFS(stolen, os.DirFS(dir)))
	require.NoError(t, s.Seal(1, []byte("share")))
	require.NoError(t, s.Seal(2, []byte("next")))
	old, err := hsm.Open(t.Context(), tok.URI(), options(stolen))
	require.NoError(t, err)
	_, err = old.Unseal(1)
	require.ErrorIs(t, err, keystore.ErrErased)
	_, err = old.Status()
	require.NoError(t, err)
	require.NoError(t, old.Close())
	requireOpens(t, s)
	require.Equal(t, "next", opened(t, s, 2))
}

// TestKeysAreFixed: who has the PIN cannot rename, loosen or copy the keys, so that they are found
// when they are to go.
func TestKeysAreFixed(t *testing.T) {
	_, tok, _ := newStore(t, "fixed")
	i := newIntruder(t, tok)
	keys := append(i.labelled("reseal-epoch"), i.find(attribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY))...)
	require.Len(t, keys, 2)
	for _, h := range keys {
		for _, a := range []*pkcs11.Attribute{
			attribute(pkcs11.CKA_LABEL, "mine"), attribute(pkcs11.CKA_ID, []byte("mine")), attribute(pkcs11.CKA_EXTRACTABLE, true),
			attribute(pkcs11.CKA_WRAP, true), attribute(pkcs11.CKA_MODIFIABLE, true),
		} {
			require.Error(t, i.ctx.SetAttributeValue(i.session, h, []*pkcs11.Attribute{a}))
		}
		_, err := i.ctx.CopyObject(i.session, h, []*pkcs11.Attribute{attribute(pkcs11.CKA_LABEL, "mine")})
		require.Error(t, err)
	}
}

// TestSameLabel: of two tokens of one label none is chosen.
func TestSameLabel(t *testing.T) {
	label := numbered("twins")
	newToken(t, label)
	tok := newToken(t, label)
	_, err := hsm.Init(t.Context(), tok.URI(), options(t.TempDir()))
	require.ErrorContains(t, err, "serial=NUMBER")
}

// TestTampered: what decides is not in keystore.json.
func TestTampered(t *testing.T) {
	s, tok, dir := newStore(t, "tampered")
	require.NoError(t, s.Close())
	path := filepath.Join(dir, "keystore.json")
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for name, content := range map[string]string{
		"of length zero": "",
		"cut":            string(whole[:len(whole)/2]),
		"with a mode":    string(bytes.Replace(whole, []byte(`"kind"`), []byte(`"mode": "aes-key-wrap", "kind"`), 1)),
		"a name":         string(bytes.Replace(whole, []byte(`"reseal"`), []byte(`"other"`), 1)),
		"an identity":    `{"version":2,"kind":"pkcs11","name":"reseal","identity":"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE"}`,
		"no identity":    `{"version":2,"kind":"pkcs11","name":"reseal"}`,
	} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := hsm.Open(t.Context(), tok.URI(), options(dir))
		require.Error(t, err, name)
		require.Regexp(t, "put the file back|its own URI", err.Error(), name)
	}
	require.NoError(t, os.WriteFile(path, whole, 0o600))
	s, err = hsm.Open(t.Context(), tok.URI(), options(dir))
	require.NoError(t, err)
	requireOpens(t, s)
	require.NoError(t, s.Close())
}

// poor is a token that is full, or gives few sessions.
type poor struct {
	hsm.Library
	mu       *sync.Mutex
	sessions *int // that it still gives
	full     bool
}

func (p poor) GenerateKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, t []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	if p.full {
		return 0, pkcs11.Error(pkcs11.CKR_DEVICE_MEMORY)
	}
	return p.Library.GenerateKey(s, m, t)
}

func (p poor) OpenSession(slot, flags uint) (pkcs11.SessionHandle, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if *p.sessions == 0 {
		return 0, pkcs11.Error(pkcs11.CKR_SESSION_COUNT)
	}
	*p.sessions--
	return p.Library.OpenSession(slot, flags)
}

func (p poor) CloseSession(s pkcs11.SessionHandle) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	*p.sessions++
	return p.Library.CloseSession(s)
}

// TestFullToken: nothing is sealed, the error says what to do, and what was sealed opens.
func TestFullToken(t *testing.T) {
	s, tok, _ := newStore(t, "full-token")
	none := 0
	restore := hsm.Intercept(tok.Module, func(l hsm.Library) hsm.Library { return poor{l, new(sync.Mutex), &none, true} })
	err := s.Seal(1, []byte("again"))
	require.ErrorContains(t, err, "the token is full")
	requireOpens(t, s)
	restore()
	require.NoError(t, s.Seal(1, []byte("share")))
	requireOpens(t, s)
}

// TestFewSessions: many callers share the one session that the token gives; without any the error
// says what to do.
func TestFewSessions(t *testing.T) {
	s, tok, dir := newStore(t, "few-sessions")
	none := 0
	restore := hsm.Intercept(tok.Module, func(l hsm.Library) hsm.Library { return poor{l, new(sync.Mutex), &none, false} })
	defer restore()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if secret, err := s.Unseal(1); err != nil || string(secret) != "share" {
					t.Errorf("unseal: %v", err)
				}
			}
		})
	}
	wg.Wait()
	requireSigns(t, s)
	_, err := hsm.Open(t.Context(), tok.URI(), options(dir))
	require.ErrorContains(t, err, "other programs hold all the sessions")
}

// lying is a library that returns what it should not.
type lying struct {
	hsm.Library
	lie string
}

func (l lying) Sign(s pkcs11.SessionHandle, m []byte) ([]byte, error) {
	sig, err := l.Library.Sign(s, m)
	switch {
	case err != nil:
	case l.lie == "no signature":
		return nil, nil
	case l.lie == "a short signature":
		return sig[:63], nil
	case l.lie == "another signature":
		sig[40] ^= 1
	}
	return sig, err
}

func (l lying) Encrypt(s pkcs11.SessionHandle, m []byte) ([]byte, error) {
	c, err := l.Library.Encrypt(s, m)
	switch {
	case err != nil:
	case l.lie == "no ciphertext":
		return nil, nil
	case l.lie == "a short ciphertext":
		return c[:len(c)-1], nil
	case l.lie == "another ciphertext":
		c[0] ^= 1
	}
	return c, err
}

func (l lying) Decrypt(s pkcs11.SessionHandle, c []byte) ([]byte, error) {
	m, err := l.Library.Decrypt(s, c)
	switch {
	case err != nil:
	case l.lie == "no plaintext":
		return nil, nil
	case l.lie == "a short plaintext":
		return m[:16], nil
	case l.lie == "another plaintext":
		m[0] ^= 1
	}
	return m, err
}

func (l lying) GenerateKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, t []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	switch l.lie {
	case "a key that can leave":
		t = with(t, attribute(pkcs11.CKA_EXTRACTABLE, true))
	case "a key of 16 bytes":
		t = with(t, attribute(pkcs11.CKA_VALUE_LEN, 16))
	case "a key of another id":
		t = with(t, attribute(pkcs11.CKA_ID, make([]byte, 32)))
	}
	return l.Library.GenerateKey(s, m, t)
}

func (l lying) GetAttributeValue(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, a []*pkcs11.Attribute) ([]*pkcs11.Attribute, error) {
	got, err := l.Library.GetAttributeValue(s, h, a)
	switch {
	case err != nil:
	case l.lie == "no attributes":
		return nil, nil
	case l.lie == "empty attributes":
		for i := range got {
			got[i].Value = nil
		}
	case l.lie == "attributes missing":
		got = got[1:]
	}
	return got, err
}

// TestLyingLibrary: what a library returns that it should not is an error, no panic; nothing is
// sealed that would not open, and what was sealed before opens when it tells the truth again.
func TestLyingLibrary(t *testing.T) {
	for _, lie := range []string{
		"no signature", "a short signature", "another signature", "no ciphertext", "a short ciphertext", "another ciphertext",
		"no plaintext", "a short plaintext", "another plaintext", "a key that can leave", "a key of 16 bytes", "a key of another id",
		"no attributes", "empty attributes", "attributes missing",
	} {
		s, tok, _ := newStore(t, numbered("lying"))
		restore := hsm.Intercept(tok.Module, func(l hsm.Library) hsm.Library { return lying{l, lie} })
		digest := sha256.Sum256(nil)
		_, signErr := s.Identity().Sign(rand.Reader, digest[:], crypto.SHA256)
		sealErr := s.Seal(1, []byte("again"))
		secret, unsealErr := s.Unseal(1)
		require.False(t, signErr == nil && sealErr == nil && unsealErr == nil, lie)
		want := "share"
		if sealErr == nil {
			want = "again"
		}
		if unsealErr == nil {
			require.Equal(t, want, string(secret), lie)
		}
		restore()
		require.Equal(t, want, opened(t, s, 1), lie)
		requireSigns(t, s)
	}
}

// TestFlood: very many objects under our label do not hide the one that counts, nor keep an epoch
// from ending.
func TestFlood(t *testing.T) {
	s, tok, dir := newStore(t, "flood")
	i := newIntruder(t, tok)
	const flood = 600 // more than are asked for at a time
	for n := range flood {
		template := imported(s, guessedID(uint64(n%5), uint64(n)))
		_, err := i.create(with(template, attribute(pkcs11.CKA_TOKEN, false)))
		require.NoError(t, err)
	}
	stolen := filepath.Join(t.TempDir(), "stolen")
	require.NoError(t, os.CopyFS(stolen, os.DirFS(dir)))
	require.NoError(t, s.Advance(2))
	require.Empty(t, i.labelled("reseal-epoch"))
	require.Empty(t, opensFrom(t, tok.URI(), stolen, 1))
}
