package keystore

import (
	"errors"
	"fmt"
)

// Errors that callers act on. Compare with errors.Is.
var (
	ErrNotFound      = errors.New("nothing is sealed for this epoch")
	ErrErased        = errors.New("the epoch is over and its secret is erased")
	ErrOwned         = errors.New("the TPM has an owner")
	ErrNotApproved   = errors.New("the machine did not boot into an approved state")
	ErrUnclaimed     = errors.New("this process did not claim the boot: call Claim after Unseal")
	ErrClaimed       = errors.New("this boot was claimed already: reboot the machine")
	ErrForeignDevice = errors.New("this was not made by this device")
	ErrCleared       = fmt.Errorf("%w: the TPM was cleared since", ErrForeignDevice)
	ErrUnavailable   = errors.New("the device does not answer")
	ErrUnsupported   = errors.New("the device cannot do this")
	ErrTooLarge      = fmt.Errorf("the secret is larger than %d bytes", MaxSecret)
	ErrCorrupt       = errors.New("the file is damaged")
	ErrExists        = errors.New("a keystore is already there")
	ErrNoKeystore    = errors.New("there is no keystore: name its directory, or put that back if it is lost; `reseal keystore init` makes a new one, which is another replica's identity")
	ErrWrongPIN      = errors.New("the PIN or passphrase is wrong")
	ErrPINLocked     = errors.New("the PIN is locked, or the next wrong try would lock it")
	ErrClosed        = errors.New("the keystore is closed")
	ErrInvalid       = errors.New("the attestation does not hold")
	ErrOtherKey      = errors.New("its signature is not that of the attestation key")
	ErrOtherNonce    = errors.New("it answers another nonce")
)

// Lost reports whether an error of Unseal means that the secret of the epoch is
// not to be had from this device, now or later, while the keystore itself is in
// order: nothing was sealed, it was erased, or what was sealed is damaged, be it
// of length zero. The replica goes on without a share, and the group issues a
// new one.
func Lost(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrErased) || errors.Is(err, ErrCorrupt)
}

// RefusedError says that the device itself refused to unseal: no bookkeeping of
// this program stood in between.
type RefusedError struct {
	Device string // which device refused, for example "TPM"
	Epoch  uint64 // what it was asked for
	Reason error  // ErrErased, ErrNotApproved or ErrForeignDevice
	Detail string // what the device answered, and to which question
}

// Error tells in one line who refused what, and why.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("the %s refused to unseal epoch %d: %v (%s)", e.Device, e.Epoch, e.Reason, e.Detail)
}

// Unwrap returns the reason, for errors.Is.
func (e *RefusedError) Unwrap() error { return e.Reason }
