package handoff

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/threshold"
)

// answerOf is what a dealer answers that deals a part.
func answerOf(t testing.TB, c *threshold.Commitment, part []byte) []byte {
	t.Helper()
	raw, err := c.MarshalBinary()
	require.NoError(t, err)
	var b cryptobyte.Builder
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(raw) })
	b.AddBytes(part)
	return b.BytesOrPanic()
}

// running is a replica's attempt.
func running(m *machine) *attempt {
	m.party.mu.Lock()
	defer m.party.mu.Unlock()
	return m.party.attempt
}

// columnless takes the column out of the part that a dealer has for a receiver.
func columnless(t testing.TB, dealer *machine, to bft.ReplicaID) []byte {
	t.Helper()
	a := running(dealer)
	a.mu.Lock()
	defer a.mu.Unlock()
	var points []threshold.Point
	for j := 1; j <= a.params.F+1; j++ {
		part, err := a.dealing.Part(j)
		require.NoError(t, err)
		point, err := part.Point(int(to))
		require.NoError(t, err)
		points = append(points, point)
	}
	part, _, err := a.dealing.Commitment().Complete(int(to), points)
	require.NoError(t, err)
	return answerOf(t, a.dealing.Commitment(), part.SecretBytes())
}

func dealersOf(x *cluster) (ids []bft.ReplicaID) {
	for _, c := range x.View().Dealings {
		ids = append(ids, c.Dealer)
	}
	return ids
}

// Replica 1 deals as the case says; its points are lies in all of them. Every replica gets its
// share of the next epoch.
func TestWhateverOneDealerDealsEverybodyGetsItsShare(t *testing.T) {
	for name, deal := range map[string]func(x *cluster, to bft.ReplicaID, true []byte, second *threshold.Dealing) ([]byte, error){
		"nothing": func(*cluster, bft.ReplicaID, []byte, *threshold.Dealing) ([]byte, error) {
			return nil, errors.New("no")
		},
		"rows without columns": func(x *cluster, to bft.ReplicaID, _ []byte, _ *threshold.Dealing) ([]byte, error) {
			return columnless(x.t, x.machines[0], to), nil
		},
		"to some": func(_ *cluster, to bft.ReplicaID, answer []byte, _ *threshold.Dealing) ([]byte, error) {
			if to == 4 {
				return nil, errors.New("not to you")
			}
			return answer, nil
		},
		"garbage": func(_ *cluster, to bft.ReplicaID, answer []byte, _ *threshold.Dealing) ([]byte, error) {
			return bytes.Repeat([]byte{byte(to)}, len(answer)), nil
		},
		"an empty answer": func(*cluster, bft.ReplicaID, []byte, *threshold.Dealing) ([]byte, error) { return []byte{}, nil },
		"a flipped bit": func(_ *cluster, _ bft.ReplicaID, answer []byte, _ *threshold.Dealing) ([]byte, error) {
			answer[len(answer)-1] ^= 1
			return answer, nil
		},
		"another's part": func(x *cluster, to bft.ReplicaID, _ []byte, second *threshold.Dealing) ([]byte, error) {
			part, err := second.Part(int(to)%4 + 1)
			return answerOf(x.t, second.Commitment(), part.SecretBytes()), err
		},
		"two commitments": func(x *cluster, to bft.ReplicaID, answer []byte, second *threshold.Dealing) ([]byte, error) {
			if to == 2 {
				return answer, nil
			}
			part, err := second.Part(int(to))
			return answerOf(x.t, second.Commitment(), part.SecretBytes()), err
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newCluster(t, 1, 0)
			x.handoff()
			x.open([]bft.ReplicaID{2})
			a := x.machines[0].party.wanted(x.View())
			second, err := threshold.Redeal(rand.Reader, a.params, dealingContext(testCluster, 1, a.round, 1), x.machines[0].keeper.now.share)
			require.NoError(t, err)
			var mu sync.Mutex
			met := 0
			x.refuse = func(dealer bft.ReplicaID) bool { return name == "to some" && dealer == 4 } // so that replica 1's is chosen
			x.meddle = func(from, to bft.ReplicaID, method string, answer []byte, err error) ([]byte, error) {
				switch {
				case to != 1 || err != nil:
					return answer, err
				case method == methodPoint:
					answer[len(answer)-1] ^= 1
				case method == methodPart:
					mu.Lock()
					defer mu.Unlock()
					met++
					return deal(x, from, answer, second)
				}
				return answer, nil
			}
			x.machines[0].party.Follow(x.machines[0].ctx, x.View())
			x.follow(x.machines[1:]...)
			require.Positive(t, met, "the dealer was asked")
			if name == "to some" {
				require.Contains(t, dealersOf(x), bft.ReplicaID(1), "its dealing is certified, and chosen")
			} else if name != "two commitments" {
				require.NotContains(t, dealersOf(x), bft.ReplicaID(1), "what is no part is not acknowledged")
			}
			next := x.begin()
			x.learn()
			x.signed()
			for _, machine := range x.machines[1:] {
				require.NotNil(t, machine.keeper.Keys(next), "replica %d", machine.id)
			}
		})
	}
}

func TestABadPartIsThrownAwayAndAskedForAgain(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	x.open([]bft.ReplicaID{2})
	x.follow()
	v, m := x.View(), x.machines[0]
	c := v.Dealings[0]
	k := m.keeper
	k.mu.Lock()
	good := k.held[c.Commitment].part
	k.held[c.Commitment].part = k.held[v.Dealings[1].Commitment].part // a part of another dealing
	k.mu.Unlock()
	good.Wipe()
	a := m.party.newAttempt(v, v.Epoch, v.Round, v.Member(m.id).EpochKey)
	require.Error(t, a.complete(t.Context(), v.Dealings))
	require.Nil(t, k.has(2, c.Commitment), "it is gone")
	asked := x.calls[methodPoint]
	require.NoError(t, until(t.Context(), func() error { return a.complete(t.Context(), v.Dealings) }))
	require.Greater(t, x.calls[methodPoint], asked)
	next := x.begin()
	x.learn()
	require.NotNil(t, k.Keys(next))
}

func TestTriesAreRareAndEndWithTheRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		tries, failure := 0, errors.New("the dealer is down")
		err := until(ctx, func() error { tries++; return failure })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, failure)
		require.LessOrEqual(t, tries, 40)
		require.GreaterOrEqual(t, tries, 30)
	})
}

// An adversary reads f replicas in each epoch, others in each. The parts of a handoff end with the
// epoch that it led to, so he never has those of f + 1.
func TestPartsReadInDifferentEpochsDoNotComplete(t *testing.T) {
	x := newCluster(t, 1, 0)
	var columns []*threshold.Part
	for epoch := range 4 {
		x.handoff(bft.ReplicaID(epoch + 1))
		m := x.machines[epoch]
		for _, d := range m.keeper.held {
			require.EqualValues(t, epoch+1, d.to, "parts of no other handoff are there")
			if completed(d.part) {
				continue // a row only: it tells him less
			}
			part, err := threshold.ParsePart(d.part.SecretBytes())
			require.NoError(t, err)
			columns = append(columns, part)
		}
		for _, c := range x.View().LastHandoff.Dealings {
			commitment := m.keeper.has(bft.Epoch(epoch+1), c.Commitment)
			require.NotNil(t, commitment)
			for target := 1; target <= x.size.N(); target++ {
				var points []threshold.Point
				for _, part := range columns {
					point, err := part.Point(target)
					require.NoError(t, err)
					points = append(points, point)
				}
				_, _, err := commitment.Complete(target, points)
				require.Error(t, err, "epoch %d, dealing of %d", epoch+1, c.Dealer)
			}
			var atOnce []threshold.Point
			for _, helper := range x.machines {
				if part := helper.keeper.held[c.Commitment].part; !completed(part) {
					point, err := part.Point(1)
					require.NoError(t, err)
					atOnce = append(atOnce, point)
				}
			}
			_, _, err := commitment.Complete(1, atOnce[:x.size.F])
			require.Error(t, err)
			_, _, err = commitment.Complete(1, atOnce[:x.size.F+1])
			require.NoError(t, err, "f + 1 at once complete it: the bound is exact")
		}
	}
}

// completed tells whether a part was completed from points: who was slow to fetch it has no column.
func completed(part *threshold.Part) bool {
	_, err := part.Point(1)
	return errors.Is(err, threshold.ErrNoColumn)
}

// A dealing that is good in itself, for this round and by its dealer, but of another secret than
// the dealer's share: acknowledged, it would move the group key.
func TestADealingOfAnotherSecretIsNotAcknowledged(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	x.open([]bft.ReplicaID{2})
	a := x.machines[3].party.wanted(x.View())
	about := dealingContext(testCluster, 1, a.round, 1)
	honest, err := threshold.Redeal(rand.Reader, a.params, about, x.machines[0].keeper.now.share)
	require.NoError(t, err)
	require.NoError(t, a.check(1, honest.Commitment()))
	other, err := threshold.Deal(rand.Reader, a.params, about)
	require.NoError(t, err)
	require.Error(t, a.check(1, other.Commitment()))
	stolen, err := threshold.Redeal(rand.Reader, a.params, about, x.machines[2].keeper.now.share)
	require.NoError(t, err)
	require.Error(t, a.check(1, stolen.Commitment()), "of another's share")
}

// An acknowledgement promises that the part is not lost by a restart: none is given for a part that
// could not be stored.
func TestAPartThatWasNotStoredIsNotAcknowledged(t *testing.T) {
	x := newCluster(t, 1, 0)
	x.handoff()
	m, dealer := x.machines[3], x.machines[0]
	x.halt(m)
	var full atomic.Bool
	m.fs = errorfs.Wrap(m.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return syscall.ENOSPC
		}
		return nil
	}))
	x.boot(m)
	x.learn(m)
	x.open(nil)
	attempts := map[*machine]*attempt{}
	for _, m := range []*machine{m, x.machines[2], dealer} {
		a := m.party.wanted(x.View())
		require.NoError(t, m.keeper.Prepare(a.to, a.round, a.epochKey))
		m.party.attempt, a.stop = a, func() {}
		attempts[m] = a
	}
	require.NoError(t, attempts[dealer].deal())
	full.Store(true)
	require.Error(t, attempts[m].receive(t.Context(), dealer.id))
	require.Empty(t, attempts[dealer].acks)
	require.NoError(t, attempts[x.machines[2]].receive(t.Context(), dealer.id))
	require.Contains(t, attempts[dealer].acks, x.machines[2].id, "one that is stored is")
}
