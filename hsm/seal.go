package hsm

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// Seal implements keystore.Keystore. The key is made in the token for this sealing. It replaces the
// one before once the new envelope is on disk, so a crash leaves the old secret or the new one, and
// a key too many, which the next Seal of the epoch, Advance or, when it is the old one, Open
// destroys.
func (s *Store) Seal(epoch uint64, secret []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.believe(epoch); err != nil {
		return fmt.Errorf("seal for epoch %d: %w", epoch, err)
	}
	if err := s.seal(epoch, secret); err != nil {
		return fmt.Errorf("seal for epoch %d: %w", epoch, err)
	}
	return nil
}

// believe takes the caller's word for the epoch. A record that names a later one may be proven all
// the same: by somebody who had the PIN.
func (s *Store) believe(epoch uint64) error {
	if back, err := statedir.GoesBack(epoch, s.epoch, s.settled); !back {
		return err
	}
	s.log.Warn("the keystore's directory names a later epoch than the group's: what it holds of it is removed", "found", s.epoch, "epoch", epoch)
	if err := s.dir.RemoveAfter(epoch); err != nil {
		return err
	}
	if err := s.dir.PutEpoch(epoch, s.signStatement); err != nil {
		return err
	}
	s.epoch = epoch
	return nil
}

func (s *Store) seal(epoch uint64, secret []byte) error {
	var made key
	sealed, err := statedir.Seal(s.rand, statedir.Sealed{Kind: statedir.KindPKCS11, Epoch: epoch}, secret,
		func(content []byte) (named []byte, err error) {
			err = s.do(func(x *session) error {
				if made, err = s.makeKey(x, epoch); err != nil {
					return err
				}
				wrapped, err := s.profile.mode.wrap(x, s.rand, made.handle, made.id, content)
				named = append(made.id[:len(made.id):len(made.id)], wrapped...)
				return err
			})
			return named, err
		})
	if err == nil {
		err = s.dir.PutSealed(sealed)
	}
	settled := func(e uint64) bool { return e == epoch }
	if epoch > s.epoch {
		settled = func(e uint64) bool { return e > s.epoch } // one later secret is kept
		if err == nil {
			err = s.dir.RemoveAfter(s.epoch, epoch)
		}
	}
	// Also when it failed: the envelope on disk, be it the old one or the new, says which key is in use.
	return errors.Join(err, s.destroyUnnamed(s.epoch, settled))
}

// destroyUnnamed destroys the keys that the rules do not keep beside the envelopes on disk.
func (s *Store) destroyUnnamed(current uint64, settled func(epoch uint64) bool) error {
	named, err := s.envelopes(current)
	if err != nil {
		return err
	}
	return s.do(func(x *session) error { return s.sweep(x, current, named, settled) })
}

// Unseal implements keystore.Keystore. When there is an envelope for the epoch, it is the token
// that decides.
func (s *Store) Unseal(epoch uint64) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.isOpen(); err != nil {
		return nil, err
	}
	sealed, err := s.sealed(epoch)
	if errors.Is(err, keystore.ErrNotFound) && epoch < s.epoch {
		return nil, fmt.Errorf("unseal epoch %d: %w: the current epoch is %d", epoch, keystore.ErrErased, s.epoch)
	}
	if err != nil {
		return nil, err
	}
	return s.unseal(sealed)
}

// unseal opens an envelope by the key that it names. The caller holds s.mu.
func (s *Store) unseal(sealed envelope) (secret []byte, err error) {
	err = s.do(func(x *session) error {
		keys, err := s.named(x, sealed.id)
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			return s.noKey(x, sealed.id)
		}
		for _, k := range keys {
			if secret, err = s.openWith(x, k, sealed); err == nil {
				return nil
			}
		}
		return err
	})
	if isForged(err) {
		err = fmt.Errorf("%w: the token does not open it: %w", keystore.ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("unseal epoch %d: %w", sealed.Epoch, err)
	}
	return secret, nil
}

func (s *Store) openWith(x *session, k key, sealed envelope) ([]byte, error) {
	content, err := s.profile.mode.unwrap(x, k.handle, sealed.id, sealed.wrapped)
	if err != nil {
		return nil, err
	}
	defer clear(content)
	return sealed.Open(content)
}

// noKey tells a token that destroyed the key of a sealing from one that lost everything.
func (s *Store) noKey(x *session, id keyID) error {
	if err := s.present(x); err != nil {
		return err
	}
	return &keystore.RefusedError{
		Device: "token", Epoch: id.epoch(), Reason: keystore.ErrErased,
		Detail: fmt.Sprintf("it does not hold the key that the sealed file names (of sealing %d in that epoch) any more", id.generation()),
	}
}

// isForged reports the errors by which tokens reject a ciphertext.
func isForged(err error) bool {
	return isCode(err, pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE,
		pkcs11.CKR_WRAPPED_KEY_INVALID, pkcs11.CKR_WRAPPED_KEY_LEN_RANGE, pkcs11.CKR_GENERAL_ERROR)
}

// Claim implements keystore.Keystore: a token knows no boots.
func (s *Store) Claim() error { return s.isOpen() }

// Advance implements keystore.Keystore. A crash after the record was written
// leaves keys of past epochs, which Open destroys.
func (s *Store) Advance(epoch uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.believe(epoch)
	if err == nil {
		err = s.advance(epoch)
	}
	if err != nil {
		return fmt.Errorf("advance to epoch %d: %w", epoch, err)
	}
	s.settled = epoch
	return s.dir.RemoveBefore(epoch)
}

func (s *Store) advance(epoch uint64) error {
	// A record that the token cannot follow helps nobody.
	if err := s.do(s.present); err != nil {
		return err
	}
	if epoch > s.epoch {
		if err := s.dir.PutEpoch(epoch, s.signStatement); err != nil {
			return err
		}
		s.epoch = epoch
	}
	if err := s.destroyUnnamed(epoch, func(uint64) bool { return true }); err != nil {
		return err
	}
	// That they were destroyed is the word of a token that holds the keystore.
	return s.do(s.present)
}
