package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

const maxSessions = 16 // of the pool of one keystore

// token is a token that is found and logged into again when it was lost.
type token struct {
	module *module
	where  *locator
	pin    keystore.Secret
	pins   pinMemory
	log    *slog.Logger
	slots  chan struct{} // bounds the sessions in use

	mu         sync.Mutex
	returned   sync.Cond // a session came back; with mu
	connected  bool
	generation uint64 // of the module, when connected
	connection uint64 // counts connections
	slot       uint
	info       pkcs11.TokenInfo
	free       []pkcs11.SessionHandle // at least one is open, which keeps the login
	busy       int                    // sessions in use
	refused    error                  // the PIN was wrong: do not try it again
}

// newToken connects to a token.
func newToken(l *locator, pin keystore.Secret, dir *statedir.Dir, log *slog.Logger) (*token, error) {
	m, err := loadModule(l.module, l.setup)
	if err != nil {
		return nil, err
	}
	own := keystore.NewSecret(bytes.Clone(pin.Reveal()))
	t := &token{module: m, where: l, pin: own, pins: pinMemory{dir}, log: log, slots: make(chan struct{}, maxSessions)}
	t.returned.L = &t.mu
	if err := t.do(func(*session) error { return nil }); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// session is a session of the pool in the hands of one caller.
type session struct {
	cryptoki
	token      *token
	handle     pkcs11.SessionHandle
	connection uint64
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
			return advise(err)
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
	x, err := t.take()
	if err != nil {
		return seen, err
	}
	err = f(x)
	t.put(x, err)
	return seen, err
}

// lost reports errors after which it helps to connect again. CKR_GENERAL_ERROR
// is among them as SoftHSM returns it when its files are gone, but also for a
// forged ciphertext: so it must not mean that the token is lost for good.
func lost(err error) bool {
	if absent(err) {
		return true
	}
	return isCode(err, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_USER_NOT_LOGGED_IN,
		pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_GENERAL_ERROR)
}

// absent reports errors after which the module has to look for tokens anew: the
// token is not there, or it is there and empty.
func absent(err error) bool {
	if errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrForeignDevice) {
		return true
	}
	return isCode(err, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_DEVICE_REMOVED,
		pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_SLOT_ID_INVALID, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)
}

// exhausted reports errors that go away when others let go of what they hold.
func exhausted(err error) bool {
	return isCode(err, pkcs11.CKR_SESSION_COUNT, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_HOST_MEMORY)
}

// advise says what a person can do about a token that is exhausted.
func advise(err error) error {
	switch {
	case isCode(err, pkcs11.CKR_SESSION_COUNT):
		return fmt.Errorf("other programs hold all the sessions of the token: end them: %w", err)
	case isCode(err, pkcs11.CKR_DEVICE_MEMORY):
		return fmt.Errorf("the token is full: delete objects on it that nobody needs (pkcs11-tool --list-objects): %w", err)
	}
	return err
}

// take returns a session that is logged in. When the token gives no more sessions,
// it waits for one that another caller has.
func (t *token) take() (*session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		if !t.connected || t.generation != t.module.generation {
			if err := t.connect(); err != nil {
				return nil, err
			}
		}
		h, err := t.freeSession()
		if err == nil {
			t.busy++
			return &session{cryptoki: t.module.ctx, token: t, handle: h, connection: t.connection}, nil
		}
		if !isCode(err, pkcs11.CKR_SESSION_COUNT) || t.busy == 0 {
			return nil, err
		}
		t.returned.Wait()
	}
}

// freeSession takes a session out of the pool, or opens one.
func (t *token) freeSession() (pkcs11.SessionHandle, error) {
	if n := len(t.free); n > 0 {
		h := t.free[n-1]
		t.free = t.free[:n-1]
		return h, nil
	}
	return t.openSession()
}

// put gives a session back, unless it may be no good any more.
func (t *token) put(x *session, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy--
	if lost(err) || x.connection != t.connection || !t.connected {
		_ = t.module.ctx.CloseSession(x.handle)
	} else {
		t.free = append(t.free, x.handle)
	}
	t.returned.Signal()
}

func (t *token) openSession() (pkcs11.SessionHandle, error) {
	h, err := t.module.ctx.OpenSession(t.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return 0, fmt.Errorf("open a session with token %s: %w", t.where, err)
	}
	return h, nil
}

// information returns what the token said of itself when it was connected to.
func (t *token) information() pkcs11.TokenInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.info
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
	t.free = nil
	first, err := t.openSession()
	if err != nil {
		return err
	}
	if err := t.login(first); err != nil {
		_ = t.module.ctx.CloseSession(first)
		return err
	}
	t.free = append(t.free, first)
	t.connected, t.generation = true, t.module.generation
	t.connection++
	return nil
}

// login logs in. It does not use up the last try of a PIN, and does not try a
// PIN again that was wrong, now or in an earlier process.
func (t *token) login(with pkcs11.SessionHandle) error {
	serial := trim(t.info.SerialNumber)
	switch {
	case t.info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return fmt.Errorf("token %s: %w: its security officer can set a new one", t.where, keystore.ErrPINLocked)
	case t.info.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return fmt.Errorf("token %s: %w: one try is left; log in once with another tool, with the right PIN, which gives the others back", t.where, keystore.ErrPINLocked)
	}
	if err := t.pins.check(serial, t.pin); err != nil {
		t.refused = fmt.Errorf("token %s: %w", t.where, err)
		return t.refused
	}
	if t.info.Flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0 {
		t.log.Warn("a wrong PIN was tried on the token since the last login", "token", t.where.String())
	}
	err := t.module.ctx.Login(with, pkcs11.CKU_USER, string(t.pin.Reveal()))
	switch {
	case err == nil:
		return t.pins.forget()
	case isCode(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN): // by another keystore of this process
		return nil
	case isCode(err, pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE):
		t.refused = fmt.Errorf("token %s: %w: give another one; this one will not be tried again", t.where, keystore.ErrWrongPIN)
		if err := t.pins.add(serial, t.pin); err != nil {
			t.refused = fmt.Errorf("%w (by this process: it could not be written down: %w)", t.refused, err)
		}
		return t.refused
	case isCode(err, pkcs11.CKR_PIN_LOCKED):
		t.refused = fmt.Errorf("token %s: %w: its security officer can set a new one", t.where, keystore.ErrPINLocked)
		return t.refused
	case isCode(err, pkcs11.CKR_USER_PIN_NOT_INITIALIZED):
		return fmt.Errorf("token %s has no user PIN yet: set one with its own tool", t.where)
	}
	return fmt.Errorf("token %s: log in: %w", t.where, err)
}

// disconnect forgets the sessions; the next operation connects.
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
		for _, h := range t.free {
			_ = t.module.ctx.CloseSession(h)
		}
	}
	t.free = nil
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
