package hsm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
)

// p256 is the object identifier of the curve, DER (CKA_EC_PARAMS).
var p256 = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}

const (
	sigLen        = 64 // r and s
	identityIDLen = 32
)

func identityLabel(name string) string { return name + "-identity" }

func (s *Store) identityTraits() traits { return s.profile.identity(identityLabel(s.name)) }

func newIdentityID(rand io.Reader) ([]byte, error) {
	id := make([]byte, identityIDLen)
	if _, err := io.ReadFull(rand, id); err != nil {
		return nil, fmt.Errorf("randomness: %w", err)
	}
	return id, nil
}

// publicTemplate is the public half of the identity. It is private, as PKCS#11 calls what
// nobody sees without the PIN: whoever has not even that could delete or rename it, and a
// directory that is lost after that could not be made again.
func (s *Store) publicTemplate(id []byte) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, identityLabel(s.name)),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id),
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, p256),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
	}
}

// makeIdentity makes the identity key pair, and checks that it cannot leave the
// token and signs by the public key that the token told.
func (s *Store) makeIdentity(x *session, id []byte) (*ecdsa.PublicKey, error) {
	want := s.identityTraits()
	pub, h, err := x.GenerateKeyPair(x.handle, mechanism(pkcs11.CKM_EC_KEY_PAIR_GEN), s.publicTemplate(id),
		append(want.given, pkcs11.NewAttribute(pkcs11.CKA_ID, id)))
	if err != nil {
		return nil, fmt.Errorf("make the identity key: %w", err)
	}
	differs, err := x.differs(h, want)
	if err == nil && differs != "" {
		err = fmt.Errorf("the token made an identity key that is not as it was asked for: %s", differs)
	}
	if err != nil {
		return nil, errors.Join(err, x.DestroyObject(x.handle, h), x.DestroyObject(x.handle, pub))
	}
	key, err := x.point(pub)
	if err != nil {
		return nil, err
	}
	return key, s.prove(x, h, key)
}

// point reads the point of a public key object.
func (s *session) point(h pkcs11.ObjectHandle) (*ecdsa.PublicKey, error) {
	point, err := s.attribute(h, pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, fmt.Errorf("read the public key: %w", err)
	}
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		point = inner // as the standard asks; some tokens give the bare point
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, fmt.Errorf("%w: the token's public key is no point of P-256", keystore.ErrCorrupt)
	}
	return key, nil
}

// errOtherKey is returned for a key in the place of the identity key.
var errOtherKey = errors.New("what it signs does not verify under the identity")

// prove has a key sign something that was not there before.
func (s *Store) prove(x *session, h pkcs11.ObjectHandle, by *ecdsa.PublicKey) error {
	var fresh [32]byte
	if _, err := io.ReadFull(s.rand, fresh[:]); err != nil {
		return fmt.Errorf("randomness: %w", err)
	}
	digest := sha256.Sum256(append([]byte("reseal keystore challenge v1\n"), fresh[:]...))
	_, err := x.sign(h, digest[:], by)
	return err
}

// sign signs a digest of 32 bytes and verifies what the token returned: DER.
func (s *session) sign(h pkcs11.ObjectHandle, digest []byte, by *ecdsa.PublicKey) ([]byte, error) {
	if err := s.SignInit(s.handle, mechanism(pkcs11.CKM_ECDSA), h); err != nil {
		return nil, fmt.Errorf("identity: sign: %w", err)
	}
	sig, err := s.Sign(s.handle, digest)
	if err != nil {
		return nil, fmt.Errorf("identity: sign: %w", err)
	}
	if len(sig) != sigLen {
		return nil, fmt.Errorf("identity: %w: the token returned a signature of %d bytes", errOtherKey, len(sig))
	}
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:sigLen/2]), new(big.Int).SetBytes(sig[sigLen/2:])})
	if err != nil {
		return nil, err
	}
	if !ecdsa.VerifyASN1(by, digest, der) {
		return nil, fmt.Errorf("identity: %w", errOtherKey)
	}
	return der, nil
}

// privates lists the private keys of the identity's name: those that may be it,
// and in what the others differ.
func (s *Store) privates(x *session) (keys []pkcs11.ObjectHandle, strangers map[pkcs11.ObjectHandle]string, err error) {
	found, err := x.find(
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, identityLabel(s.name)))
	if err != nil {
		return nil, nil, fmt.Errorf("find the identity key: %w", err)
	}
	strangers = make(map[pkcs11.ObjectHandle]string)
	for _, h := range found {
		differs, err := x.differs(h, s.identityTraits())
		switch {
		case gone(err):
		case err != nil:
			return nil, nil, err
		case s.rules.genuine(differs):
			keys = append(keys, h)
		default:
			strangers[h] = differs
		}
	}
	return keys, strangers, nil
}

// identityKey returns the private key of the identity, without which the token is
// not the one that the keystore was made on. Where there is more than one object
// of its name, the identity is the one that signs as it. Others are destroyed, but
// not those that the token made: only the directory says which of them is the
// identity, and it is anybody's.
func (s *Store) identityKey(x *session) (pkcs11.ObjectHandle, error) {
	keys, strangers, err := s.privates(x)
	if err != nil {
		return 0, err
	}
	var own []pkcs11.ObjectHandle
	for _, h := range keys {
		if len(keys) > 1 {
			err := s.prove(x, h, s.identity)
			if errors.Is(err, errOtherKey) {
				s.notes.add(s.log, fmt.Sprintf("The token holds another key by the name %q that it made itself. It is not used. Somebody has had the PIN: change it, and delete that key.", identityLabel(s.name)))
				continue
			}
			if err != nil {
				return 0, err
			}
		}
		own = append(own, h)
	}
	if len(own) == 0 {
		why := "it lost the keystore (cleared, or its storage is gone)"
		if len(keys)+len(strangers) > 0 {
			why = "what goes by the name of its identity key is none of this keystore's"
		}
		return 0, fmt.Errorf("token %s: %w: %s", s.token.where, keystore.ErrForeignDevice, why)
	}
	for h, differs := range strangers {
		if err := s.evict(x, h, "an object with the name of the identity key", differs); err != nil {
			return 0, err
		}
	}
	return own[0], nil
}

// present asks the token itself whether it holds the keystore. A token whose
// storage is gone looks like one that destroyed every key, and would take a new
// key and lose it.
func (s *Store) present(x *session) error {
	_, err := s.identityKey(x)
	return err
}

// settleIdentity makes sure that the token holds the identity of the directory, both
// halves of it, and destroys what else goes by its name and belongs to no key that the
// token made.
func (s *Store) settleIdentity(x *session) error {
	own, err := s.identityKey(x)
	if err != nil {
		return err
	}
	if err := s.prove(x, own, s.identity); errors.Is(err, errOtherKey) {
		return fmt.Errorf("token %s: %w: its identity key is not that of %s: open the directory that belongs to the token", s.token.where, keystore.ErrForeignDevice, s.dir.Path())
	} else if err != nil {
		return err
	}
	keys, _, err := s.privates(x)
	if err != nil {
		return err
	}
	found, err := x.find(pkcs11.NewAttribute(pkcs11.CKA_LABEL, identityLabel(s.name)))
	if err != nil {
		return fmt.Errorf("find the identity: %w", err)
	}
	whole := false
	for _, h := range found {
		belongs, err := s.belongs(x, h, keys)
		switch {
		case gone(err):
			continue
		case err != nil:
			return err
		case belongs:
			ours, err := s.isPublicHalf(x, h)
			if err != nil && !gone(err) {
				return err
			}
			whole = whole || ours
			continue
		}
		if err := s.evict(x, h, "an object with the name of the identity", "it belongs to no key that the token made"); err != nil {
			return err
		}
	}
	if whole {
		return nil
	}
	return s.putBackPublic(x, own)
}

// isPublicHalf reports whether an object is the identity's public key, and only seen by who
// has the PIN.
func (s *Store) isPublicHalf(x *session, h pkcs11.ObjectHandle) (bool, error) {
	for kind, want := range map[uint]*pkcs11.Attribute{
		pkcs11.CKA_CLASS:   pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		pkcs11.CKA_PRIVATE: pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
	} {
		if got, err := x.attribute(h, kind); err != nil || !bytes.Equal(plain(got), want.Value) {
			return false, err
		}
	}
	key, err := x.point(h)
	if errors.Is(err, keystore.ErrCorrupt) {
		return false, nil
	}
	return err == nil && key.Equal(s.identity), err
}

// putBackPublic writes the public half of the identity again: it is what a lost directory is
// made again from. A token that does not take it is none the worse for today.
func (s *Store) putBackPublic(x *session, own pkcs11.ObjectHandle) error {
	id, err := x.attribute(own, pkcs11.CKA_ID)
	if err != nil {
		return fmt.Errorf("read the id of the identity key: %w", err)
	}
	point, err := s.identity.Bytes()
	if err != nil {
		return err
	}
	if point, err = asn1.Marshal(point); err != nil {
		return err
	}
	_, err = x.CreateObject(x.handle, append(s.publicTemplate(id),
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC),
		pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, point)))
	if err != nil && lost(err) {
		return err
	}
	if err != nil {
		s.notes.add(s.log, fmt.Sprintf("The token does not hold the identity's public key, and takes none (%v): keep the directory, it cannot be made again.", err))
		return nil
	}
	s.notes.add(s.log, "The token did not hold the identity's public key where only who has the PIN sees it: it was put back.")
	return nil
}

// belongs reports whether an object is one of these private keys, or the public key of one.
func (s *Store) belongs(x *session, h pkcs11.ObjectHandle, keys []pkcs11.ObjectHandle) (bool, error) {
	if slices.Contains(keys, h) {
		return true, nil
	}
	class, err := x.attribute(h, pkcs11.CKA_CLASS)
	if err != nil || !isClass(class, pkcs11.CKO_PUBLIC_KEY) {
		return false, err
	}
	public, err := x.point(h)
	if errors.Is(err, keystore.ErrCorrupt) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, key := range keys {
		if err := s.prove(x, key, public); !errors.Is(err, errOtherKey) {
			return err == nil, err
		}
	}
	return false, nil
}

// adoptIdentity finds the identity that a lost directory left in the token: a
// key that the token made and never let out, and that signs by a public key of
// the same name.
func (s *Store) adoptIdentity(x *session) (*ecdsa.PublicKey, error) {
	keys, _, err := s.privates(x)
	if err != nil {
		return nil, err
	}
	publics, err := x.find(
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, identityLabel(s.name)))
	if err != nil {
		return nil, fmt.Errorf("find the identity: %w", err)
	}
	var found []*ecdsa.PublicKey
	for _, public := range publics {
		key, err := x.point(public)
		if errors.Is(err, keystore.ErrCorrupt) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, h := range keys {
			err := s.prove(x, h, key)
			if err != nil && !errors.Is(err, errOtherKey) {
				return nil, err
			}
			if err == nil && !slices.ContainsFunc(found, func(f *ecdsa.PublicKey) bool { return f.Equal(key) }) {
				found = append(found, key)
			}
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("token %s: %w: of what it holds by the name %q, no pair of keys was made in it and signs: delete it, or choose another name by object=NAME",
			s.token.where, keystore.ErrForeignDevice, identityLabel(s.name))
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("token %s: %w: it made more than one key by the name %q (one is %s): somebody has had the PIN; delete those that are not the replica's",
		s.token.where, keystore.ErrForeignDevice, identityLabel(s.name), keystore.Fingerprint(found[0]))
}

func isClass(value []byte, class uint) bool {
	return string(value) == string(pkcs11.NewAttribute(pkcs11.CKA_CLASS, class).Value)
}
