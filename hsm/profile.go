package hsm

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// profile is what a token can do. It is found out by trying whenever a keystore is
// opened: a file could be changed by somebody who wants secrets sealed worse.
type profile struct {
	mode    mode
	local   bool   // it says which keys it made (CKA_LOCAL)
	guards  []uint // attributes of guardValues that it has
	wrapOut bool   // it lets who has the PIN wrap a key that is never extractable
}

// guardValues keep who has the PIN for a while from renaming a key, so that it is not
// found when it is to be destroyed, from copying it, from wrapping it under a key of his
// own, and from passing off a key that cannot be destroyed as one of the keystore's: no
// epoch would end. Not every token has them all.
var guardValues = map[uint]bool{
	pkcs11.CKA_MODIFIABLE: false, pkcs11.CKA_COPYABLE: false, pkcs11.CKA_WRAP_WITH_TRUSTED: true, pkcs11.CKA_DESTROYABLE: true,
}

// protected are the attributes of a key that was made in the token and stays there.
func (p profile) protected(label string, token bool) traits {
	t := traits{
		given: []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, token),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
			pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
			pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
			pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		},
		told: []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_ALWAYS_SENSITIVE, true),
			pkcs11.NewAttribute(pkcs11.CKA_NEVER_EXTRACTABLE, true),
		},
	}
	for _, guard := range p.guards {
		t.given = append(t.given, pkcs11.NewAttribute(guard, guardValues[guard]))
	}
	if p.local {
		t.told = append(t.told, pkcs11.NewAttribute(pkcs11.CKA_LOCAL, true))
	}
	return t
}

// sealing are the traits of a key that does what the mode needs, and nothing else.
func (p profile) sealing(label string, token bool) traits {
	t := p.protected(label, token)
	t.given = append(t.given, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, statedir.KeySize))
	for _, u := range []struct {
		attribute uint
		mode      mode
	}{
		{pkcs11.CKA_ENCRYPT, modeGCM}, {pkcs11.CKA_DECRYPT, modeGCM}, {pkcs11.CKA_WRAP, modeWrap}, {pkcs11.CKA_UNWRAP, modeWrap},
		{pkcs11.CKA_SIGN, ""}, {pkcs11.CKA_VERIFY, ""}, {pkcs11.CKA_DERIVE, ""},
	} {
		t.given = append(t.given, pkcs11.NewAttribute(u.attribute, u.mode == p.mode))
	}
	t.told = append(t.told,
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES))
	return t
}

// identity are the traits of the identity's private key, which signs and does nothing
// else.
func (p profile) identity(label string) traits {
	t := p.protected(label, true)
	t.given = append(t.given, pkcs11.NewAttribute(pkcs11.CKA_SIGN, true))
	for _, other := range []uint{pkcs11.CKA_DECRYPT, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE, pkcs11.CKA_SIGN_RECOVER} {
		t.given = append(t.given, pkcs11.NewAttribute(other, false))
	}
	t.told = append(t.told,
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC),
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, p256))
	return t
}

// suitable finds out what the token can do. What it lacks is an ErrUnsupported
// with all that is missing in one sentence.
func (s *session) suitable(rand io.Reader) (profile, error) {
	var lacks []string
	ecdsa, err := s.has(pkcs11.CKM_EC_KEY_PAIR_GEN, pkcs11.CKM_ECDSA)
	if err != nil {
		return profile{}, err
	}
	if !ecdsa {
		lacks = append(lacks, "it has no ECDSA for the identity key")
	}
	p, refusals, err := s.chooseMode(rand)
	if err != nil {
		return profile{}, err
	}
	if p.mode == "" {
		lacks = append(lacks, "it can seal neither by "+strings.Join(refusals, " nor by "))
	}
	if len(lacks) > 0 {
		return profile{}, fmt.Errorf("%w: %s", keystore.ErrUnsupported, strings.Join(lacks, ", and "))
	}
	return p, nil
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
// refusals say why. That the token is busy or full says nothing about a mode.
func (s *session) chooseMode(rand io.Reader) (chosen profile, refusals []string, err error) {
	for _, m := range []mode{modeGCM, modeWrap} {
		p, err := s.tryMode(rand, m)
		if err == nil {
			return p, nil, nil
		}
		if absent(err) || exhausted(err) {
			return profile{}, nil, err
		}
		refusals = append(refusals, fmt.Sprintf("%s (%s)", m, strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	return profile{}, refusals, nil
}

// tryMode finds out what a key of the session tells about itself, and then whether
// another one with all the attributes of a sealing's key wraps and unwraps.
func (s *session) tryMode(rand io.Reader, m mode) (p profile, err error) {
	p.mode = m
	err = s.withKey(p, func(h pkcs11.ObjectHandle) error {
		for _, guard := range slices.Sorted(maps.Keys(guardValues)) {
			value, err := s.attribute(h, guard)
			if err != nil {
				return err
			}
			if len(value) == 1 {
				p.guards = append(p.guards, guard)
			}
		}
		value, err := s.attribute(h, pkcs11.CKA_LOCAL)
		p.local = len(value) == 1 && value[0] != 0
		return err
	})
	if err != nil {
		return p, err
	}
	err = s.withKey(p, func(h pkcs11.ObjectHandle) error {
		differs, err := s.differs(h, p.sealing("", false))
		if err == nil && differs != "" {
			err = fmt.Errorf("of a key that it made, %s", differs)
		}
		if err == nil {
			err = s.tryKey(rand, m, h)
		}
		if err == nil {
			p.wrapOut, err = s.wrapsOut(h)
		}
		return err
	})
	return p, err
}

// withKey makes a sealing's key of the session only.
func (s *session) withKey(p profile, use func(h pkcs11.ObjectHandle) error) error {
	h, err := s.GenerateKey(s.handle, mechanism(pkcs11.CKM_AES_KEY_GEN), p.sealing("", false).given)
	if err != nil {
		return fmt.Errorf("make an AES key: %w", err)
	}
	return errors.Join(use(h), s.DestroyObject(s.handle, h))
}

// tryKey wraps and unwraps, and checks that a changed ciphertext does not do.
func (s *session) tryKey(rand io.Reader, m mode, by pkcs11.ObjectHandle) error {
	key := make([]byte, statedir.KeySize)
	if _, err := io.ReadFull(rand, key); err != nil {
		return fmt.Errorf("randomness: %w", err)
	}
	id, err := newKeyID(rand, 1, 1)
	if err != nil {
		return err
	}
	wrapped, err := m.wrap(s, rand, by, id, key)
	if err != nil {
		return err
	}
	wrapped[len(wrapped)-1] ^= 1
	if _, err := m.unwrap(s, by, id, wrapped); err == nil {
		return errors.New("the token accepts a forged ciphertext")
	}
	return nil
}

// wrapsOut reports whether the token wraps a key that is never extractable under a key
// that its user brought along. That it cannot be tried says that it does not.
func (s *session) wrapsOut(h pkcs11.ObjectHandle) (bool, error) {
	by, err := s.CreateObject(s.handle, append(transient(),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, true), pkcs11.NewAttribute(pkcs11.CKA_VALUE, make([]byte, statedir.KeySize))))
	if err != nil {
		if absent(err) || exhausted(err) {
			return false, err
		}
		return false, nil
	}
	wraps := false
	for _, m := range []uint{pkcs11.CKM_AES_KEY_WRAP, pkcs11.CKM_AES_KEY_WRAP_PAD} {
		_, err := s.WrapKey(s.handle, mechanism(m), by, h)
		wraps = wraps || err == nil
	}
	return wraps, s.DestroyObject(s.handle, by)
}
