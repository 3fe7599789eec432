package hsm

import (
	"errors"
	"testing"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
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
