package tpm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/go-tpm/tpm2"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/keystore/mutant"
	"github.com/reseal-bft/reseal/keystore/statedir"
)

// Init makes a keystore on the TPM at uri, with keys that never were anywhere else,
// and opens it. It needs the directory and the operator's key. Until it is closed, the
// store that it returns may enrol (Enrollment) in whatever state the machine booted
// into; for everything else that state has to be approved, as after Open.
//
// With a backup of a lost directory it makes the directory again, for the same keys.
// What was sealed is erased.
func Init(ctx context.Context, uri string, o keystore.Options) (*Store, error) {
	dev, slot, err := deviceAt(uri, o)
	if err != nil {
		return nil, err
	}
	dir, err := statedir.New(o.Dir)
	if err != nil {
		return nil, err
	}
	return initialize(ctx, dev, dir, slot, o)
}

// initialize is Init on a device and a directory.
func initialize(ctx context.Context, dev *device, dir *statedir.Dir, slot uint8, o keystore.Options) (*Store, error) {
	if _, err := dir.Read(configFile); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir.Path(), keystore.ErrExists), err)
	}
	s, err := newStore(dev, dir, slot, o)
	if err != nil {
		return nil, err
	}
	if err := dir.Make(); err != nil {
		return nil, err
	}
	if len(o.Backup) > 0 {
		return s, s.restore(ctx, o)
	}
	s.cfg = &config{Version: configVersion, Kind: kindName, Slot: slot}
	if s.cfg.CounterAuth, err = newAuth(o.Rand); err != nil {
		return nil, err
	}
	var set uint32
	err = dev.run(ctx, func(c *conn) error {
		if set, err = s.admitted(c); err != nil {
			return err
		}
		return s.provision(c)
	})
	if err != nil {
		return nil, fmt.Errorf("tpm:%s: %w", dev.address, err)
	}
	if err := s.adopt(s.cfg); err != nil {
		return nil, err
	}
	for _, k := range []*counter{s.epochCounter, s.approvalCounter} {
		if err := s.operate(k.define); err != nil {
			return nil, err
		}
	}
	// Nothing is bound to the value of a counter that is this new.
	if s.settled, err = s.current(); err != nil {
		return nil, err
	}
	if err := s.takeHierarchies(set); err != nil {
		return nil, err
	}
	return s, dir.WriteJSON(configFile, s.cfg)
}

// provision makes the keys and notes their public areas.
func (s *Store) provision(c *conn) error {
	r, err := createPrimary(c, tpm2.TPMRHOwner, tpm2.ECCSRKTemplate)
	if err != nil {
		return fmt.Errorf("make the storage root key: %w", ownedBy(err))
	}
	s.cfg.Root = tpm2.Marshal(r.public)
	want := r.name
	if err := c.flush(r.handle); err != nil {
		return err
	}
	if s.root, err = findRoot(c, s.cfg, want); err != nil {
		return err
	}
	s.device = keystore.DeviceID(s.cfg.Root)
	if s.cfg.Gate, err = makeKey(c, s.root, keystore.GatePolicy(s.operatorPublic, s.device, s.slot)); err != nil {
		return fmt.Errorf("make the gate key: %w", err)
	}
	if s.cfg.Identity, err = makeKey(c, s.root, keystore.IdentityPolicy(s.cfg.Gate.Public)); err != nil {
		return fmt.Errorf("make the identity key: %w", err)
	}
	if mutant.Is(mutant.OpenIdentity) {
		if err := s.leaveIdentity(c); err != nil {
			return err
		}
	}
	if s.cfg.ResetCount, err = thisBoot(c); err != nil {
		return err
	}
	if s.holder, err = s.newHolder(s.cfg.ResetCount); err != nil {
		return err
	}
	s.cfg.Enroller = s.holder.public
	made, err := makeAttestation(c, s.cfg)
	if err != nil {
		return err
	}
	s.cfg.Attestation = tpm2.Marshal(made.public)
	if err := evict(c, s.cfg.attestationHandle()); err != nil { // of a keystore that is lost
		return errors.Join(err, c.flush(made.handle))
	}
	if err := made.keep(c, s.cfg.attestationHandle()); err != nil {
		return err
	}
	if (made.passing || s.root.passing) && s.slot != checkSlot {
		return fmt.Errorf("the TPM keeps no key at %#x or %#x: evict what is there (tpm2_evictcontrol)", uint32(s.cfg.rootHandles()[1]), uint32(s.cfg.attestationHandle()))
	}
	return nil
}

// leaveIdentity makes the identity key persistent, for package mutant.
func (s *Store) leaveIdentity(c *conn) error {
	key, _, err := s.root.load(c, s.cfg.Identity)
	if err != nil {
		return err
	}
	return key.keep(c, tpm2.TPMHandle(rootBase+uint32(s.slot)*handlesPerSlot))
}
