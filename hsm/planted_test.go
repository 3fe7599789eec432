package hsm_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/hsm"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"github.com/stretchr/testify/require"
)

// attacks are what somebody tries who has the PIN for a while, and the disk before and after. Each
// returns what he has got, "" for nothing. The build with planted bugs shows that each of these
// wins when its rule is missing.
var attacks = map[string]func(t *testing.T) (won string){
	"keys of known value, made beforehand":   preplantImported,
	"keys of the token, made and wrapped":    preplantWrapped,
	"an envelope under a key of known value": forgeEnvelope,
	"objects of our names that stay":         plantStrangers,
	"a copy from before a sealing again":     keepSuperseded,
	"a key that no envelope names":           plantUnnamed,
	"a copy from before the epoch":           keepPast,
}

func TestAttacks(t *testing.T) {
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) { require.Empty(t, attack(t)) })
	}
}

var attempts int

// numbered returns a label that no token has.
func numbered(label string) string {
	attempts++
	return fmt.Sprintf("%s-%d", label, attempts)
}

// known is a key that the intruder knows.
var known = bytes.Repeat([]byte{0x42}, 32)

// imported are the attributes of a key of known value that looks as much as it can like one of the
// keystore's.
func imported(s *hsm.Store, id []byte) []*pkcs11.Attribute {
	return with(hsm.SealingTemplate(s),
		attribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		attribute(pkcs11.CKA_ID, id), attribute(pkcs11.CKA_VALUE, known))
}

// guessedID is the id of a coming sealing as far as it can be guessed.
func guessedID(epoch, generation uint64) []byte {
	id := make([]byte, 32)
	binary.BigEndian.PutUint64(id, epoch)
	binary.BigEndian.PutUint64(id[8:], generation)
	return id
}

// create makes an object; CKA_VALUE_LEN is not given with a value.
func (i *intruder) create(template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	var given []*pkcs11.Attribute
	for _, a := range template {
		if a.Type != pkcs11.CKA_VALUE_LEN {
			given = append(given, a)
		}
	}
	return i.ctx.CreateObject(i.session, given)
}

func (i *intruder) generate(template ...*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	return i.ctx.GenerateKey(i.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, template)
}

// readSealed reads an envelope from a disk.
func readSealed(t *testing.T, dir string, epoch uint64) *statedir.Sealed {
	t.Helper()
	d, err := statedir.New(dir)
	require.NoError(t, err)
	sealed, err := d.Sealed(statedir.KindPKCS11, epoch)
	require.NoError(t, err)
	return sealed
}

func gcm(t *testing.T, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	require.NoError(t, err)
	aead, err := cipher.NewGCM(block)
	require.NoError(t, err)
	return aead
}

// preplantImported writes keys of known value for coming epochs, under all labels and ids that can
// be guessed. Later there is only a copy of the disk.
func preplantImported(t *testing.T) string {
	s, tok, dir := newStore(t, numbered("preplanted"))
	i := newIntruder(t, tok)
	for epoch := uint64(2); epoch <= 3; epoch++ {
		for generation := range uint64(3) {
			_, err := i.create(imported(s, guessedID(epoch, generation)))
			require.NoError(t, err)
		}
		_, err := i.create(with(imported(s, guessedID(epoch, 1)), attribute(pkcs11.CKA_LABEL, fmt.Sprintf("reseal-epoch-%020d", epoch))))
		require.NoError(t, err)
	}
	for epoch := uint64(2); epoch <= 3; epoch++ {
		require.NoError(t, s.Seal(epoch, []byte("secret")))
		stolen := readSealed(t, dir, epoch)
		id, wrapped := hsm.SealingKeyID(stolen)
		if key, err := gcm(t, known).Open(nil, wrapped[:12], wrapped[12:], hsm.Associated(id)); err == nil {
			secret, err := stolen.Open(key)
			require.NoError(t, err)
			return fmt.Sprintf("without token and PIN: %s", secret)
		}
		require.NoError(t, s.Advance(epoch))
	}
	if n := len(i.labelled("reseal-epoch")); n != 1 {
		return fmt.Sprintf("%d keys of ours are in the token", n)
	}
	return ""
}

// preplantWrapped does the same on a token that lets keys be wrapped: the token has made the keys
// itself, and the intruder knows them all the same.
func preplantWrapped(t *testing.T) string {
	path, query := newNSS(t)
	dir := filepath.Join(t.TempDir(), "k")
	s, err := hsm.Init(t.Context(), "pkcs11:"+path+"?"+query, options(dir))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	require.NoError(t, s.Seal(1, []byte("share")))
	require.NoError(t, s.Advance(1))
	i := intrude(t, nssModule, nssLabel)
	wrapping, err := i.ctx.CreateObject(i.session, []*pkcs11.Attribute{
		attribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES), attribute(pkcs11.CKA_TOKEN, false),
		attribute(pkcs11.CKA_WRAP, true), attribute(pkcs11.CKA_UNWRAP, true), attribute(pkcs11.CKA_VALUE, known)})
	require.NoError(t, err)
	keyWrap := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP, nil)}
	var made [][]byte
	for generation := range uint64(3) {
		h, err := i.generate(append(hsm.SealingTemplate(s), attribute(pkcs11.CKA_ID, append(guessedID(2, generation)[:31], 1)))...)
		require.NoError(t, err)
		wrapped, err := i.ctx.WrapKey(i.session, keyWrap, wrapping, h)
		require.NoError(t, err, "NSS lets it be wrapped")
		made = append(made, wrapped)
	}
	require.NoError(t, s.Seal(2, []byte("secret")))
	stolen := readSealed(t, dir, 2)
	_, content := hsm.SealingKeyID(stolen)
	for _, wrapped := range made {
		// NSS stands for a program that unwraps by RFC 3394.
		h, err := i.ctx.UnwrapKey(i.session, keyWrap, wrapping, wrapped, []*pkcs11.Attribute{
			attribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
			attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_UNWRAP, true)})
		require.NoError(t, err)
		key, err := i.ctx.UnwrapKey(i.session, keyWrap, h, content, []*pkcs11.Attribute{
			attribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
			attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_SENSITIVE, false), attribute(pkcs11.CKA_EXTRACTABLE, true)})
		if err != nil {
			continue
		}
		secret, err := stolen.Open(i.read(key, pkcs11.CKA_VALUE))
		require.NoError(t, err)
		return fmt.Sprintf("without token and PIN: %s", secret)
	}
	return ""
}

// forge makes an envelope for an epoch under the known key.
func forge(t *testing.T, id []byte, epoch uint64, secret string) []byte {
	t.Helper()
	sealed, err := statedir.Seal(rand.Reader, statedir.Sealed{Kind: statedir.KindPKCS11, Epoch: epoch}, []byte(secret), func(key []byte) ([]byte, error) {
		nonce := make([]byte, 12)
		return append(append(bytes.Clone(id), nonce...), gcm(t, known).Seal(nil, nonce, key, hsm.Associated([32]byte(id)))...), nil
	})
	require.NoError(t, err)
	data, err := sealed.MarshalBinary()
	require.NoError(t, err)
	return data
}

// forgeEnvelope has the keystore open a secret of the intruder's as the replica's own.
func forgeEnvelope(t *testing.T) string {
	s, tok, dir := newStore(t, numbered("forged"))
	id := guessedID(2, 1)
	_, err := newIntruder(t, tok).create(imported(s, id))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "sealed-00000000000000000002"), forge(t, id, 2, "the intruder's"), 0o600))
	secret, err := s.Unseal(2)
	if err == nil {
		return string(secret)
	}
	require.True(t, keystore.Lost(err), err)
	requireOpens(t, s)
	return ""
}

// plantStrangers puts objects of every wrong kind under the label of the sealings' keys. All are
// gone with the next sealing.
func plantStrangers(t *testing.T) string {
	s, tok, _ := newStore(t, numbered("strangers"))
	i := newIntruder(t, tok)
	good := append(hsm.SealingTemplate(s), attribute(pkcs11.CKA_ID, append(guessedID(2, 1)[:31], 7)))
	planted := map[pkcs11.ObjectHandle]string{}
	add := func(what string) func(h pkcs11.ObjectHandle, err error) {
		return func(h pkcs11.ObjectHandle, err error) {
			require.NoError(t, err, what)
			planted[h] = what
		}
	}
	for what, changed := range map[string]*pkcs11.Attribute{
		"extractable":  attribute(pkcs11.CKA_EXTRACTABLE, true),
		"not private":  attribute(pkcs11.CKA_PRIVATE, false),
		"not secret":   attribute(pkcs11.CKA_SENSITIVE, false),
		"changeable":   attribute(pkcs11.CKA_MODIFIABLE, true),
		"copyable":     attribute(pkcs11.CKA_COPYABLE, true),
		"wrapped":      attribute(pkcs11.CKA_WRAP_WITH_TRUSTED, false),
		"of 16 bytes":  attribute(pkcs11.CKA_VALUE_LEN, 16),
		"wraps":        attribute(pkcs11.CKA_WRAP, true),
		"derives":      attribute(pkcs11.CKA_DERIVE, true),
		"signs":        attribute(pkcs11.CKA_SIGN, true),
		"only opens":   attribute(pkcs11.CKA_ENCRYPT, false),
		"no id":        attribute(pkcs11.CKA_ID, []byte{}),
		"a short id":   attribute(pkcs11.CKA_ID, []byte{1}),
		"a longer id":  attribute(pkcs11.CKA_ID, make([]byte, 33)),
		"old label":    attribute(pkcs11.CKA_LABEL, "reseal-epoch-00000000000000000002"),
		"older label":  attribute(pkcs11.CKA_LABEL, "reseal-epoch-2"),
		"of the past":  attribute(pkcs11.CKA_ID, guessedID(0, 1)),
		"of the past ": attribute(pkcs11.CKA_ID, guessedID(1, 0)),
	} {
		add(what)(i.generate(with(good, changed)...))
	}
	add("imported")(i.create(imported(s, guessedID(2, 2))))
	add("imported, of the key in use")(i.create(imported(s, i.read(i.labelled("reseal-epoch")[0], pkcs11.CKA_ID))))
	add("data")(i.create([]*pkcs11.Attribute{attribute(pkcs11.CKA_CLASS, pkcs11.CKO_DATA), attribute(pkcs11.CKA_TOKEN, true),
		attribute(pkcs11.CKA_PRIVATE, true), attribute(pkcs11.CKA_LABEL, "reseal-epoch"), attribute(pkcs11.CKA_VALUE, []byte("data"))}))
	add("of another type")(i.create([]*pkcs11.Attribute{attribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attribute(pkcs11.CKA_TOKEN, true),
		attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET), attribute(pkcs11.CKA_LABEL, "reseal-epoch"), attribute(pkcs11.CKA_VALUE, known)}))
	if len(i.find()) < len(planted) {
		require.Fail(t, "the token took too little")
	}
	require.NoError(t, s.Seal(1, []byte("share")))
	requireOpens(t, s)
	for _, h := range i.find() {
		if what, stayed := planted[h]; stayed {
			return "it stayed: " + what
		}
	}
	st, err := s.Status()
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(st.Cautions), "did not make")
	return ""
}

// keepSuperseded opens, with token and PIN, what was sealed before the same epoch was sealed for again.
func keepSuperseded(t *testing.T) string {
	s, tok, dir := newStore(t, numbered("superseded"))
	stolen := filepath.Join(t.TempDir(), "stolen")
	require.NoError(t, os.CopyFS(stolen, os.DirFS(dir)))
	require.NoError(t, s.Seal(1, []byte("share")))
	return opensFrom(t, tok.URI(), stolen, 1)
}

// keepPast opens, with token and PIN, what was sealed in an epoch that is over.
func keepPast(t *testing.T) string {
	s, tok, dir := newStore(t, numbered("past"))
	stolen := filepath.Join(t.TempDir(), "stolen")
	require.NoError(t, os.CopyFS(stolen, os.DirFS(dir)))
	require.NoError(t, s.Advance(2))
	return opensFrom(t, tok.URI(), stolen, 1)
}

// opensFrom returns the secret that opens from a copied disk.
func opensFrom(t *testing.T, uri, dir string, epoch uint64) string {
	t.Helper()
	s, err := hsm.Open(t.Context(), uri, options(dir))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	secret, err := s.Unseal(epoch)
	if err != nil {
		var refused *keystore.RefusedError
		require.ErrorAs(t, err, &refused)
	}
	return string(secret)
}

// plantUnnamed leaves a key that the token made, as a sealing that was abandoned does. It goes with
// the epoch.
func plantUnnamed(t *testing.T) string {
	s, tok, _ := newStore(t, numbered("unnamed"))
	i := newIntruder(t, tok)
	for epoch := uint64(1); epoch <= 3; epoch++ {
		_, err := i.generate(append(hsm.SealingTemplate(s), attribute(pkcs11.CKA_ID, append(guessedID(epoch, 9)[:31], 1)))...)
		require.NoError(t, err)
	}
	require.NoError(t, s.Seal(2, []byte("next")))
	require.NoError(t, s.Advance(2))
	if n := len(i.labelled("reseal-epoch")); n != 1 {
		return fmt.Sprintf("%d keys of ours are in the token", n)
	}
	return ""
}
