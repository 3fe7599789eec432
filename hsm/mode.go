package hsm

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// mode is how the key of an epoch protects the key of an envelope.
type mode string

const (
	modeGCM  mode = "aes-gcm"      // encrypts it, with the epoch as associated data
	modeWrap mode = "aes-key-wrap" // wraps it (RFC 3394)
)

const (
	gcmNonce   = 12
	gcmTagLen  = 128 // bits
	wrapTagLen = 8   // bytes (RFC 3394)
)

// usage are the attributes of an epoch's key that say what it is for.
func (m mode) usage() []*pkcs11.Attribute {
	usage := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, statedir.KeySize)}
	if m == modeGCM {
		return append(usage,
			pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true))
	}
	return append(usage,
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, true), pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, true))
}

// wrap protects a key.
func (m mode) wrap(s *session, rand io.Reader, by pkcs11.ObjectHandle, epoch uint64, key []byte) ([]byte, error) {
	if m == modeGCM {
		return s.encryptGCM(rand, by, epoch, key)
	}
	return s.wrapKey(by, key)
}

// unwrap reverses wrap.
func (m mode) unwrap(s *session, by pkcs11.ObjectHandle, epoch uint64, wrapped []byte) ([]byte, error) {
	if m == modeGCM {
		return s.decryptGCM(by, epoch, wrapped)
	}
	return s.unwrapKey(by, wrapped)
}

// associated binds a ciphertext to its purpose and epoch.
func associated(epoch uint64) []byte { return fmt.Appendf(nil, "reseal epoch key v1 %020d", epoch) }

// encryptGCM returns nonce and ciphertext. The nonce is given, as SoftHSM takes
// a missing one for all zero.
func (s *session) encryptGCM(rand io.Reader, by pkcs11.ObjectHandle, epoch uint64, key []byte) ([]byte, error) {
	nonce := make([]byte, gcmNonce)
	if _, err := io.ReadFull(rand, nonce); err != nil {
		return nil, fmt.Errorf("randomness: %w", err)
	}
	params := pkcs11.NewGCMParams(nonce, associated(epoch), gcmTagLen)
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

func (s *session) decryptGCM(by pkcs11.ObjectHandle, epoch uint64, wrapped []byte) ([]byte, error) {
	if len(wrapped) != gcmNonce+statedir.KeySize+gcmTagLen/8 {
		return nil, keystore.ErrCorrupt
	}
	params := pkcs11.NewGCMParams(wrapped[:gcmNonce], associated(epoch), gcmTagLen)
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
	if len(wrapped) != statedir.KeySize+wrapTagLen {
		return nil, keystore.ErrCorrupt
	}
	h, err := s.UnwrapKey(s.handle, mechanism(pkcs11.CKM_AES_KEY_WRAP), by, wrapped, transient())
	if err != nil {
		return nil, err
	}
	got, err := s.GetAttributeValue(s.handle, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
	if err = errors.Join(err, s.DestroyObject(s.handle, h)); err != nil {
		return nil, err
	}
	return got[0].Value, nil
}

// suitable finds out what the token can do. What it lacks is an ErrUnsupported
// with all that is missing in one sentence.
func (s *session) suitable(rand io.Reader) (mode, error) {
	var lacks []string
	ecdsa, err := s.has(pkcs11.CKM_EC_KEY_PAIR_GEN, pkcs11.CKM_ECDSA)
	if err != nil {
		return "", err
	}
	if !ecdsa {
		lacks = append(lacks, "it has no ECDSA for the identity key")
	}
	chosen, refusals, err := s.chooseMode(rand)
	if err != nil {
		return "", err
	}
	if chosen == "" {
		lacks = append(lacks, "it can seal neither by "+strings.Join(refusals, " nor by "))
	}
	if len(lacks) > 0 {
		return "", fmt.Errorf("%w: %s", keystore.ErrUnsupported, strings.Join(lacks, ", and "))
	}
	return chosen, nil
}

// has reports whether the token lists all of these mechanisms.
func (s *session) has(wanted ...uint) (bool, error) {
	list, err := s.GetMechanismList(s.token.slot)
	if err != nil {
		return false, fmt.Errorf("list mechanisms: %w", err)
	}
	for _, w := range wanted {
		if !slices.ContainsFunc(list, func(m *pkcs11.Mechanism) bool { return m.Mechanism == w }) {
			return false, nil
		}
	}
	return true, nil
}

// chooseMode tries which mode works, with a key of the session. When none does,
// refusals say why.
func (s *session) chooseMode(rand io.Reader) (chosen mode, refusals []string, err error) {
	for _, m := range []mode{modeGCM, modeWrap} {
		err := s.tryMode(rand, m)
		if err == nil {
			return m, nil, nil
		}
		if absent(err) {
			return "", nil, err
		}
		refusals = append(refusals, fmt.Sprintf("%s (%s)", m, strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	return "", refusals, nil
}

// tryMode wraps and unwraps with a key of the session, and checks that another
// epoch's key, or a changed ciphertext, does not do.
func (s *session) tryMode(rand io.Reader, m mode) error {
	by, err := s.GenerateKey(s.handle, mechanism(pkcs11.CKM_AES_KEY_GEN), append([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
	}, m.usage()...))
	if err != nil {
		return fmt.Errorf("make an AES key: %w", err)
	}
	return errors.Join(s.tryKey(rand, m, by), s.DestroyObject(s.handle, by))
}

func (s *session) tryKey(rand io.Reader, m mode, by pkcs11.ObjectHandle) error {
	key := make([]byte, statedir.KeySize)
	if _, err := io.ReadFull(rand, key); err != nil {
		return fmt.Errorf("randomness: %w", err)
	}
	wrapped, err := m.wrap(s, rand, by, 1, key)
	if err != nil {
		return err
	}
	got, err := m.unwrap(s, by, 1, wrapped)
	if err != nil {
		return err
	}
	if !keystore.NewSecret(got).Equal(keystore.NewSecret(key)) {
		return errors.New("what was unwrapped is not what was wrapped")
	}
	wrapped[len(wrapped)-1] ^= 1
	if _, err := m.unwrap(s, by, 1, wrapped); err == nil {
		return errors.New("the token accepts a forged ciphertext")
	}
	return nil
}
