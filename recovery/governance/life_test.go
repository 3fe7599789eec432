package governance

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// TestWhateverHappensItCanHealAgain lets anything happen to a cluster, in any order: replicas that
// do not come back or come back tampered, handoffs that break off, accusations, quarantines, orders
// at the wrong moment. After every block the invariants hold; and when in the end everybody
// cooperates, everybody has a share again, of the same group key.
func TestWhateverHappensItCanHealAgain(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			options := []option{size(1, int(seed%3)), interval(time.Duration(seed%2) * time.Minute)}
			l := life{inEpoch1(t, options...), rand.New(rand.NewPCG(seed, 0))}
			key := l.state.Membership().GroupKey
			for range 40 {
				l.mishap()
				l.check()
			}
			l.heal()
			require.Equal(t, key, l.state.Membership().GroupKey)
		})
	}
}

// life is a cluster to which things happen.
type life struct {
	*cluster
	random *rand.Rand
}

func (l *life) anybody() bft.ReplicaID {
	return bft.ReplicaID(1 + l.random.IntN(len(l.genesis.Members)))
}

// mishap does one thing that may be refused.
func (l *life) mishap() {
	switch v := l.state.View(); l.random.IntN(10) {
	case 0:
		l.block(l.order(&StartRound{}))
	case 1:
		l.block(l.order(&StartRound{Due: []bft.ReplicaID{l.anybody()}}))
	case 2:
		l.block(l.order(&Quarantine{Replica: l.anybody(), Reason: "chance"}))
	case 3:
		l.block(l.order(&Release{Replica: l.anybody()}))
	case 4:
		l.block(l.equivocate(l.anybody()))
	case 5:
		l.wait(10 * time.Second)
	case 6, 7:
		for _, id := range v.Due {
			if l.random.IntN(4) == 0 {
				l.tpms[id].boot(bad14)
				l.block(l.evidence(id))
			} else {
				l.block(l.reboot(id))
			}
		}
	case 8:
		if v.Phase == PhaseDealing {
			_, ops := l.deal(l.holders()[:l.random.IntN(v.Quorum)]...)
			l.block(ops...)
		}
	case 9:
		if v.Phase == PhaseDealing && len(v.Dealings) == 0 {
			l.handoff()
		}
	}
}

// check holds the state against the invariants of the package's documentation, in plain numbers.
func (l *life) check() {
	v, quorum := l.state.View(), 2*l.genesis.F+l.genesis.C+1
	require.GreaterOrEqual(l.t, len(l.holders()), quorum)
	require.GreaterOrEqual(l.t, l.state.count(l.state.carries), quorum, "a handoff can succeed")
	require.NotEmpty(l.t, v.Leaders)
	for _, id := range v.Leaders {
		require.True(l.t, v.Member(id).HoldsShare, "leader %d has no share", id)
	}
	switch v.Phase {
	case PhaseAttesting:
		require.NotEmpty(l.t, v.Due)
		require.Positive(l.t, v.Deadline)
	case PhaseDealing:
		require.GreaterOrEqual(l.t, len(v.Eligible), quorum)
		require.Positive(l.t, v.Deadline)
		certify := 0
		for _, id := range v.Eligible {
			m := v.Member(id)
			if m.HoldsShare {
				certify++
			}
			require.False(l.t, m.Quarantined)
			require.True(l.t, m.HoldsShare && !m.Due || contains(v.Attested, id), "replica %d is eligible", id)
			require.NotContains(l.t, v.Refused, id)
		}
		require.GreaterOrEqual(l.t, certify, quorum, "dealings can be certified")
	}
}

// heal releases everybody and lets all who have no share come back clean.
func (l *life) heal() {
	for _, m := range l.state.View().Members {
		if m.Quarantined {
			l.accepted(l.order(&Release{Replica: m.ID}))
		}
	}
	for range 4 {
		if l.state.View().Phase != PhaseIdle {
			l.finishRound()
		}
		var away []bft.ReplicaID
		for _, m := range l.state.View().Members {
			if !m.HoldsShare {
				away = append(away, m.ID)
			}
		}
		if len(away) > 0 {
			l.accepted(l.order(&StartRound{Due: away}))
			l.finishRound()
		}
	}
	require.Len(l.t, l.holders(), len(l.genesis.Members))
}

// finishRound begins the running round again, lets the due replicas attest, and hands over, unless
// the round is abandoned.
func (l *life) finishRound() {
	l.accepted(l.order(&StartRound{}))
	for _, id := range l.state.View().Due {
		if l.phase() == PhaseAttesting && !contains(l.state.View().Attested, id) {
			l.accepted(l.reboot(id))
		}
	}
	if l.phase() == PhaseDealing {
		l.handoff()
	}
	require.Equal(l.t, PhaseIdle, l.phase())
}
