package hsm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// Seal implements keystore.Keystore.
func (s *Store) Seal(epoch uint64, secret []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch < s.epoch {
		return fmt.Errorf("seal for epoch %d: %w: the current epoch is %d", epoch, keystore.ErrErased, s.epoch)
	}
	envelope := statedir.Sealed{Kind: statedir.KindPKCS11, Epoch: epoch}
	sealed, err := statedir.Seal(s.rand, envelope, secret, func(key []byte) (wrapped []byte, err error) {
		err = s.do(func(x *session) error {
			by, err := x.ensureEpochKey(s.name, epoch, s.mode)
			if err != nil {
				return err
			}
			wrapped, err = s.mode.wrap(x, s.rand, by, epoch, key)
			return err
		})
		return wrapped, err
	})
	if err != nil {
		return fmt.Errorf("seal for epoch %d: %w", epoch, err)
	}
	if err := s.dir.PutSealed(sealed); err != nil || epoch == s.epoch {
		return err
	}
	return s.dir.RemoveAfter(s.epoch, epoch)
}

// Unseal implements keystore.Keystore. When there is an envelope for the epoch,
// it is the token that decides.
func (s *Store) Unseal(epoch uint64) ([]byte, error) {
	sealed, err := s.find(epoch)
	if err != nil {
		return nil, err
	}
	var key []byte
	err = s.do(func(x *session) error {
		by, err := x.epochKey(s.name, epoch)
		if errors.Is(err, errNoObject) {
			return x.noEpochKey(s.name, epoch)
		}
		if err != nil {
			return err
		}
		key, err = s.mode.unwrap(x, by, epoch, sealed.Wrapped)
		return err
	})
	defer clear(key)
	if isForged(err) {
		return nil, fmt.Errorf("unseal epoch %d: %w: the token does not open it: %w", epoch, keystore.ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("unseal epoch %d: %w", epoch, err)
	}
	return sealed.Open(key)
}

// noEpochKey tells a token that destroyed the key of an epoch from one that lost
// everything.
func (s *session) noEpochKey(name string, epoch uint64) error {
	if err := s.present(name); err != nil {
		return err
	}
	return &keystore.RefusedError{
		Device: "token", Epoch: epoch, Reason: keystore.ErrErased,
		Detail: "it does not hold the key of that epoch any more",
	}
}

// find reads the envelope of an epoch.
func (s *Store) find(epoch uint64) (*statedir.Sealed, error) {
	s.open.RLock()
	closed := s.closed
	s.open.RUnlock()
	if closed {
		return nil, keystore.ErrClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sealed, err := s.dir.Sealed(statedir.KindPKCS11, epoch)
	switch {
	case errors.Is(err, keystore.ErrNotFound) && epoch < s.epoch:
		return nil, fmt.Errorf("unseal epoch %d: %w: the current epoch is %d", epoch, keystore.ErrErased, s.epoch)
	case err != nil:
		return nil, err
	}
	return sealed, nil
}

// isForged reports the errors by which tokens reject a ciphertext.
func isForged(err error) bool {
	var code pkcs11.Error
	if !errors.As(err, &code) {
		return false
	}
	switch uint(code) {
	case pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE,
		pkcs11.CKR_WRAPPED_KEY_INVALID, pkcs11.CKR_WRAPPED_KEY_LEN_RANGE, pkcs11.CKR_GENERAL_ERROR:
		return true
	}
	return false
}

// Claim implements keystore.Keystore: a token knows no boots.
func (s *Store) Claim() error {
	s.open.RLock()
	defer s.open.RUnlock()
	if s.closed {
		return keystore.ErrClosed
	}
	return nil
}

// Advance implements keystore.Keystore. A crash after the record was written
// leaves keys of past epochs, which Open destroys.
func (s *Store) Advance(epoch uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch < s.epoch {
		return fmt.Errorf("advance to epoch %d: %w: the current epoch is %d", epoch, keystore.ErrErased, s.epoch)
	}
	// A record that the token cannot follow helps nobody.
	if err := s.do(func(x *session) error { return x.present(s.name) }); err != nil {
		return fmt.Errorf("advance to epoch %d: %w", epoch, err)
	}
	if epoch > s.epoch {
		if err := s.dir.WriteJSON(epochFile, epochRecord{Epoch: epoch}); err != nil {
			return err
		}
		s.epoch = epoch
	}
	if err := s.do(func(x *session) error { return x.eraseBefore(s.name, epoch) }); err != nil {
		return fmt.Errorf("advance to epoch %d: %w", epoch, err)
	}
	return s.dir.RemoveBefore(epoch)
}

// softwareTokens are names by which tokens that are programs go.
var softwareTokens = []string{"softhsm", "mozilla", "nss", "softtok", "software"}

// Status implements keystore.Keystore.
func (s *Store) Status() (keystore.Status, error) {
	var info pkcs11.TokenInfo
	err := s.do(func(x *session) (err error) {
		if _, err = x.identityKey(s.name); err != nil {
			return err
		}
		s.token.mu.Lock()
		defer s.token.mu.Unlock()
		info = s.token.info
		return nil
	})
	if err != nil {
		return keystore.Status{}, err
	}
	s.mu.Lock()
	epoch := s.epoch
	s.mu.Unlock()
	device := strings.Join([]string{trim(info.ManufacturerID), trim(info.Model), trim(info.Label), trim(info.SerialNumber)}, " ")
	st := keystore.Status{
		Kind: kindName, Device: device, Identity: keystore.Fingerprint(s.identity), Epoch: epoch,
		Capabilities: []string{
			"The identity key and the keys of the epochs were made in the token and are never extractable.",
			fmt.Sprintf("Secrets are sealed under a key of their epoch (%s), which is destroyed when the epoch is over.", s.mode),
		},
		Cautions: []string{
			"A token attests nothing about the machine: whoever has the PIN and runs code here can unseal.",
		},
	}
	for _, name := range softwareTokens {
		st.Software = st.Software || strings.Contains(strings.ToLower(device), name)
	}
	if st.Software {
		st.Cautions = append(st.Cautions, "This token is a program: its keys are files, which can be read, copied and put back; a destroyed key is an unlinked file.")
	}
	return st, nil
}
