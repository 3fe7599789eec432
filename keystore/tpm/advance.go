package tpm

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/mutant"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// presentEpoch tells which epoch is current when the counter shows value. All that
// the directory says of it is a hint, and no secret opens or closes by it. An
// envelope that is bound to the value speaks for its epoch; the record is for an
// epoch that nothing was sealed for. When neither fits, the directory is an old
// copy, or the counter was incremented by somebody else: the epoch is at least the
// last one that the record knows.
func (s *Store) presentEpoch(value uint64) (mark, error) {
	all, err := s.dir.Epochs()
	if err != nil {
		return mark{}, err
	}
	now := mark{Counter: value}
	for _, epoch := range all {
		sealed, err := s.dir.Sealed(statedir.KindTPM, epoch)
		switch {
		case err != nil: // damaged: it says nothing
		case sealed.Binding == value:
			return mark{Epoch: epoch, Counter: value}, nil
		case sealed.Binding < value:
			now.Epoch = epoch
		}
	}
	var e epochs
	err = s.dir.ReadJSON(epochFile, &e)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, keystore.ErrCorrupt):
		return now, nil
	case err != nil:
		return mark{}, fmt.Errorf("the record of the current epoch: %w", err)
	}
	return e.at(value), nil
}

// at returns the mark that holds when the counter shows value.
func (e *epochs) at(value uint64) mark {
	switch {
	case value == e.Current.Counter:
		return e.Current
	case e.Next != nil && value > e.Current.Counter:
		return mark{Epoch: e.Next.Epoch, Counter: value}
	}
	return mark{Epoch: e.Current.Epoch, Counter: value}
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
	return s.presentEpoch(value)
}

// binding returns the value of the counter that the secret of an epoch is sealed
// under: it opens while the counter is not above. The current epoch has the
// present value, a later one the next. A secret that this process sealed, or
// opened, for another later epoch makes that one more, so that the Advance to
// this epoch ends the other.
func (s *Store) binding(epoch uint64, current mark) uint64 {
	if epoch == current.Epoch && s.known(current) {
		return current.Counter
	}
	return max(s.after(epoch, current), s.proven[epoch])
}

// known reports whether it is more than the directory's word that an epoch is current:
// this process advanced to it, or opened or sealed its secret under the present value.
// Otherwise another epoch's secret may be bound to that value.
func (s *Store) known(current mark) bool {
	return s.settled == current || s.proven[current.Epoch] == current.Counter
}

// after returns the first value of the counter at which nothing opens that this
// process knows of: not what is current, and no later epoch's secret but that of
// the given one.
func (s *Store) after(epoch uint64, current mark) uint64 {
	value := current.Counter + 1
	for other, bound := range s.proven {
		if other > current.Epoch && other != epoch {
			value = max(value, bound+1)
		}
	}
	return value
}

// target returns the value that the counter must have for an epoch to be
// current: what is sealed for it still opens, and nothing earlier does. The
// envelope's own word counts only as far as it makes the counter go up.
func (s *Store) target(epoch uint64, current mark) uint64 {
	if bound, ok := s.proven[epoch]; ok {
		return max(bound, current.Counter)
	}
	sealed, err := s.dir.Sealed(statedir.KindTPM, epoch)
	switch {
	case err == nil && sealed.Binding > current.Counter && sealed.Binding <= current.Counter+maxAhead:
		return sealed.Binding
	case epoch == current.Epoch && s.known(current):
		return current.Counter
	}
	// There is nothing to lose by it, and whatever is bound to the present value ends.
	return s.after(epoch, current)
}

// Advance implements keystore.Keystore. The order of its steps is what makes it
// safe to stop between any two: (1) what is sealed for the new epoch is under a
// value that the counter has not passed; (2) the directory says which epoch that
// value will stand for; (3) the counter is incremented, which commits; (4) the
// directory is tidied up, which the next Advance would do.
func (s *Store) Advance(epoch uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	current, err := s.current()
	if err != nil {
		return err
	}
	if current, err = s.believe("advance to", epoch, current); err != nil {
		return err
	}
	next := mark{Epoch: epoch, Counter: s.target(epoch, current)}
	if next == current {
		return s.settle(current)
	}
	if next.Counter > current.Counter {
		if err := s.dir.WriteJSON(epochFile, epochs{Current: current, Next: &next}); err != nil {
			return err
		}
		if err := s.raise(s.epochCounter, current.Counter, next.Counter); err != nil {
			return fmt.Errorf("advance to epoch %d: %w", epoch, err)
		}
	}
	if err := s.dir.RemoveAfter(epoch); err != nil {
		return err
	}
	return s.settle(next)
}

// raise increments a counter up to a value. When an answer is lost, the counter
// tells whether it was done.
func (s *Store) raise(k *counter, from, to uint64) error {
	for from < to && !(k == s.epochCounter && mutant.Is(mutant.NoIncrement)) {
		incrementErr := s.operate(k.increment)
		err := s.operate(func(c *conn) (err error) {
			from, err = k.read(c)
			return err
		})
		if err != nil {
			return errors.Join(incrementErr, err)
		}
		if incrementErr != nil && from < to {
			return incrementErr
		}
	}
	return nil
}

// settle records that an epoch is current, and removes the envelopes of earlier ones.
func (s *Store) settle(current mark) error {
	var recorded epochs
	if err := s.dir.ReadJSON(epochFile, &recorded); err != nil || recorded.Current != current || recorded.Next != nil {
		if err := s.dir.WriteJSON(epochFile, epochs{Current: current}); err != nil {
			return err
		}
	}
	s.settled = current
	for epoch := range s.proven {
		if epoch < current.Epoch {
			delete(s.proven, epoch)
		}
	}
	return s.dir.RemoveBefore(current.Epoch)
}
