package handoff

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/threshold"
)

// intrude seals a secret for an epoch, as somebody may who had the device before this boot, and reboots the replica.
func intrude(x *cluster, m *machine, epoch bft.Epoch, s *secret) {
	x.t.Helper()
	x.halt(m)
	require.NoError(x.t, s.seal(m.device, epoch))
	x.boot(m)
}

// evil is a secret of somebody else, with a share of his own.
func evil(t *testing.T, x *cluster, key ed25519.PrivateKey) *secret {
	t.Helper()
	s, err := newSecret(rand.Reader, key)
	require.NoError(t, err)
	k := x.machines[3].keeper
	s.share, s.groupKey = parseShare(t, k.now.share), sha256.Sum256(x.Membership().GroupKey)
	return s
}

func parseShare(t *testing.T, of *threshold.Share) *threshold.Share {
	t.Helper()
	share, err := threshold.ParseShare(of.SecretBytes())
	require.NoError(t, err)
	return share
}

// attestsPlanted says whether a replica attests a key that was sealed for the next epoch before this boot.
func attestsPlanted(t *testing.T) bool {
	x := newCluster(t, 1, 0)
	x.handoff()
	m, key := x.machines[0], newKey(t)
	intrude(x, m, 2, evil(t, x, key))
	require.NotNil(t, m.keeper.PrivateKey(public(key)), "it is found, and would count if the log named it")
	fresh, err := m.keeper.Fresh(1)
	require.NoError(t, err)
	again, err := m.keeper.Fresh(1)
	require.NoError(t, err)
	require.Equal(t, fresh, again, "one key a boot")
	_, err = m.keeper.Fresh(2)
	require.ErrorIs(t, err, errEpochOver)
	return fresh.Equal(key.Public())
}

func TestAPlantedKeyIsNotAttested(t *testing.T) { require.False(t, attestsPlanted(t)) }

func TestAFreshKeyIsOfThisBootAndIsFoundAgainWhenTheLogNamesIt(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	m := x.machines[0]
	first, err := m.keeper.Fresh(1)
	require.NoError(t, err)
	x.halt(m)
	x.boot(m)
	require.NotNil(t, m.keeper.PrivateKey(first), "the log may name it by now")
	second, err := m.keeper.Fresh(1)
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	require.NotNil(t, m.keeper.PrivateKey(first), "found keys live as long as the boot")
	require.NoError(t, m.keeper.Learn(later(x, 1)))
	require.Nil(t, m.keeper.PrivateKey(first), "the log did not name it")
	require.Nil(t, m.keeper.PrivateKey(second))
}

// TestAnEpochThatTheDeviceWasFoundInIsNotBelieved: somebody who had the device for a while leaves it in an epoch that the group never was in. The replica follows without a
// share, and when it is due it attests a fresh key, and has a share again.
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
	key, err := m.keeper.Fresh(1)
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

	_, err = m.keeper.Fresh(1)
	require.ErrorIs(t, err, errEpochOver, "what the log has named is not given up")
	require.True(t, m.keeper.Holding().Share)
}

// usesPlanted says whether a replica takes a share that was planted under another key than the log names.
func usesPlanted(t *testing.T) bool {
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

// storesUnderPlanted says whether parts come to lie under a vault key that was sealed before this boot, by somebody who knows this replica's key.
func storesUnderPlanted(t *testing.T) bool {
	x := newCluster(t, 1, 0)
	x.handoff()
	m := x.machines[0]
	planted, err := newSecret(rand.Reader, m.keeper.now.epochKey)
	require.NoError(t, err)
	intrude(x, m, 2, planted)
	x.open([]bft.ReplicaID{2})
	x.follow()
	require.NotEmpty(t, names(t, m, "part/2/"))
	parts, err := m.keeper.disk.loadParts(2, &planted.vaultKey)
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
		require.NotNil(t, m.keeper.Keys(x.Membership()), "%s: what it has for this epoch does not suffer", name)
	}
	x.halt(m)
	m.device.sealed[1] = []byte{}
	x.boot(m)
	require.Nil(t, m.keeper.Keys(x.Membership()))
	x.handoff(1)
	require.NotNil(t, m.keeper.Keys(x.Membership()), "it gets its share when it has attested")
}
