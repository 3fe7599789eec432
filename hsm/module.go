package hsm

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/internal/files"
	"github.com/reseal-bft/reseal/keystore"
)

// module is a PKCS#11 library. A process can initialise a library once only, so
// all keystores of the process share it: users counts them, and the last one
// unloads it.
type module struct {
	path  string
	setup setup
	ctx   cryptoki
	users int

	// use is held for reading during calls, and for writing while the library
	// is initialised anew, which ends all sessions.
	use sync.RWMutex
	// generation counts initialisations.
	generation uint64
}

// modules are the libraries in use by path, as the library itself is global.
var (
	modulesMu sync.Mutex
	modules   = make(map[string]*module)
)

// loadModule loads and initialises a library, or shares the loaded one.
func loadModule(path string, want setup) (*module, error) {
	modulesMu.Lock()
	defer modulesMu.Unlock()
	if m, ok := modules[path]; ok {
		if m.setup != want {
			return nil, fmt.Errorf("%s is in use in this process with another configuration: use one process for each", path)
		}
		m.users++
		return m, nil
	}
	if file, err := files.Open(path); errors.Is(err, files.ErrNotRegular) {
		return nil, fmt.Errorf("module-path: %w", err) // the loader would wait for a pipe; what has no slash it looks for itself
	} else if err == nil {
		file.Close()
	}
	ctx := pkcs11.New(path)
	if ctx == nil {
		return nil, fmt.Errorf("%s: %w: it is not there or not a PKCS#11 library: check module-path", path, keystore.ErrUnavailable)
	}
	if err := initialize(ctx, want); err != nil {
		ctx.Destroy()
		return nil, fmt.Errorf("%s: %w: C_Initialize: %w", path, keystore.ErrUnavailable, err)
	}
	m := &module{path: path, setup: want, ctx: ctx, users: 1}
	modules[path] = m
	return m, nil
}

// initialize calls C_Initialize; it is no error that somebody else in the
// process did.
func initialize(ctx cryptoki, want setup) error {
	if want.softHSM != "" {
		// SoftHSM has no other way; nothing else reads the variable.
		if err := os.Setenv("SOFTHSM2_CONF", want.softHSM); err != nil {
			return err
		}
	}
	var opts []pkcs11.InitializeOption
	if want.reserved != "" {
		// A C string, which the library reads during the call.
		text := append([]byte(want.reserved), 0)
		opts = append(opts, pkcs11.InitializeWithReserved(unsafe.Pointer(unsafe.SliceData(text))))
	}
	err := ctx.Initialize(opts...)
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		return nil
	}
	return err
}

// release gives the library back.
func (m *module) release() error {
	modulesMu.Lock()
	defer modulesMu.Unlock()
	m.users--
	if m.users > 0 {
		return nil
	}
	delete(modules, m.path)
	err := m.ctx.Finalize()
	m.ctx.Destroy()
	return err
}

// reload initialises the library anew, unless somebody did since generation
// seen: libraries look for tokens only then.
func (m *module) reload(seen uint64) error {
	m.use.Lock()
	defer m.use.Unlock()
	if m.generation != seen {
		return nil
	}
	m.generation++
	finalizeErr := m.ctx.Finalize()
	if err := initialize(m.ctx, m.setup); err != nil {
		return fmt.Errorf("%s: %w: C_Initialize: %w", m.path, keystore.ErrUnavailable, errors.Join(err, finalizeErr))
	}
	return nil
}

// find returns the slot that the token is in now.
func (m *module) find(l *locator) (uint, pkcs11.TokenInfo, error) {
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return 0, pkcs11.TokenInfo{}, fmt.Errorf("%s: %w: list slots: %w", m.path, keystore.ErrUnavailable, err)
	}
	var found []uint
	var info pkcs11.TokenInfo
	for _, slot := range slots {
		t, err := m.ctx.GetTokenInfo(slot)
		if err != nil || t.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			continue
		}
		if (l.label == "" || trim(t.Label) == l.label) && (l.serial == "" || trim(t.SerialNumber) == l.serial) {
			found, info = append(found, slot), t
		}
	}
	switch len(found) {
	case 0:
		return 0, info, fmt.Errorf("%s: %w: there is no token %s", m.path, keystore.ErrUnavailable, l)
	case 1:
		return found[0], info, nil
	}
	return 0, info, fmt.Errorf("%s: %d tokens are called %s: name one by serial=NUMBER", m.path, len(found), l)
}
