package handoff

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/recovery/internal/plant"
	"github.com/reseal-bft/reseal/threshold"
)

// slot is where the secret of the epoch is that a handoff leads to: the next one, or, for a replica
// that is late, the present one.
func (k *Keeper) slot(to bft.Epoch) (**secret, error) {
	switch to {
	case k.epoch:
		return &k.now, nil
	case k.epoch + 1:
		return &k.next, nil
	}
	return nil, errEpochOver
}

// Prepare makes ready for the parts of a handoff: what is stored of them from now on is encrypted
// under a key made in this boot, after this replica attested if it was due. Key is the epoch key
// that the log has for this replica in the epoch that the handoff leads to.
func (k *Keeper) Prepare(to bft.Epoch, round governance.Round, key ed25519.PublicKey) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	slot, err := k.slot(to)
	if err != nil {
		return err
	}
	private := bytes.Clone(k.privateKey(key))
	defer clear(private)
	if private == nil {
		return errors.New("this replica does not have the epoch key that the log has for it: it gets its share in the next round")
	}
	k.round = round
	k.drop(func(d *held) bool { return d.to == to && d.round != round }) // of attempts that are void
	s := *slot
	if s != nil && (s.here || plant.Bug("old-vault")) && s.public().Equal(key) {
		return nil
	}
	return k.prepare(to, private)
}

// prepare seals a secret without a share for the epoch that a handoff leads to, with a vault key
// that is made now. What is held already is encrypted anew.
func (k *Keeper) prepare(to bft.Epoch, key ed25519.PrivateKey) error {
	slot, err := k.slot(to)
	if err != nil {
		return err
	}
	s, err := newSecret(rand.Reader, key)
	if err != nil {
		return err
	}
	old := *slot
	if old != nil {
		s.found, s.groupKey = old.found, old.groupKey
	}
	if old != nil && plant.Bug("old-vault") {
		s.vaultKey = old.vaultKey
	}
	for _, d := range k.held {
		if d.to == to {
			err = errors.Join(err, k.disk.storePart(&s.vaultKey, d))
		}
	}
	if err == nil {
		err = s.seal(k.device, to)
	}
	if err != nil {
		s.found = nil // it is still the old one's
		s.wipe()
		return err
	}
	*slot = s
	if old != nil {
		old.found = nil
		name := vaultName(to, &old.vaultKey)
		if old.vaultKey != [32]byte{} {
			err = k.disk.write(func(b *store.Batch) error { return b.DeleteMeta(name) })
		}
		old.wipe()
	}
	return err
}

// ready says whether this replica has its share of an epoch to come.
func (k *Keeper) ready(to bft.Epoch, key ed25519.PublicKey) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	slot, err := k.slot(to)
	return err == nil && *slot != nil && (*slot).share != nil && (*slot).public().Equal(key)
}

// keep holds a verified dealing in memory and, encrypted, on disk: an acknowledgement promises that
// it is not lost by a restart. It is kept by the digest of its commitment: a dealer that restarts
// may deal again, and what was acknowledged before must not be replaced.
func (k *Keeper) keep(d *held) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	slot, err := k.slot(d.to)
	if err == nil && (*slot == nil || d.round != k.round) {
		err = errEpochOver
	}
	if err == nil {
		err = k.disk.storePart(&(*slot).vaultKey, d)
	}
	if err != nil {
		d.part.Wipe()
		return err
	}
	if old := k.held[d.commitment.Digest()]; old != nil && old != d {
		old.part.Wipe()
	}
	k.held[d.commitment.Digest()] = d
	return nil
}

// with hands use a dealing by the digest of its commitment. The dealing may be wiped when use has
// returned.
func (k *Keeper) with(digest bft.Digest, use func(*held) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.held[digest]
	if d == nil {
		return errNotHere
	}
	return use(d)
}

// has says whether a dealing is held for an epoch to come.
func (k *Keeper) has(to bft.Epoch, digest bft.Digest) *threshold.Commitment {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.held[digest]; d != nil && d.to == to {
		return d.commitment
	}
	return nil
}

// void ends an attempt that led nowhere: its parts are wiped, in memory and on disk.
func (k *Keeper) void(to bft.Epoch, round governance.Round) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	slot, err := k.slot(to)
	if err != nil || k.round != round || *slot != nil && (*slot).share != nil {
		return nil
	}
	k.round = 0
	k.drop(func(d *held) bool { return d.to == to })
	return k.disk.forgetEpoch(to)
}

// abandon wipes a dealing that did not serve, so that it is asked for again.
func (k *Keeper) abandon(digest bft.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.held[digest]; d != nil {
		d.part.Wipe()
		delete(k.held, digest)
	}
}

// complete makes this replica's share of an epoch from the chosen dealings, which it holds, and
// seals it. Nothing is in force yet when the epoch has not begun: until it begins, a crash leaves
// the old epoch, and afterwards the new one.
func (k *Keeper) complete(to bft.Epoch, transition *threshold.Transition, chosen []governance.ChosenDealing) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	slot, err := k.slot(to)
	if err != nil || *slot == nil {
		return errEpochOver
	}
	parts := make(map[int]*threshold.Part, len(chosen))
	names := make(map[bft.Digest]bool, len(chosen))
	for _, c := range chosen {
		d := k.held[c.Commitment]
		if d == nil {
			return fmt.Errorf("the part of the dealing of %d is gone", c.Dealer)
		}
		parts[int(c.Dealer)], names[c.Commitment] = d.part, true
	}
	share, err := transition.Share(parts)
	if err != nil {
		return err
	}
	s, sharing := **slot, transition.Sharing()
	found := s.found
	s.share, s.found, s.groupKey = share, nil, sha256.Sum256(sharing.GroupKey().Bytes())
	if share.Index() != int(k.self) {
		err = fmt.Errorf("the parts that were kept make the share of replica %d", share.Index())
	}
	if err == nil {
		err = k.disk.storeSharing(to, sharing)
	}
	if sealed := found.Equal(share) && s.groupKey == (*slot).groupKey; err == nil && !sealed {
		if found != nil {
			k.log.Error("what was sealed as this replica's share is not what the log says it is: somebody had the device before this boot, or it is damaged. It was not "+
				"used, and the share is sealed anew; order a recovery of this replica if nobody but its operators should have had it", "epoch", to)
		}
		if err = s.seal(k.device, to); err != nil {
			err = fmt.Errorf("keystore: seal the share of epoch %d: %w", to, err)
		}
	}
	if err != nil {
		share.Wipe()
		return err
	}
	found.Wipe()
	**slot = s
	if to == k.epoch {
		k.sharing = sharing
	} else {
		k.nextSharing = sharing
	}
	k.drop(func(d *held) bool { return d.to == to && !names[d.commitment.Digest()] })
	return nil
}

// dealt returns the share and the sharing that this replica deals from in an epoch, nil in epoch 0;
// may is false when it has nothing to deal.
func (k *Keeper) dealt(epoch bft.Epoch) (share *threshold.Share, may bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if epoch != k.epoch || k.now == nil {
		return nil, false
	}
	return k.now.share, epoch == 0 || k.now.share != nil
}

// sharingOf returns the public sharing of an epoch; nil when it is not here. It may be one that was
// found on the disk: whoever uses it holds dealings against it.
func (k *Keeper) sharingOf(epoch bft.Epoch) *threshold.Sharing {
	k.mu.Lock()
	defer k.mu.Unlock()
	if epoch == k.epoch && k.sharing != nil {
		return k.sharing
	}
	return k.disk.loadSharing(epoch)
}

// provenSharing returns the public sharing of the present epoch that this process made of certified
// dealings; nil for none.
func (k *Keeper) provenSharing(epoch bft.Epoch) *threshold.Sharing {
	k.mu.Lock()
	defer k.mu.Unlock()
	if epoch != k.epoch {
		return nil
	}
	return k.sharing
}
