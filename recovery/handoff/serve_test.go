package handoff

import (
	"crypto/ed25519"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// refusedCallers are who gets nothing while the handoff runs that replica 1 has attested for, and
// in which replica 2 lapses.
func refusedCallers(t testing.TB, x *cluster) map[string]*transport.Sender {
	t.Helper()
	v := x.View()
	foreign := newKey(t).Public().(ed25519.PublicKey)
	return map[string]*transport.Sender{
		"its key of before":             {ID: 1, EpochKey: v.Member(1).EpochKey},
		"a foreign key":                 {ID: 1, EpochKey: foreign},
		"another member's key":          {ID: 1, EpochKey: v.Member(3).EpochKey},
		"no key":                        {ID: 1},
		"a member that gets no share":   {ID: 2, EpochKey: v.Member(2).EpochKey},
		"a foreign key for a holder":    {ID: 3, EpochKey: foreign},
		"the fresh key of another":      {ID: 3, EpochKey: v.Member(1).NextKey},
		"a stranger":                    {ID: 9, EpochKey: foreign},
		"a stranger of the least index": {ID: 0, EpochKey: v.Member(3).EpochKey},
	}
}

// servesAnyKey says whom a replica gives a part or a point of a dealing; empty for those only that
// the log names.
func servesAnyKey(t testing.TB) string {
	x := newCluster(t, 1, 0)
	x.handoff()
	x.open([]bft.ReplicaID{1}, 2)
	v, dealer := x.View(), x.machines[3]
	x.follow(x.machines[0], x.machines[2], dealer)
	require.NotNil(t, v.Member(1).NextKey)
	dealer.party.mu.Lock()
	a := dealer.party.attempt
	dealer.party.mu.Unlock()
	chosen := x.View().Dealings[0].Commitment
	ask := func(from *transport.Sender, method string) error {
		request := chosen[:]
		if method == methodPart {
			request = a.name()
		}
		_, err := x.call(t.Context(), from, dealer.id, method, request)
		return err
	}
	for _, method := range []string{methodPart, methodPoint} {
		for name, from := range refusedCallers(t, x) {
			if ask(from, method) == nil {
				return name + ": " + method
			}
		}
		require.NoError(t, ask(&transport.Sender{ID: 1, EpochKey: v.Member(1).NextKey}, method), method)
		require.NoError(t, ask(&transport.Sender{ID: 3, EpochKey: v.Member(3).EpochKey}, method), method)
	}
	before, fresh := v.Member(1).EpochKey, v.Member(1).NextKey
	x.begin()
	x.learn()
	x.signed()
	require.Error(t, ask(&transport.Sender{ID: 3, EpochKey: v.Member(3).EpochKey}, methodPart), "dealings end with their epoch")
	require.NoError(t, ask(&transport.Sender{ID: 1, EpochKey: fresh}, methodPoint), "points are for those that are late")
	for name, key := range map[string]ed25519.PublicKey{"before": before, "lapsed": v.Member(2).EpochKey} {
		id := bft.ReplicaID(1)
		if name == "lapsed" {
			id = 2
		}
		if ask(&transport.Sender{ID: id, EpochKey: key}, methodPoint) == nil {
			return name
		}
	}
	require.NoError(t, dealer.party.Learn(later(x, 1)))
	require.Error(t, ask(&transport.Sender{ID: 1, EpochKey: fresh}, methodPoint), "points end with the epoch that they led to")
	return ""
}

func TestPartsAndPointsAreServedOnlyToTheKeyThatTheLogNames(t *testing.T) {
	require.Empty(t, servesAnyKey(t))
}
