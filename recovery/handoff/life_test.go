package handoff

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/keystore"
	"github.com/reseal-bft/reseal/threshold"
)

// taken are references to what a keeper holds, so that it can be seen that it was wiped.
type taken struct {
	share    *threshold.Share
	epochKey ed25519.PrivateKey
	vault    *[32]byte
	parts    []*threshold.Part
}

func take(k *Keeper) taken {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := taken{share: k.now.share, epochKey: k.now.epochKey, vault: &k.now.vaultKey}
	for _, d := range k.held {
		t.parts = append(t.parts, d.part)
	}
	return t
}

// left says what of it is still there; empty for nothing.
func (t taken) left() string {
	switch {
	case t.share != nil && t.share.SecretBytes() != nil:
		return "share"
	case !bytes.Equal(t.epochKey, make([]byte, len(t.epochKey))):
		return "epoch key"
	case *t.vault != [32]byte{}:
		return "vault key"
	}
	for _, p := range t.parts {
		if p.SecretBytes() != nil {
			return "part"
		}
	}
	return ""
}

// names lists what a disk keeps under a prefix.
func names(t testing.TB, m *machine, prefix string) []string {
	t.Helper()
	var out []string
	require.NoError(t, m.store.EachMeta(prefix, func(name string, _ []byte) error {
		out = append(out, name)
		return nil
	}))
	return out
}

// later is an epoch that others have gone to without this replica.
func later(x *cluster, by bft.Epoch) *replica.Membership {
	m := *x.Membership()
	m.Epoch += by
	return &m
}

// outlives says what of epoch 1 is left in a replica that got no share of a later epoch and learns
// of it; empty for nothing.
func outlives(t testing.TB, by bft.Epoch) string {
	x := newCluster(t, 1, 0)
	x.handoff()
	m := x.machines[0]
	had := take(m.keeper)
	require.NotEmpty(t, had.parts)
	next := later(x, by)
	if err := m.party.Learn(next); err != nil {
		return err.Error()
	}
	held := m.keeper.Holding()
	if held.Epoch != next.Epoch || held.Share {
		return "the epoch is not the next"
	}
	if by == 1 {
		if had.share.SecretBytes() == nil || !held.Waiting {
			return "the share of the epoch before ended before the new one has signed"
		}
		if m.keeper.Keys(next) != nil || m.keeper.Keys(x.Membership()) != nil {
			return "it signs with the share of the epoch before"
		}
		if _, may := m.keeper.dealt(1); may {
			return "it deals the share of the epoch before"
		}
		if _, err := m.device.Unseal(1); err != nil {
			return "the device is ahead"
		}
	} else if left := had.left(); left != "" {
		return left
	}
	if err := m.keeper.Signed(next.Epoch); err != nil {
		return err.Error()
	}
	if left := had.left(); left != "" {
		return left
	}
	for e := bft.Epoch(0); e < next.Epoch; e++ {
		if _, err := m.device.Unseal(uint64(e)); err == nil {
			return "device"
		}
		if parts := names(t, m, fmt.Sprintf("part/%d/", e)); parts != nil {
			return "parts on disk"
		}
	}
	if m.keeper.Holding().Sealed != next.Epoch {
		return "device"
	}
	for e := bft.Epoch(0); e+1 < next.Epoch; e++ {
		if s := names(t, m, sharingName(e)); s != nil {
			return "sharing on disk"
		}
	}
	return ""
}

func TestAReplicaThatGetsNoShareHoldsNothingOlderThanTheEpoch(t *testing.T) {
	for _, by := range []bft.Epoch{1, 2, 5} {
		t.Run(fmt.Sprint("by ", by), func(t *testing.T) { require.Empty(t, outlives(t, by)) })
	}
}

func TestTheShareOfTheEpochBeforeEndsWhenTheNewOneHasSigned(t *testing.T) {
	require.Empty(t, succeeds(t))
}

// succeeds says what of the epoch before is left in a replica that has a share of the next; empty
// for nothing.
func succeeds(t testing.TB) string {
	x := newCluster(t, 1, 0)
	x.handoff()
	m := x.machines[2]
	had := take(m.keeper)
	x.open([]bft.ReplicaID{3})
	x.follow()
	for e := uint64(1); e <= 2; e++ {
		if _, err := m.device.Unseal(e); err != nil {
			return "before the epoch begins, both are to open"
		}
	}
	x.begin()
	x.learn()
	if had.share.SecretBytes() == nil || !m.keeper.Holding().Waiting {
		return "the share ended too early"
	}
	require.NoError(t, m.keeper.Signed(1), "that an earlier epoch has signed is no news")
	require.NoError(t, m.keeper.Signed(3), "nor is one that is not certified")
	if _, err := m.device.Unseal(1); err != nil {
		return "the device is ahead"
	}
	x.signed()
	if left := had.left(); left != "" {
		return left
	}
	_, err := m.device.Unseal(1)
	if err == nil {
		return "device"
	}
	require.ErrorIs(t, err, keystore.ErrErased)
	if names(t, m, "part/1/") != nil {
		return "parts on disk"
	}
	require.NotNil(t, m.keeper.Keys(x.Membership()))
	return ""
}

func TestCloseLeavesNothingInMemory(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	had := take(x.machines[0].keeper)
	x.halt(x.machines[0])
	require.Empty(t, had.left())
}

// What a replica dealt is its share, and more: it ends when the log has chosen, and none is made
// after that.
func TestADealingEndsWithItsAttempt(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	x.open(nil)
	p := x.machines[0].party
	a := p.wanted(x.View())
	require.NoError(t, a.deal())
	dealing := a.dealing
	_, err := dealing.Part(2)
	require.NoError(t, err)
	a.endDealing()
	_, err = dealing.Part(2)
	require.ErrorIs(t, err, threshold.ErrWiped)
	require.Nil(t, a.dealing)

	late := p.newAttempt(x.View(), a.from, a.round, a.epochKey)
	late.endDealing() // the round ended while it was at work
	require.NoError(t, late.deal())
	require.Nil(t, late.dealing)
}
