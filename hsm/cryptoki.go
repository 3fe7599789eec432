package hsm

import "github.com/miekg/pkcs11"

// cryptoki is what the keystore asks of a PKCS#11 library. *pkcs11.Ctx is one; tests put another
// before it, which dies at a chosen call, or lies.
type cryptoki interface {
	Initialize(opts ...pkcs11.InitializeOption) error
	Finalize() error
	Destroy()

	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
	GetMechanismList(slot uint) ([]*pkcs11.Mechanism, error)
	OpenSession(slot, flags uint) (pkcs11.SessionHandle, error)
	CloseSession(s pkcs11.SessionHandle) error
	Login(s pkcs11.SessionHandle, user uint, pin string) error

	FindObjectsInit(s pkcs11.SessionHandle, template []*pkcs11.Attribute) error
	FindObjects(s pkcs11.SessionHandle, most int) ([]pkcs11.ObjectHandle, bool, error)
	FindObjectsFinal(s pkcs11.SessionHandle) error
	GetAttributeValue(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, a []*pkcs11.Attribute) ([]*pkcs11.Attribute, error)
	CreateObject(s pkcs11.SessionHandle, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	DestroyObject(s pkcs11.SessionHandle, o pkcs11.ObjectHandle) error

	GenerateKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	GenerateKeyPair(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pub, priv pkcs11.ObjectHandle, err error)
	EncryptInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, key pkcs11.ObjectHandle) error
	Encrypt(s pkcs11.SessionHandle, message []byte) ([]byte, error)
	DecryptInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, key pkcs11.ObjectHandle) error
	Decrypt(s pkcs11.SessionHandle, ciphertext []byte) ([]byte, error)
	WrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, by, key pkcs11.ObjectHandle) ([]byte, error)
	UnwrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, by pkcs11.ObjectHandle, wrapped []byte, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	SignInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, key pkcs11.ObjectHandle) error
	Sign(s pkcs11.SessionHandle, message []byte) ([]byte, error)
}

var _ cryptoki = (*pkcs11.Ctx)(nil)
