package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// mode is how the key of a sealing protects the key of an envelope.
type mode string

const (
	modeGCM  mode = "aes-gcm"      // encrypts it, with its id as associated data
	modeWrap mode = "aes-key-wrap" // wraps it (RFC 3394)
)

// Sizes in bytes, if not said otherwise.
const (
	gcmNonce   = 12
	gcmTagLen  = 128 // bits
	gcmWrapped = gcmNonce + statedir.KeySize + gcmTagLen/8
	rfcWrapped = statedir.KeySize + 8
)

// wrap protects a key, and checks that the token gives it back: what is sealed next
// replaces what was sealed before.
func (m mode) wrap(s *session, rand io.Reader, by pkcs11.ObjectHandle, id keyID, key []byte) (wrapped []byte, err error) {
	if m == modeGCM {
		wrapped, err = s.encryptGCM(rand, by, id, key)
	} else {
		wrapped, err = s.wrapKey(by, key)
	}
	if err != nil {
		return nil, err
	}
	got, err := m.unwrap(s, by, id, wrapped)
	if err != nil {
		return nil, fmt.Errorf("what the token wrapped does not unwrap: %w", err)
	}
	defer clear(got)
	if !keystore.NewSecret(got).Equal(keystore.NewSecret(key)) || bytes.Contains(wrapped, key) {
		return nil, errors.New("what was unwrapped is not what was wrapped")
	}
	return wrapped, nil
}

// unwrap reverses wrap. What is not as long as wrap makes it does not get to the token.
func (m mode) unwrap(s *session, by pkcs11.ObjectHandle, id keyID, wrapped []byte) ([]byte, error) {
	switch {
	case m == modeGCM && len(wrapped) == gcmWrapped:
		return s.decryptGCM(by, id, wrapped)
	case m == modeWrap && len(wrapped) == rfcWrapped:
		return s.unwrapKey(by, wrapped)
	}
	return nil, fmt.Errorf("%w: a key that is not wrapped by %s", keystore.ErrCorrupt, m)
}

// associated binds a ciphertext to its purpose and to the key's id, which has the epoch.
func associated(id keyID) []byte { return append([]byte("reseal sealing key v2\n"), id[:]...) }

// encryptGCM returns nonce and ciphertext. The nonce is given, as SoftHSM takes
// a missing one for all zero.
func (s *session) encryptGCM(rand io.Reader, by pkcs11.ObjectHandle, id keyID, key []byte) ([]byte, error) {
	nonce := make([]byte, gcmNonce)
	if _, err := io.ReadFull(rand, nonce); err != nil {
		return nil, fmt.Errorf("randomness: %w", err)
	}
	params := pkcs11.NewGCMParams(nonce, associated(id), gcmTagLen)
	defer params.Free()
	if err := s.EncryptInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, by); err != nil {
		return nil, err
	}
	sealed, err := s.Encrypt(s.handle, key)
	if err != nil {
		return nil, err
	}
	return append(nonce, sealed...), nil
}

func (s *session) decryptGCM(by pkcs11.ObjectHandle, id keyID, wrapped []byte) ([]byte, error) {
	params := pkcs11.NewGCMParams(wrapped[:gcmNonce], associated(id), gcmTagLen)
	defer params.Free()
	if err := s.DecryptInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, by); err != nil {
		return nil, err
	}
	return s.Decrypt(s.handle, wrapped[gcmNonce:])
}

// transient are the attributes of a key of an envelope while it passes through
// the token as an object of the session.
func transient() []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true),
	}
}

func (s *session) wrapKey(by pkcs11.ObjectHandle, key []byte) ([]byte, error) {
	h, err := s.CreateObject(s.handle, append(transient(), pkcs11.NewAttribute(pkcs11.CKA_VALUE, key)))
	if err != nil {
		return nil, err
	}
	wrapped, err := s.WrapKey(s.handle, mechanism(pkcs11.CKM_AES_KEY_WRAP), by, h)
	return wrapped, errors.Join(err, s.DestroyObject(s.handle, h))
}

func (s *session) unwrapKey(by pkcs11.ObjectHandle, wrapped []byte) ([]byte, error) {
	h, err := s.UnwrapKey(s.handle, mechanism(pkcs11.CKM_AES_KEY_WRAP), by, wrapped, transient())
	if err != nil {
		return nil, err
	}
	value, err := s.attribute(h, pkcs11.CKA_VALUE)
	return value, errors.Join(err, s.DestroyObject(s.handle, h))
}
