package hsm

import (
	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// Library is what the keystore asks of a PKCS#11 library.
type Library = cryptoki

// SealingTemplate and IdentityTemplate are the attributes that keys are made with, but the id.
func SealingTemplate(s *Store) []*pkcs11.Attribute  { return s.sealingTraits().given }
func IdentityTemplate(s *Store) []*pkcs11.Attribute { return s.identityTraits().given }

// SealingKeyID returns the id that an envelope names, and what is wrapped by that key.
func SealingKeyID(sealed *statedir.Sealed) (id [32]byte, wrapped []byte) {
	return [32]byte(sealed.Wrapped), sealed.Wrapped[32:]
}

// Associated is what a sealing's key authenticates.
func Associated(id [32]byte) []byte { return associated(id) }

// Intercept puts a library before the loaded one at path, until restore is called.
func Intercept(path string, wrap func(Library) Library) (restore func()) {
	modulesMu.Lock()
	m := modules[path]
	modulesMu.Unlock()
	m.use.Lock()
	defer m.use.Unlock()
	before := m.ctx
	m.ctx = wrap(before)
	return func() {
		m.use.Lock()
		defer m.use.Unlock()
		m.ctx = before
	}
}

// InitOn is Init on another file system.
func InitOn(fs statedir.FS, uri string, o keystore.Options) (*Store, error) {
	dir, t, err := on(fs, uri, o)
	if err != nil {
		return nil, err
	}
	s := newStore(dir, t, o)
	return s, s.initialize(false)
}

// OpenOn is Open on another file system.
func OpenOn(fs statedir.FS, uri string, o keystore.Options) (*Store, error) {
	dir, t, err := on(fs, uri, o)
	if err != nil {
		return nil, err
	}
	return open(dir, t, o)
}

func on(fs statedir.FS, uri string, o keystore.Options) (*statedir.Dir, *token, error) {
	dir, err := statedir.NewFS(fs, o.Dir)
	if err != nil {
		return nil, nil, err
	}
	t, err := connectFor(dir, uri, o)
	return dir, t, err
}
