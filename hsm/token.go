package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
)

const maxSessions = 16 // of the pool of one keystore

// token is a token that is found and logged into again when it was lost.
type token struct {
	module *module
	where  *locator
	pin    keystore.Secret
	slots  chan struct{} // bounds the sessions in use

	mu         sync.Mutex
	connected  bool
	generation uint64 // of the module, when connected
	slot       uint
	info       pkcs11.TokenInfo
	anchor     pkcs11.SessionHandle // keeps the login while no other session is open
	free       []pkcs11.SessionHandle
	handles    map[string]pkcs11.ObjectHandle // of objects by label
	refused    error                          // the PIN was wrong: do not try it again
}

// newToken connects to a token.
func newToken(l *locator, pin keystore.Secret) (*token, error) {
	m, err := loadModule(l.module, l.setup)
	if err != nil {
		return nil, err
	}
	own := keystore.NewSecret(bytes.Clone(pin.Reveal()))
	t := &token{module: m, where: l, pin: own, slots: make(chan struct{}, maxSessions)}
	if err := t.do(func(*session) error { return nil }); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// session is a session of the pool in the hands of one caller.
type session struct {
	*pkcs11.Ctx
	token  *token
	handle pkcs11.SessionHandle
}

// maxTries of an operation: as it is, connected again, and with the library
// looking for its tokens anew.
const maxTries = 3

// do calls f with a session. When the token lost the session, an object or
// itself, it is connected to again and f is called again; so f does nothing
// that must not be done twice.
func (t *token) do(f func(s *session) error) error {
	t.slots <- struct{}{}
	defer func() { <-t.slots }()
	for try := 1; ; try++ {
		seen, err := t.try(f)
		if !lost(err) {
			return err
		}
		t.disconnect()
		if try == maxTries {
			return err
		}
		if absent(err) {
			if err := t.module.reload(seen); err != nil {
				return err
			}
		}
	}
}

// try calls f once, and returns the generation of the module it ran in.
func (t *token) try(f func(s *session) error) (uint64, error) {
	t.module.use.RLock()
	defer t.module.use.RUnlock()
	seen := t.module.generation
	h, err := t.take()
	if err != nil {
		return seen, err
	}
	err = f(&session{Ctx: t.module.ctx, token: t, handle: h})
	t.put(h, err)
	return seen, err
}

// lost reports errors after which it helps to connect again. CKR_GENERAL_ERROR
// is among them as SoftHSM returns it when its files are gone, but also for a
// forged ciphertext: so it must not mean that the token is lost for good.
func lost(err error) bool {
	if absent(err) {
		return true
	}
	var code pkcs11.Error
	if !errors.As(err, &code) {
		return false
	}
	switch uint(code) {
	case pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_USER_NOT_LOGGED_IN,
		pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_GENERAL_ERROR:
		return true
	}
	return false
}

// absent reports errors after which the module has to look for tokens anew: the
// token is not there, or it is there and empty.
func absent(err error) bool {
	if errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrForeignDevice) {
		return true
	}
	var code pkcs11.Error
	if !errors.As(err, &code) {
		return false
	}
	switch uint(code) {
	case pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_DEVICE_REMOVED,
		pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_SLOT_ID_INVALID, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED:
		return true
	}
	return false
}

// take returns a session that is logged in.
func (t *token) take() (pkcs11.SessionHandle, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.connected || t.generation != t.module.generation {
		if err := t.connect(); err != nil {
			return 0, err
		}
	}
	if n := len(t.free); n > 0 {
		h := t.free[n-1]
		t.free = t.free[:n-1]
		return h, nil
	}
	return t.openSession()
}

// put gives a session back, unless it may be no good any more.
func (t *token) put(h pkcs11.SessionHandle, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if lost(err) {
		_ = t.module.ctx.CloseSession(h)
		return
	}
	t.free = append(t.free, h)
}

func (t *token) openSession() (pkcs11.SessionHandle, error) {
	h, err := t.module.ctx.OpenSession(t.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return 0, fmt.Errorf("open a session with token %s: %w", t.where, err)
	}
	return h, nil
}

// connect finds the token and logs in.
func (t *token) connect() error {
	if t.refused != nil {
		return t.refused
	}
	var err error
	if t.slot, t.info, err = t.module.find(t.where); err != nil {
		return err
	}
	t.free, t.handles = nil, make(map[string]pkcs11.ObjectHandle)
	if t.anchor, err = t.openSession(); err != nil {
		return err
	}
	if err := t.login(); err != nil {
		_ = t.module.ctx.CloseSession(t.anchor)
		return err
	}
	t.connected, t.generation = true, t.module.generation
	return nil
}

// login logs in. It does not use up the last try of a PIN, and does not try a
// PIN again that was wrong.
func (t *token) login() error {
	switch {
	case t.info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return fmt.Errorf("token %s: %w: its security officer can set a new one", t.where, keystore.ErrPINLocked)
	case t.info.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return fmt.Errorf("token %s: %w: one try is left; log in once with another tool, with the right PIN", t.where, keystore.ErrPINLocked)
	}
	err := t.module.ctx.Login(t.anchor, pkcs11.CKU_USER, string(t.pin.Reveal()))
	var code pkcs11.Error
	if err == nil || !errors.As(err, &code) {
		return err
	}
	switch uint(code) {
	case pkcs11.CKR_USER_ALREADY_LOGGED_IN: // by another keystore of this process
		return nil
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE:
		t.refused = fmt.Errorf("token %s: %w", t.where, keystore.ErrWrongPIN)
		return t.refused
	case pkcs11.CKR_PIN_LOCKED:
		t.refused = fmt.Errorf("token %s: %w", t.where, keystore.ErrPINLocked)
		return t.refused
	case pkcs11.CKR_USER_PIN_NOT_INITIALIZED:
		return fmt.Errorf("token %s has no user PIN yet: set one with its own tool", t.where)
	}
	return fmt.Errorf("token %s: log in: %w", t.where, err)
}

// disconnect forgets the sessions and handles; the next operation connects.
func (t *token) disconnect() {
	t.module.use.RLock()
	defer t.module.use.RUnlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closeSessions()
}

// closeSessions closes what is open. Errors do not matter: a session that
// cannot be closed is gone.
func (t *token) closeSessions() {
	if !t.connected {
		return
	}
	t.connected = false
	if t.generation == t.module.generation {
		for _, h := range append(t.free, t.anchor) {
			_ = t.module.ctx.CloseSession(h)
		}
	}
	t.free, t.handles = nil, nil
}

// close ends the sessions and gives the module back. No operation may run.
func (t *token) close() error {
	t.disconnect()
	t.pin.Wipe()
	return t.module.release()
}

// String names the token for an error message.
func (l *locator) String() string {
	if l.label == "" {
		return fmt.Sprintf("with serial number %q", l.serial)
	}
	return fmt.Sprintf("%q", l.label)
}

// trim removes the padding of PKCS#11 strings.
func trim(s string) string { return strings.TrimRight(s, " \x00") }
