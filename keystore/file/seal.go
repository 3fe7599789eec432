package file

import (
	"fmt"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// lock locks the store unless it is closed.
func (s *Store) lock() (unlock func(), err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, keystore.ErrClosed
	}
	return s.mu.Unlock, nil
}

// Seal implements keystore.Keystore.
func (s *Store) Seal(epoch uint64, secret []byte) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if epoch < s.epoch {
		return fmt.Errorf("seal for epoch %d: %w: the current epoch is %d", epoch, keystore.ErrErased, s.epoch)
	}
	envelope := statedir.Sealed{Kind: statedir.KindFile, Epoch: epoch}
	sealed, err := statedir.Seal(s.rand, envelope, secret, func(key []byte) ([]byte, error) {
		return encrypt(key, s.box.Recipient())
	})
	if err != nil {
		return fmt.Errorf("seal for epoch %d: %w", epoch, err)
	}
	return s.dir.PutSealed(sealed)
}

// Unseal implements keystore.Keystore.
func (s *Store) Unseal(epoch uint64) ([]byte, error) {
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if epoch < s.epoch {
		return nil, fmt.Errorf("unseal epoch %d: %w: the current epoch is %d", epoch, keystore.ErrErased, s.epoch)
	}
	sealed, err := s.dir.Sealed(statedir.KindFile, epoch)
	if err != nil {
		return nil, err
	}
	if epoch > s.epoch {
		return nil, fmt.Errorf("unseal epoch %d: %w", epoch, keystore.ErrPending)
	}
	key, err := decrypt(sealed.Wrapped, s.box)
	if err != nil {
		return nil, fmt.Errorf("unseal epoch %d: %w", epoch, err)
	}
	defer clear(key)
	return sealed.Open(key)
}

// Advance implements keystore.Keystore, as far as files can: it overwrites and
// removes what was sealed for earlier epochs, in this directory.
func (s *Store) Advance(epoch uint64) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if epoch < s.epoch {
		return fmt.Errorf("advance to epoch %d: %w: the current epoch is %d", epoch, keystore.ErrErased, s.epoch)
	}
	if epoch > s.epoch {
		if err := s.dir.WriteJSON(epochFile, epochRecord{Version: epochVersion, Epoch: epoch}); err != nil {
			return err
		}
		s.epoch = epoch
	}
	return s.dir.EraseBefore(epoch)
}

// Status implements keystore.Keystore.
func (s *Store) Status() (keystore.Status, error) {
	unlock, err := s.lock()
	if err != nil {
		return keystore.Status{}, err
	}
	defer unlock()
	return keystore.Status{
		Kind: kindName, Device: "passphrase files", Software: true,
		Identity: keystore.Fingerprint(&s.identity.PublicKey), Epoch: s.epoch,
		Capabilities: []string{"Keys are encrypted on disk under a passphrase (age, scrypt)."},
		Cautions: []string{
			"For development: no hardware protects the keys, which are in memory while the keystore is open.",
			"Advance overwrites and removes old files, but reaches no copies of them, nor what the disk keeps of old blocks.",
			"There is no attestation: nobody can tell what this machine booted.",
		},
	}, nil
}

// Close wipes what it can. Copies that libraries made stay in memory until the
// runtime uses it again.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}
