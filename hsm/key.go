package hsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/pkcs11"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// keyID is the CKA_ID of a sealing's key: the epoch and the generation among the sealings of that
// epoch, big-endian, and 128 random bits. The envelope names it, as a part of what its own
// encryption authenticates.
type keyID [32]byte

func newKeyID(rand io.Reader, epoch, generation uint64) (id keyID, err error) {
	binary.BigEndian.PutUint64(id[0:], epoch)
	binary.BigEndian.PutUint64(id[8:], generation)
	if _, err := io.ReadFull(rand, id[16:]); err != nil {
		return id, fmt.Errorf("randomness: %w", err)
	}
	return id, nil
}

func (id keyID) epoch() uint64      { return binary.BigEndian.Uint64(id[0:]) }
func (id keyID) generation() uint64 { return binary.BigEndian.Uint64(id[8:]) }

// key is a sealing's key that the token made and keeps.
type key struct {
	id     keyID
	handle pkcs11.ObjectHandle
}

// epochLabel is the label of all sealings' keys, so that the token can be asked for exactly these.
func epochLabel(name string) string { return name + "-epoch" }

const sealingKeys = "an object with the name of a sealing's key"

// sealingTraits are those of a sealing's key.
func (s *Store) sealingTraits() traits { return s.profile.sealing(epochLabel(s.name), true) }

// keys lists the sealings' keys in the token, and destroys what goes by their name and is something
// else.
func (s *Store) keys(x *session) ([]key, error) {
	var before []pkcs11.ObjectHandle
	for {
		found, err := x.find(pkcs11.NewAttribute(pkcs11.CKA_LABEL, epochLabel(s.name)))
		if err != nil {
			return nil, fmt.Errorf("list the keys of sealings: %w", err)
		}
		keys, err := s.sort(x, found)
		if err != nil || len(found) < maxFound || len(keys) == len(found) || slices.Equal(found, before) {
			return keys, err
		}
		before = found // Somebody filled the token; now there is room to look at the rest, unless what he put there stays.
	}
}

// sort tells keys from strangers, which it destroys.
func (s *Store) sort(x *session, found []pkcs11.ObjectHandle) ([]key, error) {
	keys := make([]key, 0, len(found))
	for _, h := range found {
		k, differs, err := s.examine(x, h)
		switch {
		case gone(err):
			continue
		case err != nil:
			return nil, err
		case s.rules.genuine(differs):
			keys = append(keys, k)
			continue
		}
		if err := s.evict(x, h, sealingKeys, differs); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// maxNamesakes bounds the objects that are looked at for a name like ours: it tells that somebody
// has been there, and keeps nothing safe.
const maxNamesakes = 1 << 12

// evictNamesakes destroys objects whose label is that of a sealing's key and a number behind it, as
// one would put there who takes the names of keys for predictable.
func (s *Store) evictNamesakes(x *session) error {
	found, err := x.find(pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY))
	if err != nil {
		return fmt.Errorf("look for strangers: %w", err)
	}
	for _, h := range found[:min(len(found), maxNamesakes)] {
		label, err := x.attribute(h, pkcs11.CKA_LABEL)
		if err != nil && !gone(err) {
			return fmt.Errorf("read the label of an object: %w", err)
		}
		number, ok := strings.CutPrefix(string(label), epochLabel(s.name)+"-")
		if !ok || strings.Trim(number, "0123456789") != "" {
			continue
		}
		if err := s.evict(x, h, sealingKeys, "no key of this keystore has the label "+strconv.Quote(string(label))); err != nil {
			return err
		}
	}
	return nil
}

// examine asks the token for all that makes an object a sealing's key, and says in what it differs.
func (s *Store) examine(x *session, h pkcs11.ObjectHandle) (k key, differs string, err error) {
	id, err := x.attribute(h, pkcs11.CKA_ID)
	if err != nil {
		return key{}, "", fmt.Errorf("read the id of an object: %w", err)
	}
	differs, err = x.differs(h, s.sealingTraits())
	k.handle = h
	if copy(k.id[:], id); len(id) != len(k.id) && differs == "" {
		differs = "its ID is none that this keystore gives"
	}
	return k, differs, err
}

// named returns the keys of an id, by the traits that they have at this moment. There is more than
// one only if somebody who has the PIN gave the id to a key of his own; what else he gave it to is
// destroyed. Where no key has it, the id comes from an envelope of somebody who wants another's
// object destroyed.
func (s *Store) named(x *session, id keyID) (keys []key, err error) {
	found, err := x.find(pkcs11.NewAttribute(pkcs11.CKA_ID, id[:]))
	if err != nil {
		return nil, fmt.Errorf("find the key of epoch %d: %w", id.epoch(), err)
	}
	strangers := make(map[pkcs11.ObjectHandle]string)
	for _, h := range found {
		k, differs, err := s.examine(x, h)
		switch {
		case gone(err):
		case err != nil:
			return nil, err
		case s.rules.genuine(differs):
			keys = append(keys, k)
		default:
			strangers[h] = differs
		}
	}
	if len(keys) == 0 {
		return nil, nil
	}
	for h, differs := range strangers {
		if err := s.evict(x, h, "an object with the id of a sealing's key", differs); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// makeKey makes the key of a sealing, or there is an error.
func (s *Store) makeKey(x *session, epoch uint64) (key, error) {
	keys, err := s.keys(x)
	if err != nil {
		return key{}, err
	}
	if err := s.present(x); err != nil {
		return key{}, err
	}
	keys = slices.DeleteFunc(keys, func(k key) bool { return k.id.epoch() != epoch })
	if k, ok := s.rules.sealsUnder(keys); ok {
		return k, nil
	}
	var generation uint64
	for _, k := range keys {
		generation = max(generation, k.id.generation())
	}
	id, err := newKeyID(s.rand, epoch, generation+1)
	if err != nil {
		return key{}, err
	}
	h, err := x.GenerateKey(x.handle, mechanism(pkcs11.CKM_AES_KEY_GEN),
		append(s.sealingTraits().given, pkcs11.NewAttribute(pkcs11.CKA_ID, id[:])))
	if err != nil {
		return key{}, fmt.Errorf("make a key for epoch %d: %w", epoch, err)
	}
	k, differs, err := s.examine(x, h)
	if err == nil && (!s.rules.genuine(differs) || k.id != id) {
		err = fmt.Errorf("%w: the token made a key for epoch %d that is not as it was asked for: %s", keystore.ErrUnsupported, epoch, differs)
	}
	if err != nil {
		return key{}, errors.Join(err, x.DestroyObject(x.handle, h))
	}
	return k, nil
}

// sweep destroys the keys that the rules do not keep, and strangers.
func (s *Store) sweep(x *session, current uint64, named map[uint64]keyID, settled func(epoch uint64) bool) error {
	if err := s.evictNamesakes(x); err != nil {
		return err
	}
	for {
		keys, err := s.keys(x)
		if err != nil {
			return err
		}
		destroyed := 0
		var failed error // one that stays is no reason to leave the others
		for _, k := range keys {
			if s.rules.keeps(k.id, current, named, settled) {
				continue
			}
			if err := x.DestroyObject(x.handle, k.handle); err != nil && !gone(err) {
				failed = fmt.Errorf("destroy a key of epoch %d: %w", k.id.epoch(), err)
				continue
			}
			destroyed++
		}
		if failed != nil || len(keys) < maxFound || destroyed == 0 {
			return failed
		}
	}
}

// envelopes returns the keys that the directory's envelopes for an epoch and later ones name. One
// that is damaged names none.
func (s *Store) envelopes(from uint64) (map[uint64]keyID, error) {
	epochs, err := s.dir.Epochs()
	if err != nil {
		return nil, err
	}
	named := make(map[uint64]keyID)
	for _, epoch := range epochs {
		if epoch < from || len(named) == maxEnvelopes {
			continue
		}
		sealed, err := s.sealed(epoch)
		if keystore.Lost(err) {
			s.log.Warn("a sealed file is damaged: what was in it is lost, and the group issues a new share", "epoch", epoch, "err", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		named[epoch] = sealed.id
	}
	return named, nil
}

// maxEnvelopes bounds the envelopes whose keys are kept; a replica seals for two epochs.
const maxEnvelopes = 64

// envelope is a sealed secret and the key that it names.
type envelope struct {
	*statedir.Sealed
	id      keyID
	wrapped []byte // by that key
}

// sealed reads the envelope of an epoch.
func (s *Store) sealed(epoch uint64) (envelope, error) {
	sealed, err := s.dir.Sealed(statedir.KindPKCS11, epoch)
	if err != nil {
		return envelope{}, err
	}
	e := envelope{Sealed: sealed}
	if n := copy(e.id[:], sealed.Wrapped); n < len(e.id) || e.id.epoch() != epoch {
		return envelope{}, fmt.Errorf("epoch %d: %w: the sealed file names no key of that epoch", epoch, keystore.ErrCorrupt)
	}
	e.wrapped = sealed.Wrapped[len(e.id):]
	return e, nil
}

// oldest returns the earliest epoch that the token holds a key for, 0 without any.
func (s *Store) oldest(x *session) (uint64, error) {
	keys, err := s.keys(x)
	epochs := make(map[uint64]bool)
	for _, k := range keys {
		epochs[k.id.epoch()] = true
	}
	if err != nil || len(epochs) == 0 {
		return 0, err
	}
	return slices.Min(slices.Collect(maps.Keys(epochs))), nil
}
