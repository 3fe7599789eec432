package tpm

import (
	"errors"
	"fmt"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// epochs reads what Advance wrote.
func (s *Store) epochs() (*epochs, error) {
	var e epochs
	if err := s.dir.ReadJSON(epochFile, &e); err != nil {
		return nil, fmt.Errorf("the record of the current epoch: %w", err)
	}
	return &e, nil
}

// at returns the mark that holds when the counter shows value. When neither mark
// matches, the directory is an old copy: the epoch is at least the last one it
// knows, and all that it holds is erased.
func (e *epochs) at(value uint64) mark {
	if value == e.Current.Counter {
		return e.Current
	}
	return mark{Epoch: e.latest(), Counter: value}
}

// latest returns the latest epoch that the record knows to have begun, or to be
// about to.
func (e *epochs) latest() uint64 {
	if e.Next != nil {
		return e.Next.Epoch
	}
	return e.Current.Epoch
}

// counterValue reads the counter that sealing is bound to.
func (s *Store) counterValue() (value uint64, err error) {
	err = s.operate(func(c *conn) error {
		value, err = s.epochCounter.read(c)
		return err
	})
	return value, err
}

// current returns the epoch that is current, by the TPM's counter. The caller
// holds s.mu, so that no Advance comes between this and what follows.
func (s *Store) current() (mark, error) {
	if s.closed {
		return mark{}, keystore.ErrClosed
	}
	value, err := s.counterValue()
	if err != nil {
		return mark{}, err
	}
	e, err := s.epochs()
	if err != nil {
		return mark{}, err
	}
	return e.at(value), nil
}

// Advance implements keystore.Keystore. The order of its steps is what makes it
// safe to stop between any two: (1) everything sealed for the new epoch, or a
// later one, is under the next value of the counter; (2) the directory says
// which epoch that value will stand for; (3) the counter is incremented, which
// commits; (4) the directory is tidied up, which the next Advance would do.
func (s *Store) Advance(epoch uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	current, err := s.current()
	if err != nil {
		return err
	}
	if epoch < current.Epoch {
		return fmt.Errorf("advance to epoch %d: %w: the current epoch is %d", epoch, keystore.ErrErased, current.Epoch)
	}
	if epoch == current.Epoch {
		return s.settle(current)
	}
	next := mark{Epoch: epoch, Counter: current.Counter + 1}
	if err := s.bindPending(next); err != nil {
		return fmt.Errorf("advance to epoch %d: %w", epoch, err)
	}
	if err := s.dir.WriteJSON(epochFile, epochs{Current: current, Next: &next}); err != nil {
		return err
	}
	if err := s.commit(next); err != nil {
		return fmt.Errorf("advance to epoch %d: %w", epoch, err)
	}
	return s.settle(next)
}

// commit increments the counter to what the mark says. When the answer is lost,
// the counter tells whether it was done.
func (s *Store) commit(next mark) error {
	incrementErr := s.operate(s.epochCounter.increment)
	if incrementErr == nil {
		return nil
	}
	value, err := s.counterValue()
	if err == nil && value == next.Counter {
		return nil
	}
	return incrementErr
}

// settle records that an epoch is current, and removes what it erased.
func (s *Store) settle(current mark) error {
	recorded, err := s.epochs()
	if err != nil {
		return err
	}
	if recorded.Current != current || recorded.Next != nil {
		if err := s.dir.WriteJSON(epochFile, epochs{Current: current}); err != nil {
			return err
		}
	}
	return s.dir.RemoveBefore(current.Epoch)
}

// bindPending seals anew what was sealed for the next epoch, or a later one,
// while the counter had an earlier value than now. What the TPM does not open
// any more was erased before.
func (s *Store) bindPending(next mark) error {
	pending, err := s.dir.Epochs()
	if err != nil {
		return err
	}
	for _, epoch := range pending {
		if epoch < next.Epoch {
			continue
		}
		sealed, err := s.dir.Sealed(statedir.KindTPM, epoch)
		if err != nil {
			return err
		}
		if sealed.Binding == next.Counter {
			continue
		}
		secret, err := s.open(sealed)
		if errors.Is(err, keystore.ErrErased) || errors.Is(err, keystore.ErrForeignDevice) {
			continue
		}
		if err != nil {
			return err
		}
		err = s.seal(epoch, next.Counter, secret)
		clear(secret)
		if err != nil {
			return err
		}
	}
	return nil
}
