package hsm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

const (
	findBatch = 256     // handles that are asked for at a time
	maxFound  = 1 << 16 // handles that are kept of one search
)

// errTold is returned for an answer that is none: it is no reason to destroy what
// was asked about.
var errTold = errors.New("the token was asked for attributes of an object, and told others")

// find lists the objects that have these attributes, the first maxFound of them.
func (s *session) find(template ...*pkcs11.Attribute) (found []pkcs11.ObjectHandle, err error) {
	if err := s.FindObjectsInit(s.handle, template); err != nil {
		return nil, err
	}
	for len(found) < maxFound {
		var batch []pkcs11.ObjectHandle
		if batch, _, err = s.FindObjects(s.handle, findBatch); err != nil || len(batch) == 0 {
			break
		}
		found = append(found, batch...)
	}
	return found, errors.Join(err, s.FindObjectsFinal(s.handle))
}

// traits are the attributes of a kind of object: those that it is made with, and those that only
// the token sets. The token is asked for all of them whenever the object is used.
type traits struct {
	given []*pkcs11.Attribute
	told  []*pkcs11.Attribute
}

// attributeNames are those of the attributes that traits have.
var attributeNames = map[uint]string{
	pkcs11.CKA_CLASS: "CLASS", pkcs11.CKA_KEY_TYPE: "KEY_TYPE", pkcs11.CKA_LABEL: "LABEL", pkcs11.CKA_ID: "ID",
	pkcs11.CKA_TOKEN: "TOKEN", pkcs11.CKA_PRIVATE: "PRIVATE", pkcs11.CKA_VALUE_LEN: "VALUE_LEN", pkcs11.CKA_EC_PARAMS: "EC_PARAMS",
	pkcs11.CKA_SENSITIVE: "SENSITIVE", pkcs11.CKA_ALWAYS_SENSITIVE: "ALWAYS_SENSITIVE",
	pkcs11.CKA_EXTRACTABLE: "EXTRACTABLE", pkcs11.CKA_NEVER_EXTRACTABLE: "NEVER_EXTRACTABLE", pkcs11.CKA_LOCAL: "LOCAL",
	pkcs11.CKA_MODIFIABLE: "MODIFIABLE", pkcs11.CKA_COPYABLE: "COPYABLE", pkcs11.CKA_WRAP_WITH_TRUSTED: "WRAP_WITH_TRUSTED", pkcs11.CKA_DESTROYABLE: "DESTROYABLE",
	pkcs11.CKA_ENCRYPT: "ENCRYPT", pkcs11.CKA_DECRYPT: "DECRYPT", pkcs11.CKA_WRAP: "WRAP", pkcs11.CKA_UNWRAP: "UNWRAP",
	pkcs11.CKA_SIGN: "SIGN", pkcs11.CKA_VERIFY: "VERIFY", pkcs11.CKA_DERIVE: "DERIVE", pkcs11.CKA_SIGN_RECOVER: "SIGN_RECOVER",
}

// differs asks the token in what an object differs from the traits: "" in nothing. An error is one
// of the token's.
func (s *session) differs(h pkcs11.ObjectHandle, t traits) (string, error) {
	var want, template []*pkcs11.Attribute
	want = append(append(want, t.given...), t.told...)
	for _, w := range want {
		template = append(template, pkcs11.NewAttribute(w.Type, nil))
	}
	got, err := s.GetAttributeValue(s.handle, h, template)
	switch {
	case isCode(err, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_SENSITIVE):
		return "it is another kind of object", nil
	case err != nil:
		return "", fmt.Errorf("read the attributes of an object: %w", err)
	case len(got) != len(want):
		return "", errTold
	}
	for i, w := range want {
		if got[i].Type != w.Type || w.Type == pkcs11.CKA_CLASS && len(got[i].Value) == 0 {
			return "", errTold
		}
	}
	for i, w := range want {
		if !bytes.Equal(plain(got[i].Value), plain(w.Value)) {
			return "its " + attributeNames[w.Type] + " is not what this keystore sets", nil
		}
	}
	return "", nil
}

// plain gives truth one form: any byte but zero is CK_TRUE to some libraries.
func plain(value []byte) []byte {
	if len(value) == 1 && value[0] != 0 {
		return []byte{1}
	}
	return value
}

// attribute reads one attribute, nil when the object has none.
func (s *session) attribute(h pkcs11.ObjectHandle, kind uint) ([]byte, error) {
	got, err := s.GetAttributeValue(s.handle, h, []*pkcs11.Attribute{pkcs11.NewAttribute(kind, nil)})
	if isCode(err, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_SENSITIVE) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(got) != 1 || got[0].Type != kind {
		return nil, errTold
	}
	return got[0].Value, nil
}

// gone reports that an object was destroyed by somebody else in the meantime.
func gone(err error) bool { return isCode(err, pkcs11.CKR_OBJECT_HANDLE_INVALID) }

// isCode reports an error with one of these codes.
func isCode(err error, codes ...uint) bool {
	var code pkcs11.Error
	if !errors.As(err, &code) {
		return false
	}
	for _, c := range codes {
		if uint(code) == c {
			return true
		}
	}
	return false
}

// evict destroys an object that this keystore did not make, and reports it.
func (s *Store) evict(x *session, h pkcs11.ObjectHandle, what, differs string) error {
	if !s.rules.evicts() {
		return nil
	}
	// Objects that are not private, as PKCS#11 calls it, can be made without the PIN.
	who := "Somebody has had the PIN: change it."
	if private, err := x.attribute(h, pkcs11.CKA_PRIVATE); err == nil && len(private) == 1 && private[0] == 0 {
		who = "That takes no PIN: anybody who reaches the token can put it there."
	}
	if err := x.DestroyObject(x.handle, h); err != nil && !gone(err) {
		// What the token does not let go is not used all the same.
		s.notes.add(s.log, fmt.Sprintf("The token holds %s that this keystore did not make, and does not destroy it (%v): %s.", what, err, differs))
		if lost(err) {
			return err
		}
		return nil
	}
	s.notes.add(s.log, fmt.Sprintf("The token held %s that this keystore did not make: %s. It was destroyed. %s", what, differs, who))
	return nil
}

func mechanism(m uint) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(m, nil)}
}
