package handoff

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/recovery/governance"
	"github.com/reseal-bft/reseal/threshold"
)

// noted is what somebody in the solo has noted of a replica's memory: where its secrets were, and
// what they were.
type noted struct {
	share    *threshold.Share
	before   *threshold.Share
	vaultKey [32]byte
	vault    *secret
	parts    []*threshold.Part
	keys     []ed25519.PrivateKey
}

func (m *solo) note() *noted {
	k := m.keeper
	i := &noted{keys: append([]ed25519.PrivateKey{k.fresh, k.spare}, k.found...)}
	for _, d := range k.held {
		i.parts = append(i.parts, d.part)
	}
	if k.now != nil {
		i.share, i.vaultKey, i.vault = k.now.share, k.now.vaultKey, k.now
	}
	if k.before != nil {
		i.before = k.before.share
	}
	return i
}

// dealAgain deals for an epoch in a round that comes so many after the first.
func (m *solo) dealAgain(to bft.Epoch, round governance.Round) *testHandoff {
	h := m.deal(to)
	h.round += round
	for _, d := range h.parts {
		d.round = h.round
	}
	return h
}

// stored counts what the disk keeps of parts that lead to an epoch.
func (m *solo) stored(to bft.Epoch) (n int) {
	require.NoError(m.t, m.disk.EachMeta(fmt.Sprintf("part/%d/", to), func(string, []byte) error { n++; return nil }))
	return n
}

// fates are all that can become of replica 1 between epoch 2 and the epoch that it then learns of.
var fates = map[string]struct {
	learns bft.Epoch
	share  bool // it has one in the end
	live   func(*solo)
}{
	"it gets its share": {3, true, func(m *solo) {
		h := m.deal(3)
		require.NoError(m.t, m.receive(h))
		require.NoError(m.t, m.complete(h))
		m.agree(h)
	}},
	"lapsed, or quarantined": {3, false, func(m *solo) { m.pass(3) }},
	"refused after it made a fresh key": {3, false, func(m *solo) {
		_, err := m.keeper.Fresh(2, 1)
		require.NoError(m.t, err)
		m.pass(3)
	}},
	"due twice, and refused": {3, false, func(m *solo) {
		for due := range bft.Height(2) {
			_, err := m.keeper.Fresh(2, due)
			require.NoError(m.t, err)
		}
		m.pass(3)
	}},
	"two rounds are given up, and the third lapses": {3, false, func(m *solo) {
		for round := governance.Round(1); round <= 2; round++ {
			h := m.dealAgain(3, round)
			require.NoError(m.t, m.receive(h))
			require.NoError(m.t, m.keeper.void(3, h.round))
		}
		m.pass(3)
	}},
	"crashed in two rounds of one handoff, off when it ends": {4, false, func(m *solo) {
		for round := governance.Round(1); round <= 2; round++ {
			require.NoError(m.t, m.receive(m.dealAgain(3, round)))
			m.boot()
		}
		m.pass(3)
		m.pass(4)
		m.boot()
	}},
	"crashed in mid-handoff": {3, false, func(m *solo) {
		h := m.deal(3)
		require.NoError(m.t, m.receive(h))
		m.agree(h)
		m.boot()
	}},
	"late": {3, false, func(m *solo) {
		h := m.deal(3)
		require.NoError(m.t, m.receive(h))
		m.agree(h)
	}},
	"away, and back over the log or by a snapshot": {6, false, func(m *solo) {
		for epoch := bft.Epoch(3); epoch <= 6; epoch++ {
			m.pass(epoch)
		}
	}},
	"off, and back": {6, false, func(m *solo) {
		for epoch := bft.Epoch(3); epoch <= 6; epoch++ {
			m.pass(epoch)
		}
		m.boot()
	}},
	"off in mid-handoff, and back": {6, false, func(m *solo) {
		require.NoError(m.t, m.receive(m.deal(3)))
		for epoch := bft.Epoch(3); epoch <= 6; epoch++ {
			m.pass(epoch)
		}
		m.boot()
	}},
}

func TestWhateverBecomesOfItNothingOutlivesItsEpoch(t *testing.T) {
	for name, fate := range fates {
		t.Run(name, func(t *testing.T) {
			m := newSolo(t)
			m.enter(2)
			require.Equal(t, params.T, m.stored(2))
			was := []*noted{m.note()}
			fate.live(m)
			was = append(was, m.note())
			next := m.membership(fate.learns)
			require.NoError(t, m.keeper.Learn(next))
			follows := fate.learns == 3

			// From the moment that it learns of the epoch nothing is left but, perhaps, the share
			// of the epoch before.
			for _, i := range was {
				require.Zero(t, i.vault.vaultKey, "a vault key of before")
				for _, key := range i.keys {
					for _, b := range key {
						require.Zero(t, b)
					}
				}
			}
			for _, part := range was[0].parts {
				require.Nil(t, part.SecretBytes(), "a column of a handoff that is over")
			}
			for _, d := range m.keeper.held {
				require.Equal(t, fate.learns, d.to)
			}
			require.Zero(t, m.stored(2))
			require.Equal(t, follows, m.keeper.before != nil)
			require.Nil(t, m.keeper.Keys(m.membership(2)), "the old share is used for nothing")
			require.Equal(t, fate.share, m.keeper.Keys(next) != nil)
			_, err := m.device.Unseal(2)
			if follows {
				require.NoError(t, err, "until the new epoch has signed, the device opens both")
			} else {
				require.ErrorIs(t, err, keystore.ErrErased)
			}

			// And when the epoch has signed, not that either.
			require.NoError(t, m.keeper.Signed(fate.learns))
			for _, i := range append(was, &noted{share: was[1].share}) {
				if i.share != nil {
					require.Nil(t, i.share.SecretBytes(), "the share of an epoch that is over")
				}
			}
			require.Nil(t, m.keeper.before)
			for epoch := range uint64(fate.learns) {
				_, err := m.device.Unseal(epoch)
				require.ErrorIs(t, err, keystore.ErrErased)
			}
			require.EqualValues(t, fate.learns, m.device.epoch)
			require.Equal(t, fate.share, m.keeper.Keys(next) != nil)
			m.boot()
			require.NoError(t, m.keeper.Learn(next))
			require.Nil(t, m.keeper.Keys(next), "what was found is not used")
			if fate.share {
				m.resume()
			}
			require.Equal(t, fate.share, m.keeper.Keys(next) != nil, "also after a restart")
		})
	}
}

func TestALateReplicaCompletesItsShareInTheNewEpoch(t *testing.T) {
	m := newSolo(t)
	m.enter(1)
	h := m.deal(2)
	require.NoError(t, m.receive(h))
	m.agree(h)
	require.NoError(t, m.keeper.Learn(m.membership(2)))
	require.NoError(t, m.keeper.Signed(2))
	require.Nil(t, m.keeper.Keys(m.membership(2)))
	require.False(t, m.keeper.Holding().Share, "it says so")
	require.NoError(t, m.complete(h))
	require.NotNil(t, m.keeper.Keys(m.membership(2)))
	require.True(t, m.keeper.Holding().Share)
	m.boot()
	require.NoError(t, m.keeper.Learn(m.membership(2)))
	m.resume()
	require.NotNil(t, m.keeper.Keys(m.membership(2)))
	require.Equal(t, params.T, m.keeper.Holding().Parts, "others may still ask for points")
}

// A replica whose driver is slow (its device takes seconds) begins its part by what the log said
// before the epoch began, when the epoch's keys have been asked for. It is told of the share all
// the same: otherwise it would not vote before the next round.
func TestAShareIsNewsWhicheverAttemptBringsIt(t *testing.T) {
	x := newCluster(t, 1, 0)
	slow := x.machines[3]
	x.open(nil)
	seen := x.View()
	x.follow(x.machines[:3]...)
	next := x.begin()
	x.learn()
	slow.party.Await(t.Context(), next.Epoch, time.Hour) // there is no attempt to wait for
	slow.party.Follow(slow.ctx, seen)
	x.await(slow)
	require.NotNil(t, slow.keeper.Keys(next))
	select {
	case <-slow.news:
	case <-time.After(time.Minute):
		t.Fatal("nobody is told that the share is there")
	}
}

// A replica that is late needs f + 1 points of each dealing. One that takes the call, and is silent,
// made each wait for ten seconds, one dealing after the other.
func TestWhoIsSilentKeepsNobodyFromItsShare(t *testing.T) {
	x := newCluster(t, 1, 0)
	slow := x.machines[3]
	x.open(nil)
	x.follow(x.machines[:3]...)
	next := x.begin()
	x.learn()
	left := make(chan error, 100)
	x.mu.Lock()
	for _, method := range []string{methodCommitment, methodPoint} {
		x.methods[1][method] = func(ctx context.Context, _ *transport.Sender, _ []byte) ([]byte, error) {
			<-ctx.Done()
			left <- ctx.Err()
			return nil, ctx.Err()
		}
	}
	x.mu.Unlock()
	slow.party.Follow(slow.ctx, x.View())
	x.await(slow)
	require.NotNil(t, slow.keeper.Keys(next))
	for range 2 * params.T { // of each method, one call for each dealing
		require.ErrorIs(t, <-left, context.Canceled, "it is not waited for")
	}
}

// TestPowerCutAtEveryChangeOfTheDevice: wherever the power goes in a handoff, what is left is
// enough, if only the parts are asked for again.
func TestPowerCutAtEveryChangeOfTheDevice(t *testing.T) {
	for _, after := range []bool{false, true} {
		for cut := 1; ; cut++ {
			m := newSolo(t)
			m.enter(1)
			h := m.deal(2)
			m.device.changes, m.device.cut, m.device.after = 0, cut, after
			began := false
			live := func() error {
				if !began {
					if err := errors.Join(m.receive(h), m.complete(h)); err != nil {
						return err
					}
					m.agree(h)
					began = true
				}
				err := m.keeper.Learn(m.membership(2))
				m.resume()
				return errors.Join(err, m.keeper.Signed(2))
			}
			if err := live(); err == nil {
				require.Greater(t, cut, 3)
				break
			}
			m.boot()
			m.resume()
			if !began {
				require.NotNil(t, m.keeper.Keys(m.membership(1)), "the old epoch goes on; cut %d", cut)
			}
			require.NoError(t, live(), "cut %d", cut)
			require.NotNil(t, m.keeper.Keys(m.membership(2)), "cut %d", cut)
			_, err := m.device.Unseal(1)
			require.ErrorIs(t, err, keystore.ErrErased)
		}
	}
}

func TestAFreshKeyThatTheLogNamesSurvivesARestart(t *testing.T) {
	m := newSolo(t)
	m.enter(1)
	fresh, err := m.keeper.Fresh(1, 1)
	require.NoError(t, err)
	m.keys = append(m.keys, m.keys[0], m.keeper.PrivateKey(fresh))
	m.boot()
	h := m.deal(2)
	require.NoError(t, m.receive(h), "the log names it")
	require.NoError(t, m.complete(h))
	m.agree(h)
	require.NoError(t, m.keeper.Learn(m.membership(2)))
	require.True(t, m.keeper.Keys(m.membership(2)).EpochKey.Public().(ed25519.PublicKey).Equal(fresh))
}

// TestNothingIsStoredUnderAKeyFromBeforeTheBoot: whoever copied the vault keys of a solo before its
// reboot reads nothing that it stores afterwards.
func TestNothingIsStoredUnderAKeyFromBeforeTheBoot(t *testing.T) {
	m := newSolo(t)
	m.enter(1)
	h := m.deal(2)
	require.NoError(t, m.receive(h))
	stolen := [][32]byte{m.keeper.now.vaultKey, m.keeper.next.vaultKey}
	m.boot()
	require.NoError(t, m.receive(h))
	stolen = append(stolen, m.keeper.next.vaultKey)
	m.boot() // and taken again, and rebooted again
	require.NoError(t, m.receive(h))
	require.Equal(t, params.T, m.stored(2))
	for i := range stolen {
		parts, err := m.keeper.disk.loadParts(2, 1, &stolen[i])
		require.NoError(t, err)
		require.Empty(t, parts)
	}
	mine, err := m.keeper.disk.loadParts(2, 1, &m.keeper.next.vaultKey)
	require.NoError(t, err)
	require.Len(t, mine, params.T)
}

// TestVoidAttemptsLeaveNothing: q dealings of any one attempt deal the group's secret, also those
// that the log did not choose.
func TestVoidAttemptsLeaveNothing(t *testing.T) {
	m := newSolo(t)
	m.enter(1)
	void, good := m.deal(2), m.deal(2)
	require.NoError(t, m.receive(void))
	first := m.note()
	require.NoError(t, m.keeper.void(2, void.round))
	require.Zero(t, m.stored(2))
	wiped := 0
	for _, part := range first.parts {
		if part.SecretBytes() == nil {
			wiped++
		}
	}
	require.Equal(t, params.T, wiped, "those of the attempt, and none of those that led to this epoch")
	for _, d := range m.keeper.held {
		require.EqualValues(t, 1, d.to)
	}
	late := void.parts[0]
	require.ErrorIs(t, m.keeper.keep(&held{to: 2, round: late.round, commitment: late.commitment, part: late.part}), errEpochOver, "what comes too late is wiped")
	require.Nil(t, late.part.SecretBytes())

	good.round++
	for _, d := range good.parts {
		d.round++
	}
	require.NoError(t, m.receive(good))
	require.NoError(t, m.complete(good))
	for _, d := range m.keeper.held {
		require.True(t, d.to == 1 || d.round == good.round)
	}
}
