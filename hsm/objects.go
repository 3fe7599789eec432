package hsm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
)

// p256 is the object identifier of the curve, DER (CKA_EC_PARAMS).
var p256 = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}

const (
	maxFound       = 1 << 12        // objects in a token that are looked through
	identityNumber = math.MaxUint64 // no epoch has it
)

// errNoObject is returned for a key that may be missing, as an epoch's may.
var errNoObject = errors.New("the token does not hold the object")

// Objects have an id (CKA_ID) of their own each: NSS replaces a secret key by
// another one of the same id.
func objectID(name string, number uint64) []byte {
	sum := sha256.Sum256([]byte("reseal keystore v1 " + name))
	return binary.BigEndian.AppendUint64(sum[:8:8], number)
}

func identityLabel(name string) string { return name + "-identity" }
func epochPrefix(name string) string   { return name + "-epoch-" }

func epochLabel(name string, epoch uint64) string {
	return fmt.Sprintf("%s%020d", epochPrefix(name), epoch)
}

// find lists the objects that have these attributes.
func (s *session) find(template ...*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	if err := s.FindObjectsInit(s.handle, template); err != nil {
		return nil, err
	}
	found, _, err := s.FindObjects(s.handle, maxFound)
	return found, errors.Join(err, s.FindObjectsFinal(s.handle))
}

// object returns the handle of the one object of a class and label. Handles are
// remembered until the token is connected to again.
func (s *session) object(class uint, label string) (pkcs11.ObjectHandle, error) {
	key := strconv.FormatUint(uint64(class), 16) + label
	s.token.mu.Lock()
	h, ok := s.token.handles[key]
	s.token.mu.Unlock()
	if ok {
		return h, nil
	}
	found, err := s.find(
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, class),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", label, err)
	}
	if len(found) == 0 {
		return 0, fmt.Errorf("%s: %w", label, errNoObject)
	}
	s.token.mu.Lock()
	defer s.token.mu.Unlock()
	if s.token.handles != nil {
		s.token.handles[key] = found[0]
	}
	return found[0], nil
}

// forget forgets the handles of an object that is destroyed.
func (s *session) forget(h pkcs11.ObjectHandle) {
	s.token.mu.Lock()
	defer s.token.mu.Unlock()
	for key, known := range s.token.handles {
		if known == h {
			delete(s.token.handles, key)
		}
	}
}

// present asks the token itself whether it holds the keystore. A token whose
// storage is gone looks like one that destroyed every key, and would take a new
// key and lose it.
func (s *session) present(name string) error {
	s.token.mu.Lock()
	clear(s.token.handles)
	s.token.mu.Unlock()
	_, err := s.identityKey(name)
	return err
}

// makeIdentity makes the identity key pair and checks that it cannot leave the
// token.
func (s *session) makeIdentity(name string) (*ecdsa.PublicKey, error) {
	label, id := identityLabel(name), objectID(name, identityNumber)
	public := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id),
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, p256),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
	}
	private := append(protected(label, id), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true))
	_, h, err := s.GenerateKeyPair(s.handle, mechanism(pkcs11.CKM_EC_KEY_PAIR_GEN), public, private)
	if err != nil {
		return nil, fmt.Errorf("make the identity key: %w", err)
	}
	if err := s.checkProtected(h, label); err != nil {
		return nil, err
	}
	return s.identity(name)
}

// protected are the attributes of a key that stays in the token.
func protected(label string, id []byte) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
	}
}

// checkProtected reads back that a key was made in the token and stays there.
func (s *session) checkProtected(h pkcs11.ObjectHandle, label string) error {
	want := []struct {
		attribute uint
		name      string
		value     bool
	}{
		{pkcs11.CKA_SENSITIVE, "SENSITIVE", true},
		{pkcs11.CKA_ALWAYS_SENSITIVE, "ALWAYS_SENSITIVE", true},
		{pkcs11.CKA_EXTRACTABLE, "EXTRACTABLE", false},
		{pkcs11.CKA_NEVER_EXTRACTABLE, "NEVER_EXTRACTABLE", true},
	}
	var template []*pkcs11.Attribute
	for _, w := range want {
		template = append(template, pkcs11.NewAttribute(w.attribute, nil))
	}
	got, err := s.GetAttributeValue(s.handle, h, template)
	if err != nil {
		return fmt.Errorf("%s: read its attributes: %w", label, err)
	}
	for i, w := range want {
		if len(got[i].Value) != 1 || (got[i].Value[0] != 0) != w.value {
			return fmt.Errorf("%s: %w: the token made a key whose %s is not %v", label, keystore.ErrUnsupported, w.name, w.value)
		}
	}
	return nil
}

// identity reads the public key of the identity key pair.
func (s *session) identity(name string) (*ecdsa.PublicKey, error) {
	label := identityLabel(name)
	h, err := s.object(pkcs11.CKO_PUBLIC_KEY, label)
	if err != nil {
		return nil, err
	}
	got, err := s.GetAttributeValue(s.handle, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
	if err != nil {
		return nil, fmt.Errorf("%s: read the public key: %w", label, err)
	}
	point := got[0].Value
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		point = inner // as the standard asks; some tokens give the bare point
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: the token's public key is no point of P-256", label, keystore.ErrCorrupt)
	}
	return key, nil
}

// identityKey returns the private key of the identity key pair, without which
// the token is not the one that the keystore was made on.
func (s *session) identityKey(name string) (pkcs11.ObjectHandle, error) {
	h, err := s.object(pkcs11.CKO_PRIVATE_KEY, identityLabel(name))
	if errors.Is(err, errNoObject) {
		return 0, fmt.Errorf("token %s: %w: it lost the keystore (cleared, or its storage is gone)", s.token.where, keystore.ErrForeignDevice)
	}
	return h, err
}

// epochKey returns the key of an epoch.
func (s *session) epochKey(name string, epoch uint64) (pkcs11.ObjectHandle, error) {
	return s.object(pkcs11.CKO_SECRET_KEY, epochLabel(name, epoch))
}

// ensureEpochKey returns the key of an epoch and makes it when it is not there.
func (s *session) ensureEpochKey(name string, epoch uint64, m mode) (pkcs11.ObjectHandle, error) {
	h, err := s.epochKey(name, epoch)
	if !errors.Is(err, errNoObject) {
		return h, err
	}
	if err := s.present(name); err != nil {
		return 0, err
	}
	label := epochLabel(name, epoch)
	h, err = s.GenerateKey(s.handle, mechanism(pkcs11.CKM_AES_KEY_GEN),
		append(protected(label, objectID(name, epoch)), m.usage()...))
	if err != nil {
		return 0, fmt.Errorf("make the key of epoch %d: %w", epoch, err)
	}
	return h, s.checkProtected(h, label)
}

// destroyBefore destroys the keys of the epochs before one.
func (s *session) destroyBefore(name string, epoch uint64) error {
	found, err := s.find(pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY))
	if err != nil {
		return fmt.Errorf("list the keys of past epochs: %w", err)
	}
	for _, h := range found {
		of, err := s.epochOf(name, h)
		if err != nil {
			return err
		}
		if of == nil || *of >= epoch {
			continue
		}
		if err := s.destroy(h); err != nil {
			return fmt.Errorf("destroy the key of epoch %d: %w", *of, err)
		}
	}
	return nil
}

// eraseBefore is destroyBefore on a token that certainly is there: before, so
// that there is something to destroy, and after, so that it was destroyed.
func (s *session) eraseBefore(name string, epoch uint64) error {
	if err := s.present(name); err != nil {
		return err
	}
	if err := s.destroyBefore(name, epoch); err != nil {
		return err
	}
	return s.present(name)
}

// destroy destroys an object.
func (s *session) destroy(h pkcs11.ObjectHandle) error {
	s.forget(h)
	return s.DestroyObject(s.handle, h)
}

// epochOf reads which epoch a key is for; nil when its label is none of ours.
func (s *session) epochOf(name string, h pkcs11.ObjectHandle) (*uint64, error) {
	got, err := s.GetAttributeValue(s.handle, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil)})
	if err != nil {
		return nil, fmt.Errorf("read the label of a key: %w", err)
	}
	number, ok := strings.CutPrefix(string(got[0].Value), epochPrefix(name))
	epoch, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		return nil, nil
	}
	return &epoch, nil
}

// removeAll destroys every object of a keystore.
func (s *session) removeAll(name string) error {
	if err := s.destroyBefore(name, math.MaxUint64); err != nil {
		return err
	}
	found, err := s.find(pkcs11.NewAttribute(pkcs11.CKA_LABEL, identityLabel(name)))
	if err != nil {
		return fmt.Errorf("find the identity key: %w", err)
	}
	for _, h := range found {
		if err := s.destroy(h); err != nil {
			return fmt.Errorf("destroy the identity key: %w", err)
		}
	}
	return nil
}

func mechanism(m uint) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(m, nil)}
}
