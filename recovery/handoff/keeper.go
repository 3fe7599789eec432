package handoff

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/recovery/internal/plant"
	"github.com/reseal-bft/reseal/threshold"
)

// Keeper holds all that a replica keeps secret, and ends it. What ends a secret is an epoch that
// the replica learns of (Learn, Signed), never a success of its own: a replica that gets no share
// of the next epoch, or is late, loses what it held like the others. docs/threat-model.md has the
// table.
//
// The device stays in the epoch before until the new epoch has signed: so both of their secrets can
// be unsealed until then, and a crash at any point leaves what is needed to go on. Safe for
// concurrent use.
type Keeper struct {
	device keystore.Keystore
	disk   shelf
	self   bft.ReplicaID
	log    *slog.Logger

	mu sync.Mutex
	// sealed is the device's epoch: what was sealed for an earlier one is dead.
	sealed bft.Epoch
	// epoch is the newest certified epoch; signed says that a quorum of its shares was seen to sign.
	epoch  bft.Epoch
	signed bool
	// guessed says that the epoch is the device's word alone, which has it from a disk that anybody
	// may have written: the log has not named it, nor a later one.
	guessed bool
	// now is the secret of the epoch, nil for none; sharing is the epoch's, nil when it is not
	// known. next is the secret that a handoff under way leads to.
	now, next            *secret
	sharing, nextSharing *threshold.Sharing
	// before is the share of the epoch before, until this one has signed. It is used for nothing.
	before *secret
	// fresh is the epoch key that this replica attests: made in this boot, and after it became due at
	// the height freshFor. Found are those of earlier boots: they count when the log names them.
	fresh    ed25519.PrivateKey
	freshFor bft.Height
	found    []ed25519.PrivateKey
	// spare is for connections, and never attested: it is older than what makes the replica due.
	spare ed25519.PrivateKey
	// held are the dealings that lead to this epoch, for replicas that missed some, and those that
	// lead to the next.
	held map[bft.Digest]*held
	// round is that of the handoff under way, 0 for none: what comes in for another is late.
	round governance.Round
}

// Open takes what the device opens in this boot, and claims the boot. That there is nothing, or
// that the device refuses it, is no reason to stop: the replica follows without a share until it is
// given one. Approve is asked for further approvals when the device refuses because of the boot
// state, and says whether there are any.
//
// Somebody who had the device and the disk before this boot may have written all that is found. So
// what is found gives at most an epoch key, which counts if the log names it, and parts, which
// count if they are of the dealings that the log has chosen. A share is made of them anew, by
// [Party.Learn].
func Open(device keystore.Keystore, disk *store.Store, self bft.ReplicaID, approve func() bool, log *slog.Logger) (*Keeper, error) {
	status, err := device.Status()
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	k := &Keeper{device: device, disk: shelf{disk}, self: self, log: log, sealed: bft.Epoch(status.Epoch), signed: true, guessed: true, held: make(map[bft.Digest]*held)}
	k.epoch = k.sealed
	if k.now, err = k.unseal(k.epoch, approve); err != nil {
		return nil, err
	}
	if k.next, err = k.unseal(k.epoch+1, approve); err != nil {
		return nil, err
	}
	if plant.Bug("planted-share") {
		k.sharing, k.nextSharing = k.believe(k.now, k.epoch), k.believe(k.next, k.epoch+1)
	} else {
		k.next.keepKeys()
	}
	// What is sealed is open: from here on nothing opens in this boot any more, and the identity
	// key answers to this process alone.
	err = device.Claim()
	if errors.Is(err, keystore.ErrNotApproved) && approve() {
		err = device.Claim()
	}
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	if k.next != nil {
		k.found = append(k.found, bytes.Clone(k.next.epochKey))
	}
	return k, nil
}

// unseal takes the secret of an epoch, nil when there is none to be had.
func (k *Keeper) unseal(epoch bft.Epoch, approve func() bool) (*secret, error) {
	s, err := unseal(k.device, epoch)
	if errors.Is(err, keystore.ErrNotApproved) && approve() {
		s, err = unseal(k.device, epoch)
	}
	var refused *keystore.RefusedError
	switch {
	case err == nil:
		parts, err := k.disk.loadParts(epoch, k.self, &s.vaultKey)
		for digest, d := range parts {
			k.held[digest] = d
		}
		return s, err
	case errors.Is(err, keystore.ErrNotFound) && epoch > k.sealed:
		return nil, nil
	case errors.Is(err, keystore.ErrNotApproved), errors.As(err, &refused), keystore.Lost(err), errors.Is(err, errNotASecret):
		k.log.Error("no secret for this epoch: the replica follows without a share until it has attested", "epoch", epoch, "error", err)
		return nil, nil
	}
	return nil, fmt.Errorf("keystore: %w", err)
}

// Learn takes note of a certified epoch, and ends all that is held of earlier ones, but for the
// share of the epoch before: that stays until this epoch has signed. Memory is wiped also when an
// error says that disk or device failed; then it is to be called again.
func (k *Keeper) Learn(m *replica.Membership) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if m.Epoch >= k.epoch {
		k.guessed = false
	}
	if m.Epoch <= k.epoch {
		return k.end()
	}
	if plant.Bug("lapsed-keeps") && (k.next == nil || k.next.share == nil) {
		return nil
	}
	follows := m.Epoch == k.epoch+1
	before := k.epoch
	k.before.wipe()
	k.before = nil
	key := k.keyFor(m)
	if follows || plant.Bug("leap-keeps") {
		k.before = k.now.keepShare()
	} else {
		k.now.wipe()
		k.next.wipe()
		k.next, k.nextSharing = nil, nil
	}
	k.now, k.sharing = k.next, k.nextSharing
	if !k.fits(m) {
		k.now.wipe()
		k.now, k.sharing = nil, nil
		if key != nil {
			k.now = &secret{epochKey: bytes.Clone(key)}
		}
	}
	clear(key)
	k.wipeKeys()
	k.next, k.nextSharing = nil, nil
	k.epoch, k.signed = m.Epoch, false
	if !follows {
		k.round = 0
	}
	k.log.Info("a new epoch: what was held of the one before has ended", "epoch", m.Epoch, "share", k.now != nil && k.now.share != nil)
	k.drop(func(d *held) bool { return d.to != m.Epoch })
	return errors.Join(k.forget(before), k.end())
}

// keyFor returns a copy of the private key that the log names for this replica, nil if it is not here.
func (k *Keeper) keyFor(m *replica.Membership) ed25519.PrivateKey {
	if me := m.Member(k.self); me != nil {
		return bytes.Clone(k.privateKey(me.EpochKey))
	}
	return nil
}

// fits says whether the secret that a handoff has led to is one of this epoch as the log has it.
func (k *Keeper) fits(m *replica.Membership) bool {
	me := m.Member(k.self)
	if k.now == nil || me == nil || !k.now.public().Equal(me.EpochKey) {
		return false
	}
	return k.now.share == nil || k.now.groupKey == sha256.Sum256(m.GroupKey)
}

// Signed takes note that a quorum of the shares of an epoch has signed: what was kept of the epoch
// before ends, here and in the device.
func (k *Keeper) Signed(epoch bft.Epoch) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if epoch == k.epoch && !k.signed && !plant.Bug("share-kept") {
		k.signed = true
		k.before.wipe()
		k.before = nil
		return k.end()
	}
	return nil
}

// end makes the device follow: to this epoch when it has signed, else to the one before, which has.
func (k *Keeper) end() error {
	to := k.epoch
	if !k.signed {
		to--
	}
	if to <= k.sealed || plant.Bug("device-stays") {
		return nil
	}
	if err := k.device.Advance(uint64(to)); err != nil {
		return fmt.Errorf("keystore: advance to epoch %d: %w", to, err)
	}
	k.sealed = to
	k.log.Info("what was sealed for earlier epochs is erased", "epoch", to)
	return nil
}

// forget deletes what the disk keeps of an epoch that is over.
func (k *Keeper) forget(epoch bft.Epoch) error {
	if plant.Bug("parts-stay") {
		return nil
	}
	err := k.disk.forgetEpoch(epoch)
	if k.epoch > epoch+1 {
		err = errors.Join(err, k.disk.forgetEpoch(epoch+1))
	}
	return errors.Join(err, k.disk.write(func(b *store.Batch) error {
		var err error
		for e := epoch; e+1 < k.epoch && e < epoch+2; e++ { // whoever is late may ask for the sharing before
			err = errors.Join(err, b.DeleteMeta(sharingName(e)))
		}
		if epoch > 0 {
			err = errors.Join(err, b.DeleteMeta(sharingName(epoch-1)))
		}
		return err
	}))
}

// drop wipes dealings.
func (k *Keeper) drop(which func(*held) bool) {
	for digest, d := range k.held {
		if which(d) && !plant.Bug("columns-stay") {
			d.part.Wipe()
			delete(k.held, digest)
		}
	}
}

func (k *Keeper) wipeKeys() {
	clear(k.fresh)
	clear(k.spare)
	for _, key := range k.found {
		clear(key)
	}
	k.fresh, k.spare, k.found = nil, nil, nil
}

// Epoch is the newest certified epoch that the keeper knows of.
func (k *Keeper) Epoch() bft.Epoch {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.epoch
}

// Close wipes what is in memory.
func (k *Keeper) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range []*secret{k.now, k.next, k.before} {
		s.wipe()
	}
	k.now, k.next, k.before, k.sharing, k.nextSharing = nil, nil, nil, nil, nil
	k.wipeKeys()
	k.drop(func(*held) bool { return true })
}

// Fresh returns the public part of the key that this replica attests in this epoch, having become
// due at a height: made in this boot, and since then, and sealed: a restart must find it again, when
// by then the log names it. The epoch is the group's present one, by the log and a recent
// certificate: if the device was found in a later one, it is no epoch of this group.
func (k *Keeper) Fresh(epoch bft.Epoch, due bft.Height) (ed25519.PublicKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.guessed && epoch < k.epoch {
		if err := k.disbelieve(epoch); err != nil {
			return nil, err
		}
	}
	if epoch != k.epoch {
		return nil, errEpochOver
	}
	if k.fresh == nil && plant.Bug("found-key-attested") && len(k.found) > 0 {
		return public(k.found[0]), nil
	}
	if k.fresh == nil || k.freshFor != due {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		clear(k.fresh)
		k.fresh, k.freshFor = key, due
	}
	if k.next == nil || !k.next.public().Equal(public(k.fresh)) {
		if err := k.prepare(epoch+1, k.fresh); err != nil {
			return nil, fmt.Errorf("keystore: seal the fresh key: %w", err)
		}
	}
	return public(k.fresh), nil
}

// believe takes a share that was found for the replica's: a bug that is planted.
func (k *Keeper) believe(s *secret, epoch bft.Epoch) *threshold.Sharing {
	if s == nil || s.found == nil {
		return nil
	}
	s.share, s.found = s.found, nil
	return k.disk.loadSharing(epoch)
}

// disbelieve ends what was found under an epoch that the group is not in: who wrote the disk put it
// there, or the group is another one.
func (k *Keeper) disbelieve(epoch bft.Epoch) error {
	k.log.Error("the keystore was found in a later epoch than the group's: what it holds is removed", "found", k.epoch, "epoch", epoch)
	if err := k.device.Advance(uint64(epoch)); err != nil {
		return fmt.Errorf("keystore: return to epoch %d: %w", epoch, err)
	}
	for _, s := range []*secret{k.now, k.next, k.before} {
		s.wipe()
	}
	k.now, k.next, k.before, k.sharing, k.nextSharing = nil, nil, nil, nil, nil
	k.wipeKeys()
	k.drop(func(*held) bool { return true })
	k.epoch, k.sealed, k.signed, k.guessed = epoch, epoch, true, false
	return nil
}

// Spare returns a copy of a key of this replica for connections, when the log names none that it
// has: its epoch key of before, or one of this boot.
func (k *Keeper) Spare() (ed25519.PrivateKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now != nil {
		return bytes.Clone(k.now.epochKey), nil
	}
	if k.spare == nil {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		k.spare = key
	}
	return bytes.Clone(k.spare), nil
}

// Made says whether an epoch key was made by this process, for this epoch's evidence.
func (k *Keeper) Made(key ed25519.PublicKey) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fresh != nil && public(k.fresh).Equal(key)
}

var errEpochOver = errors.New("the epoch is over")

func public(key ed25519.PrivateKey) ed25519.PublicKey {
	return bytes.Clone(key.Public().(ed25519.PublicKey))
}

// privateKey returns the private part of an epoch key; nil if it is not here.
func (k *Keeper) privateKey(public ed25519.PublicKey) ed25519.PrivateKey {
	keys := append([]ed25519.PrivateKey{k.fresh}, k.found...)
	for _, s := range []*secret{k.now, k.next} {
		if s != nil {
			keys = append(keys, s.epochKey)
		}
	}
	for _, key := range keys {
		if key != nil && public.Equal(key.Public()) {
			return key
		}
	}
	return nil
}

// PrivateKey returns a copy of the private part of an epoch key that the log names; nil if it is
// not here.
func (k *Keeper) PrivateKey(public ed25519.PublicKey) ed25519.PrivateKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return bytes.Clone(k.privateKey(public))
}

// Keys are what a replica signs with in an epoch. Share and sharing are nil in epoch 0, and in a
// replica without a share.
type Keys struct {
	Share    *threshold.Share
	Sharing  *threshold.Sharing
	EpochKey ed25519.PrivateKey
}

// Keys returns what this replica signs with in the epoch of a membership; nil when it signs nothing.
func (k *Keeper) Keys(m *replica.Membership) *Keys {
	k.mu.Lock()
	defer k.mu.Unlock()
	me := m.Member(k.self)
	switch {
	case m.Epoch != k.epoch || k.now == nil || me == nil || !k.now.public().Equal(me.EpochKey):
		return nil
	case m.Epoch > 0 && (k.now.share == nil || k.sharing == nil || k.now.groupKey != sha256.Sum256(m.GroupKey)):
		return nil
	}
	return &Keys{Share: k.now.share, Sharing: k.sharing, EpochKey: bytes.Clone(k.now.epochKey)}
}

// CheckGroupKey compares the group key that a state on disk names with the one that was sealed in
// the keystore. One of the two may have been planted; which one, the others will tell: so it is
// asked of the disk only, and never stands against what f + 1 of them say.
func (k *Keeper) CheckGroupKey(key []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now != nil && k.now.groupKey != [32]byte{} && k.now.groupKey != sha256.Sum256(key) {
		return errors.New("the state on disk names another group key than the keystore: one of them was tampered with, or is another cluster's. " +
			"Move the store directory away (not the .mark file beside it) and start again: the replica then takes the state, and its share, from the others")
	}
	return nil
}

// Holding says what a replica holds, for people and programs. Nothing in it is secret.
type Holding struct {
	// Epoch is the newest certified epoch that the replica knows, Share whether it has a share of
	// it, and Waiting whether it keeps the share of the epoch before because this one has not
	// signed yet.
	Epoch   bft.Epoch `json:"epoch"`
	Share   bool      `json:"share"`
	Waiting bool      `json:"waiting,omitempty"`
	// Sealed is the device's epoch.
	Sealed bft.Epoch `json:"sealed"`
	// Parts are the dealings of which it holds its part.
	Parts int `json:"parts"`
}

// Holding returns what the replica holds at this moment.
func (k *Keeper) Holding() Holding {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Holding{
		Epoch: k.epoch, Share: k.now != nil && (k.now.share != nil && k.sharing != nil || k.epoch == 0), Waiting: k.before != nil,
		Sealed: k.sealed, Parts: len(k.held),
	}
}
