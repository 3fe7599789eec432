package handoff

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/threshold"
)

// intrude seals a secret for an epoch, as somebody may who had the device before this boot, and
// reboots the replica.
func intrude(x *cluster, m *machine, epoch bft.Epoch, s *secret) {
	x.t.Helper()
	x.halt(m)
	require.NoError(x.t, s.seal(m.device, epoch))
	x.boot(m)
}

// evil is a secret of somebody else, with a share of his own.
func evil(t testing.TB, x *cluster, key ed25519.PrivateKey) *secret {
	t.Helper()
	s, err := newSecret(rand.Reader, key)
	require.NoError(t, err)
	k := x.machines[3].keeper
	s.share, s.groupKey = parseShare(t, k.now.share), sha256.Sum256(x.Membership().GroupKey)
	return s
}

func parseShare(t testing.TB, of *threshold.Share) *threshold.Share {
	t.Helper()
	share, err := threshold.ParseShare(of.SecretBytes())
	require.NoError(t, err)
	return share
}

// attestsPlanted says whether a replica attests a key that was sealed for the next epoch before
// this boot.
func attestsPlanted(t testing.TB) bool {
	x := newCluster(t, 1, 0)
	x.handoff()
	m, key := x.machines[0], newKey(t)
	intrude(x, m, 2, evil(t, x, key))
	require.NotNil(t, m.keeper.PrivateKey(public(key)), "it is found, and would count if the log named it")
	fresh, err := m.keeper.Fresh(1, 1)
	require.NoError(t, err)
	again, err := m.keeper.Fresh(1, 1)
	require.NoError(t, err)
	require.Equal(t, fresh, again, "one key a boot")
	_, err = m.keeper.Fresh(2, 1)
	require.ErrorIs(t, err, errEpochOver)
	return fresh.Equal(key.Public())
}

func TestAPlantedKeyIsNotAttested(t *testing.T) { require.False(t, attestsPlanted(t)) }

// Where there is no TPM, a process whose clock was ahead may seem to have begun after its replica
// became due. What was in its memory before that is attested all the same in no case.
func TestWhatIsAttestedIsMadeWhenTheReplicaIsDue(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	m := x.machines[0]
	fresh := func(due bft.Height) ed25519.PublicKey {
		key, err := m.keeper.Fresh(1, due)
		require.NoError(t, err)
		return key
	}
	m.keeper.now.wipe()
	m.keeper.now = nil
	spare, err := m.keeper.Spare()
	require.NoError(t, err)
	again, err := m.keeper.Spare()
	require.NoError(t, err)
	require.Equal(t, spare, again)
	first := fresh(5)
	require.NotEqual(t, public(spare), first)
	require.Equal(t, first, fresh(5), "a round that begins again")
	second := fresh(9)
	require.NotEqual(t, first, second)
	require.Nil(t, m.keeper.PrivateKey(first), "it counts no more, should the log name it")
	require.True(t, m.keeper.Made(second))
	used := m.keeper.spare
	require.NoError(t, m.keeper.Learn(later(x, 1)))
	require.Equal(t, make(ed25519.PrivateKey, len(used)), used, "it ends with the epoch")
}

func TestAFreshKeyIsOfThisBootAndIsFoundAgainWhenTheLogNamesIt(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	m := x.machines[0]
	first, err := m.keeper.Fresh(1, 1)
	require.NoError(t, err)
	x.halt(m)
	x.boot(m)
	require.NotNil(t, m.keeper.PrivateKey(first), "the log may name it by now")
	second, err := m.keeper.Fresh(1, 1)
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	require.NotNil(t, m.keeper.PrivateKey(first), "found keys live as long as the boot")
	require.NoError(t, m.keeper.Learn(later(x, 1)))
	require.Nil(t, m.keeper.PrivateKey(first), "the log did not name it")
	require.Nil(t, m.keeper.PrivateKey(second))
}

// TestAnEpochThatTheDeviceWasFoundInIsNotBelieved: somebody who had the device for a while leaves
// it in an epoch that the group never was in. The replica follows without a share, and when it is
// due it attests a fresh key, and has a share again.
func TestAnEpochThatTheDeviceWasFoundInIsNotBelieved(t *testing.T) {
	const absurd = 1 << 60
	x := newCluster(t, 1, 0)
	x.handoff()
	m := x.machines[0]
	x.halt(m)
	planted := evil(t, x, newKey(t))
	require.NoError(t, planted.seal(m.device, absurd))
	require.NoError(t, m.device.Advance(absurd))
	x.boot(m)
	require.NoError(t, m.keeper.Learn(x.Membership()))
	require.Nil(t, m.keeper.Keys(x.Membership()))
	key, err := m.keeper.Fresh(1, 1)
	require.NoError(t, err)
	require.Nil(t, m.keeper.PrivateKey(public(planted.epochKey)))
	require.Empty(t, m.device.sealed[absurd])
	x.halt(m)
	x.boot(m)
	require.NotNil(t, m.keeper.PrivateKey(key), "as after any restart")
	require.NoError(t, m.keeper.Learn(x.Membership()))
	x.open([]bft.ReplicaID{1})
	x.follow()
	x.handoff()
	require.True(t, m.keeper.Holding().Share)

	_, err = m.keeper.Fresh(1, 1)
	require.ErrorIs(t, err, errEpochOver, "what the log has named is not given up")
	require.True(t, m.keeper.Holding().Share)
}

// usesPlanted says whether a replica takes a share that was planted under another key than the log
// names.
func usesPlanted(t testing.TB) bool {
	x := newCluster(t, 1, 0)
	x.handoff()
	m := x.machines[0]
	planted := evil(t, x, newKey(t))
	intrude(x, m, 2, planted)
	next := later(x, 1)
	require.NoError(t, m.keeper.Learn(next))
	require.Nil(t, m.keeper.Keys(next))
	share, may := m.keeper.dealt(2)
	return may || share != nil || m.keeper.Holding().Share
}

func TestAPlantedShareIsNotUsed(t *testing.T) { require.False(t, usesPlanted(t)) }

// plantNamed leaves, on a replica's machine, a whole sharing of somebody else's as that of an
// epoch, and a share of it under the very key that the log has for the replica. The group key that
// it claims is the right one.
func plantNamed(x *cluster, m *machine, epoch bft.Epoch, key ed25519.PrivateKey, theirs *machine) {
	x.t.Helper()
	s, err := newSecret(rand.Reader, key)
	require.NoError(x.t, err)
	s.share, s.groupKey = parseShare(x.t, theirs.keeper.now.share), sha256.Sum256(x.Membership().GroupKey)
	x.halt(m)
	planted, err := store.Open("dir", testCluster, store.Options{FS: m.fs})
	require.NoError(x.t, err)
	require.NoError(x.t, shelf{planted}.storeSharing(epoch, theirs.keeper.sharing))
	require.NoError(x.t, planted.Close())
	require.NoError(x.t, s.seal(m.device, epoch))
	x.boot(m)
}

// holds says whether a replica signs with its share of the present epoch, and with nothing else.
func holds(x *cluster, m *machine) bool {
	keys, next := m.keeper.Keys(x.Membership()), x.Membership()
	return keys != nil && keys.Share.Index() == int(m.id) && bytes.Equal(keys.Sharing.GroupKey().Bytes(), next.GroupKey) &&
		keys.Sharing.Equal(x.machines[3].keeper.sharing) && keys.Sharing.CheckShare(keys.Share) == nil
}

// believesNamed says at which step of a handoff a replica that merely restarts, and is not due,
// takes a share that somebody planted before under the key that the log names for it, or comes out
// of the handoff without its own.
func believesNamed(t testing.TB) (steps []string) {
	for _, step := range []string{"idle", "dealing", "ready", "begun", "signed"} {
		for _, planted := range []bft.Epoch{1, 2} {
			x, other := newCluster(t, 1, 0), newCluster(t, 1, 0)
			x.handoff()
			other.handoff()
			m, theirs := x.machines[0], other.machines[0]
			key := bytes.Clone(m.keeper.now.epochKey)
			at := func(now string) {
				epoch := x.Membership().Epoch
				if step != now || planted < epoch {
					return
				}
				plantNamed(x, m, planted, key, theirs)
				x.learn(m)
				if keys := m.keeper.Keys(x.Membership()); keys != nil && !holds(x, m) || planted != epoch && m.keeper.ready(planted, public(key)) {
					steps = append(steps, fmt.Sprintf("%s, epoch %d: believed", step, planted))
				}
			}
			at("idle")
			x.open([]bft.ReplicaID{2})
			at("dealing")
			x.follow()
			at("ready")
			x.begin()
			at("begun")
			x.learn()
			x.follow()
			x.signed()
			at("signed")
			x.learn()
			x.follow()
			if !holds(x, m) {
				steps = append(steps, fmt.Sprintf("%s, epoch %d: no share of its own", step, planted))
			}
		}
	}
	return steps
}

func TestAPlantedShareUnderTheNamedKeyIsNotUsedAtAnyStep(t *testing.T) {
	require.Empty(t, believesNamed(t))
}

// Before any dealing is chosen nobody has a share of the next epoch, whatever was sealed; so it
// takes part in the handoff.
func TestAReplicaWithAPlantedShareTakesPart(t *testing.T) {
	x, other := newCluster(t, 1, 0), newCluster(t, 1, 0)
	x.handoff()
	other.handoff()
	m := x.machines[0]
	plantNamed(x, m, 2, bytes.Clone(m.keeper.now.epochKey), other.machines[0])
	x.open(nil)
	require.False(t, m.keeper.ready(2, x.View().Member(1).EpochKey), "no dealing is chosen yet")
	x.follow()
	x.begin()
	x.learn()
	require.True(t, holds(x, m))
}

// The parts of another replica, all good, make its share: not this one's.
func TestThePartsOfAnotherReplicaMakeNoShare(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	m, theirs := x.machines[0], x.machines[1]
	s, err := newSecret(rand.Reader, m.keeper.now.epochKey)
	require.NoError(t, err)
	for _, d := range theirs.keeper.held {
		require.NoError(t, m.keeper.disk.storePart(&s.vaultKey, d))
	}
	s.share = parseShare(t, theirs.keeper.now.share)
	intrude(x, m, 1, s)
	x.learn(m)
	require.Nil(t, m.keeper.Keys(x.Membership()))
	require.Zero(t, m.keeper.Holding().Parts)
	x.follow(m)
	require.True(t, holds(x, m), "the others give it its own")
}

// The round of a part stands beside it in the clear. A disk that names another one gives no part at
// all: in another round it would be wiped as one of an attempt that is void, or outlive its own.
func TestAPartUnderAnotherRoundDoesNotDecrypt(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	m := x.machines[0]
	key := m.keeper.now.vaultKey
	load := func() map[bft.Digest]*held {
		parts, err := m.keeper.disk.loadParts(1, m.keeper.self, &key)
		require.NoError(t, err)
		return parts
	}
	before := load()
	name := names(t, m, vaultName(1, &key))[0]
	value, err := m.keeper.disk.Meta(name)
	require.NoError(t, err)
	value = bytes.Clone(value)
	value[7]++ // the lowest byte of the round
	require.NoError(t, m.keeper.disk.write(func(b *store.Batch) error { return b.PutMeta(name, value) }))
	require.Len(t, load(), len(before)-1)
}

// Whoever knew the vault key may leave as many parts as the disk holds: a start reads a bounded
// number of them.
func TestAStartReadsABoundedNumberOfParts(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	m := x.machines[0]
	vaultKey := m.keeper.now.vaultKey
	require.NoError(t, m.keeper.disk.write(func(b *store.Batch) error {
		for i := range 2 * maxParts {
			if err := b.PutMeta(fmt.Sprintf("%s%08x", vaultName(1, &vaultKey), i), []byte("planted")); err != nil {
				return err
			}
		}
		return nil
	}))
	x.halt(m)
	x.boot(m)
	x.learn(m)
	x.follow(m)
	require.True(t, holds(x, m))
}

// A replica comes back with the disk alone: what it kept makes its share, without a word of the others.
func TestAShareIsMadeAnewOfWhatWasKept(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	x.handoff(2)
	for _, m := range x.machines {
		x.halt(m)
	}
	m := x.machines[0]
	sealed := m.device.sealed[2]
	x.boot(m)
	x.learn(m)
	keys := m.keeper.Keys(x.Membership())
	require.NotNil(t, keys)
	require.NoError(t, keys.Sharing.CheckShare(keys.Share))
	require.Equal(t, sealed, m.device.sealed[2], "a restart seals nothing")
}

// A group key that was planted in the keystore stops a replica that still has its state, and says
// what to do; it says nothing against what the others tell.
func TestAPlantedGroupKeyIsNoDeadEnd(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	m := x.machines[0]
	s, err := newSecret(rand.Reader, m.keeper.now.epochKey)
	require.NoError(t, err)
	s.groupKey = [32]byte{1}
	intrude(x, m, 1, s)
	require.ErrorContains(t, m.keeper.CheckGroupKey(x.Membership().GroupKey), "Move the store directory away")
	_, err = m.keeper.Verifier(x.Membership())
	require.NoError(t, err)
	x.learn(m)
	x.follow(m)
	require.True(t, holds(x, m))
	require.NoError(t, m.keeper.CheckGroupKey(x.Membership().GroupKey), "and it is put right")
}

// storesUnderPlanted says whether parts come to lie under a vault key that was sealed before this
// boot, by somebody who knows this replica's key.
func storesUnderPlanted(t testing.TB) bool {
	x := newCluster(t, 1, 0)
	x.handoff()
	m := x.machines[0]
	planted, err := newSecret(rand.Reader, m.keeper.now.epochKey)
	require.NoError(t, err)
	intrude(x, m, 2, planted)
	x.open([]bft.ReplicaID{2})
	x.follow()
	require.NotEmpty(t, names(t, m, "part/2/"))
	parts, err := m.keeper.disk.loadParts(2, 1, &planted.vaultKey)
	require.NoError(t, err)
	sealed, err := unseal(m.device, 2)
	require.NoError(t, err)
	return len(parts) > 0 || sealed.vaultKey == planted.vaultKey
}

func TestNothingIsStoredUnderAPlantedKey(t *testing.T) { require.False(t, storesUnderPlanted(t)) }

func TestWhatIsNoSecretIsAsGoodAsNone(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	m := x.machines[0]
	whole := m.device.sealed[1]
	for name, planted := range map[string][]byte{
		"of length zero": {}, "zeros": make([]byte, len(whole)), "cut short": whole[:len(whole)-1], "with a tail": append(whole[:len(whole):len(whole)], 0),
		"another version": append([]byte{1}, whole[1:]...),
	} {
		x.halt(m)
		m.device.sealed[2] = planted
		x.boot(m)
		require.Nil(t, m.keeper.next, name)
		x.learn(m)
		require.NotNil(t, m.keeper.Keys(x.Membership()), "%s: what it has for this epoch does not suffer", name)
	}
	x.halt(m)
	m.device.sealed[1] = []byte{}
	x.boot(m)
	require.Nil(t, m.keeper.Keys(x.Membership()))
	x.handoff(1)
	require.NotNil(t, m.keeper.Keys(x.Membership()), "it gets its share when it has attested")
}
