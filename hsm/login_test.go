package hsm

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
	"github.com/stretchr/testify/require"
)

// TestLastTry: no PIN is tried when the token says that the next wrong one locks
// it, or that it is locked. The token here would panic if it were asked.
func TestLastTry(t *testing.T) {
	for _, flags := range []uint{
		pkcs11.CKF_USER_PIN_LOCKED,
		pkcs11.CKF_USER_PIN_FINAL_TRY,
		pkcs11.CKF_USER_PIN_FINAL_TRY | pkcs11.CKF_USER_PIN_COUNT_LOW,
	} {
		tok := &token{where: &locator{label: "x"}, info: pkcs11.TokenInfo{Flags: flags}}
		require.ErrorIs(t, tok.login(0), keystore.ErrPINLocked)
	}
}

// TestRefusedPIN: a PIN that was wrong is not tried again.
func TestRefusedPIN(t *testing.T) {
	refused := errors.New("wrong once")
	tok := &token{refused: refused}
	require.ErrorIs(t, tok.connect(), refused)
}

// lock is a library with one token that counts wrong PINs, and locks at the third.
type lock struct {
	cryptoki
	serial, right string
	wrong, tries  int
}

func (l *lock) GetSlotList(bool) ([]uint, error) { return []uint{0}, nil }

func (l *lock) GetTokenInfo(uint) (pkcs11.TokenInfo, error) {
	flags := uint(pkcs11.CKF_TOKEN_INITIALIZED)
	for least, flag := range map[int]uint{1: pkcs11.CKF_USER_PIN_COUNT_LOW, 2: pkcs11.CKF_USER_PIN_FINAL_TRY, 3: pkcs11.CKF_USER_PIN_LOCKED} {
		if l.wrong >= least {
			flags |= flag
		}
	}
	return pkcs11.TokenInfo{Label: "x", SerialNumber: l.serial, Flags: flags}, nil
}

func (l *lock) OpenSession(uint, uint) (pkcs11.SessionHandle, error) { return 1, nil }
func (l *lock) CloseSession(pkcs11.SessionHandle) error              { return nil }

func (l *lock) Login(_ pkcs11.SessionHandle, _ uint, pin string) error {
	l.tries++
	if pin == l.right {
		l.wrong = 0
		return nil
	}
	l.wrong++
	return pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)
}

// start is a process that opens the token.
func (l *lock) start(t *testing.T, path, pin string) (log *bytes.Buffer, err error) {
	t.Helper()
	log = new(bytes.Buffer)
	dir, err := statedir.New(path)
	require.NoError(t, err)
	tok := &token{module: &module{ctx: l}, where: &locator{label: "x"}, pin: keystore.NewSecret([]byte(pin)), pins: pinMemory{dir}, log: slog.New(slog.NewTextHandler(log, nil))}
	return log, tok.connect()
}

// cheapPINs lowers the cost of remembering a PIN until it is undone.
func cheapPINs() (undo func()) {
	before := scryptN
	scryptN = 1 << 4
	return func() { scryptN = before }
}

// TestServiceWithWrongPIN: a service that is started again and again with a PIN that is wrong uses
// up one try.
func TestServiceWithWrongPIN(t *testing.T) {
	defer cheapPINs()()
	path := filepath.Join(t.TempDir(), "keystore")
	l := &lock{serial: "1", right: "right"}
	for range 3 {
		_, err := l.start(t, path, "wrong")
		require.ErrorIs(t, err, keystore.ErrWrongPIN)
		require.NotContains(t, err.Error(), "wrong\"")
	}
	require.Equal(t, 1, l.tries)
	_, err := l.start(t, path, "wrong")
	require.ErrorContains(t, err, "delete "+refusedFile)
	written, err := os.ReadFile(filepath.Join(path, refusedFile))
	require.NoError(t, err)
	require.NotContains(t, string(written), "wrong")

	log, err := l.start(t, path, "wrong too")
	require.ErrorIs(t, err, keystore.ErrWrongPIN)
	require.Contains(t, log.String(), "a wrong PIN was tried")
	for _, pin := range []string{"wrong", "wrong too", "another", "right"} {
		_, err := l.start(t, path, pin)
		require.ErrorIs(t, err, keystore.ErrPINLocked, "the last try is nobody's")
	}
	require.Equal(t, 2, l.tries)

	// Somebody logs in by hand. Both are still remembered, until the right one is given.
	l.wrong = 0
	for _, pin := range []string{"wrong", "wrong too"} {
		_, err := l.start(t, path, pin)
		require.ErrorIs(t, err, keystore.ErrWrongPIN)
	}
	require.Equal(t, 2, l.tries)
	_, err = l.start(t, path, "right")
	require.NoError(t, err)
	require.NoFileExists(t, filepath.Join(path, refusedFile))

	// What one token refused may be another's PIN.
	_, err = l.start(t, path, "wrong")
	require.ErrorIs(t, err, keystore.ErrWrongPIN)
	other := &lock{serial: "2", right: "wrong"}
	_, err = other.start(t, path, "wrong")
	require.NoError(t, err)
}

// TestDamagedMemory: a file of refused PINs that somebody damaged costs one try, and keeps nobody out.
func TestDamagedMemory(t *testing.T) {
	defer cheapPINs()()
	for _, content := range []string{"", "{", "null", `{"version":1,"serial":"1","salt":"AA==","hashes":["AA=="]}`, strings.Repeat("x", 1<<20)} {
		path := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(path, refusedFile), []byte(content), 0o600))
		l := &lock{serial: "1", right: "right"}
		_, err := l.start(t, path, "wrong")
		require.ErrorIs(t, err, keystore.ErrWrongPIN)
		_, err = l.start(t, path, "wrong")
		require.ErrorIs(t, err, keystore.ErrWrongPIN)
		require.Equal(t, 1, l.tries)
		_, err = l.start(t, path, "right")
		require.NoError(t, err)
	}
}

// TestLost tells errors after which it helps to connect again from those that
// are answers.
func TestLost(t *testing.T) {
	for _, code := range []uint{
		pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_OBJECT_HANDLE_INVALID,
		pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED,
	} {
		require.True(t, lost(pkcs11.Error(code)), "%#x", code)
	}
	for _, err := range []error{
		nil, errors.New("other"), keystore.ErrErased, pkcs11.Error(pkcs11.CKR_PIN_INCORRECT),
		pkcs11.Error(pkcs11.CKR_MECHANISM_INVALID), pkcs11.Error(pkcs11.CKR_WRAPPED_KEY_INVALID),
	} {
		require.False(t, lost(err), "%v", err)
	}
}
