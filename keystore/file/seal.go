package file

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

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
	if err := s.believe(epoch); err != nil {
		return fmt.Errorf("seal for epoch %d: %w", epoch, err)
	}
	envelope := statedir.Sealed{Kind: statedir.KindFile, Epoch: epoch}
	sealed, err := statedir.Seal(s.rand, envelope, secret, func(key []byte) ([]byte, error) {
		return encrypt(key, s.box.Recipient())
	})
	if err != nil {
		return fmt.Errorf("seal for epoch %d: %w", epoch, err)
	}
	if err := s.dir.PutSealed(sealed); err != nil || epoch == s.epoch {
		return err
	}
	return s.dir.EraseAfter(s.epoch, epoch)
}

// believe takes the caller's word for the epoch, and erases what was found of a later one.
func (s *Store) believe(epoch uint64) error {
	if back, err := statedir.GoesBack(epoch, s.epoch, s.settled); !back {
		return err
	}
	s.log.Warn("the keystore's directory names a later epoch than the group's: what it holds of it is erased", "found", s.epoch, "epoch", epoch)
	if err := s.dir.EraseAfter(epoch); err != nil {
		return err
	}
	if err := s.dir.PutEpoch(epoch, s.prove); err != nil {
		return err
	}
	s.epoch = epoch
	return nil
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
	return s.open(sealed)
}

// open decrypts an envelope.
func (s *Store) open(sealed *statedir.Sealed) ([]byte, error) {
	key, err := decrypt(sealed.Wrapped, s.box)
	if err != nil {
		return nil, fmt.Errorf("unseal epoch %d: %w", sealed.Epoch, err)
	}
	defer clear(key)
	return sealed.Open(key)
}

// Claim implements keystore.Keystore: files know no boots.
func (s *Store) Claim() error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	unlock()
	return nil
}

// Advance implements keystore.Keystore, as far as files can: it overwrites and
// removes what was sealed for earlier epochs, in this directory.
func (s *Store) Advance(epoch uint64) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	err = s.believe(epoch)
	if err == nil && epoch > s.epoch {
		err = s.dir.PutEpoch(epoch, s.prove)
	}
	if err != nil {
		return fmt.Errorf("advance to epoch %d: %w", epoch, err)
	}
	s.epoch, s.settled = epoch, epoch
	return s.dir.EraseBefore(epoch)
}

// prove authenticates a statement by a key that is made from the container's.
func (s *Store) prove(statement []byte) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, []byte(s.box.String()), nil, "reseal file keystore: statements", sha256.Size)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	mac := hmac.New(sha256.New, key)
	mac.Write(statement)
	return mac.Sum(nil), nil
}

func (s *Store) holds(statement, proof []byte) bool {
	want, err := s.prove(statement)
	return err == nil && hmac.Equal(want, proof)
}

// resume finds out which epoch is current, and finishes an Advance that was
// interrupted. Without a record that holds it goes on from the oldest epoch whose
// secret opens: what is to end is ended by the next Advance.
func (s *Store) resume() (err error) {
	s.epoch, err = s.dir.Epoch(s.holds)
	if errors.Is(err, keystore.ErrCorrupt) {
		held, listErr := s.dir.Held(0, s.opens)
		if listErr != nil {
			return listErr
		}
		if i := slices.IndexFunc(held, func(h keystore.Held) bool { return h.Opens }); i >= 0 {
			s.epoch = held[i].Epoch
		}
		s.log.Warn("the record of the current epoch is damaged: going on from the oldest epoch whose secret opens", "epoch", s.epoch, "err", err)
		err = s.dir.PutEpoch(s.epoch, s.prove)
	}
	if err != nil {
		return err
	}
	return s.dir.EraseBefore(s.epoch)
}

// opens tries whether the secret of an epoch opens.
func (s *Store) opens(epoch uint64) error {
	sealed, err := s.dir.Sealed(statedir.KindFile, epoch)
	if err != nil {
		return err
	}
	secret, err := s.open(sealed)
	clear(secret)
	return err
}

// Status implements keystore.Keystore.
func (s *Store) Status() (keystore.Status, error) {
	unlock, err := s.lock()
	if err != nil {
		return keystore.Status{}, err
	}
	defer unlock()
	held, err := s.dir.Held(s.epoch, s.opens)
	if err != nil {
		return keystore.Status{}, err
	}
	return keystore.Status{
		Kind: kindName, Device: "passphrase files", Software: true,
		Identity: keystore.Fingerprint(&s.identity.PublicKey), Epoch: s.epoch, Held: held,
		Capabilities: []string{"Keys are encrypted on disk under a passphrase (age, scrypt)."},
		Cautions: []string{
			"For development: no hardware protects the keys, which are in memory while the keystore is open.",
			"Advance overwrites and removes old files, but reaches no copies of them, nor what the disk keeps of old blocks.",
			"There is no attestation: nobody can tell what this machine booted.",
		},
	}, nil
}

// Close ends the use of the keystore. It wipes nothing: the keys are in the hands of libraries, and
// stay in memory until the runtime uses it again.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}
