package replica

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// hearing starts a replica of an epoch 1 that hears its peer 2, and asks it what it remembers of it.
func hearing(t *testing.T) (w *world, say func(bft.Vote), recalled func() bft.Vote) {
	w = newWorld(t, bft.Size{F: 1}, 1)
	r, err := w.replica(w.store(), &peers{})
	require.NoError(t, err)
	from := transport.Sender{ID: 2, EpochKey: r.Membership().Member(2).EpochKey}
	say = func(v bft.Vote) { r.Receive(from, bft.MarshalMessage(v)) }
	recalled = func() bft.Vote {
		raw, err := r.serveRecall(t.Context(), &from, nil)
		require.NoError(t, err)
		v, err := parseRecalled(raw)
		require.NoError(t, err)
		return v
	}
	return w, say, recalled
}

// Who had a replica in one epoch cannot leave with its peers what would silence it, when it has
// recovered, in a later one.
func TestAVoteOfAnEpochToComeIsNotRemembered(t *testing.T) {
	_, say, recalled := hearing(t)
	say(bft.Vote{Statement: voteIn(9), First: true, Partial: []byte("of this epoch")})
	for _, epoch := range []bft.Epoch{2, 3, 1 << 63} {
		say(bft.Vote{Statement: bft.Statement{Epoch: epoch, View: 1 << 62, Kind: bft.Nullify}, First: true, Partial: []byte("planted")})
	}
	require.Equal(t, voteIn(9), recalled().Statement)
}

// What is said early counts in its epoch if the log then has the key under which it was said.
func TestWhatIsSaidEarlyUnderAnotherKeyIsNotHeard(t *testing.T) {
	w, _, _ := hearing(t)
	r, err := w.replica(w.store(), &peers{})
	require.NoError(t, err)
	m := *r.Membership()
	m.Epoch = 2
	vote := bft.Vote{Statement: bft.Statement{Epoch: 2, View: 3, Kind: bft.Nullify}, First: true, Partial: []byte("partial")}
	e := &epochRun{r: r, membership: &m, config: bft.Config{Cluster: w.id, Epoch: 2, Size: m.Size, Self: 1, Leaders: m.Leaders, Window: worldWindow}}
	e.events.init()
	r.early.keep(transport.Sender{ID: 2, EpochKey: make([]byte, 32)}, 2, vote)
	r.early.keep(transport.Sender{ID: 3, EpochKey: m.Member(3).EpochKey}, 2, vote)
	e.hearEarly()
	_, ok := r.recall.of(2)
	require.False(t, ok)
	_, ok = r.recall.of(3)
	require.True(t, ok)
	require.Len(t, e.events.items, 1)
}

// What one peer says of an epoch to come makes nobody else unheard in the one that is about to begin.
func TestWhatOthersSaidEarlyIsKept(t *testing.T) {
	w, _, _ := hearing(t)
	r, err := w.replica(w.store(), &peers{})
	require.NoError(t, err)
	m := r.Membership()
	say := func(id bft.ReplicaID, epoch bft.Epoch) {
		vote := bft.Vote{Statement: bft.Statement{Epoch: epoch, View: 1, Kind: bft.Nullify}, First: true, Partial: []byte("partial")}
		r.Receive(transport.Sender{ID: id, EpochKey: m.Member(id).EpochKey}, bft.MarshalMessage(vote))
	}
	say(2, 1)
	say(4, 2)
	say(4, 1)
	say(3, 1)
	said := make(map[bft.ReplicaID]int)
	for from, p := range r.early.take(1) {
		said[from.id] = len(p.messages)
	}
	require.Equal(t, map[bft.ReplicaID]int{2: 1, 3: 1}, said)
	require.Len(t, r.early.take(2), 1)
	require.Empty(t, r.early.peers)
}

// A peer remembers the vote that was cast last in a view; the replica that has forgotten it, and
// not the one before it in that view, finds out.
func TestAVoteForgottenInAKnownViewIsNoticed(t *testing.T) {
	w, say, recalled := hearing(t)
	vote := func(view bft.View, kind bft.VoteKind) bft.Vote {
		v := bft.Vote{Statement: bft.Statement{Epoch: 1, View: view, Kind: kind}, First: true}
		if kind != bft.Nullify {
			v.Block = bft.Digest{5}
		}
		v.Partial, _ = ownSigner{}.Sign(v.Statement.Bytes(w.id))
		return v
	}
	said := []bft.Vote{vote(9, bft.Notarize), vote(9, bft.Nullify), vote(9, bft.Notarize)}
	for _, v := range said {
		say(v)
	}
	last := said[1]
	require.Equal(t, last.Statement, recalled().Statement)
	for known, votes := range map[int]bool{1: false, 2: true} {
		w := newWorld(t, bft.Size{F: 1}, 1)
		s := w.store()
		batch := s.NewBatch()
		for _, v := range said[:known] {
			require.NoError(t, batch.PutVote(v))
		}
		require.NoError(t, batch.Commit(true))
		partial, _ := ownSigner{}.Sign(last.Statement.Bytes(w.id))
		r, may, err := mayVote(w, s, 1, &peers{serve: map[bft.ReplicaID]serving{2: remembersVote(last.Statement, partial), 3: recalls(0), 4: recalls(0)}})
		require.NoError(t, err)
		require.Equal(t, votes, may)
		require.Equal(t, !votes, r.Status().Amnesia)
	}
}

// A peer that is connected and does not answer delays no start by much; one that is only slower
// than the others is heard.
func TestASilentPeerDelaysNoStartByMuch(t *testing.T) {
	after := func(d time.Duration, answer serving) serving {
		return func(ctx context.Context, method string, call []byte) ([]byte, error) {
			select {
			case <-time.After(d):
				return answer(ctx, method, call)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	const trip = 80 * time.Millisecond
	for name, last := range map[string]struct {
		serve serving
		took  time.Duration
		votes bool
	}{
		"silent": {func(ctx context.Context, _ string, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }, trip + recallGrace, true},
		"slower": {nil, 2 * trip, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, bft.Size{F: 1}, 1)
				if last.serve == nil {
					last.serve = after(2*trip, shows(w, 9))
				}
				began := time.Now()
				_, votes, err := mayVote(w, w.store(), 1, &peers{serve: map[bft.ReplicaID]serving{2: after(trip, recalls(0)), 3: after(trip, recalls(0)), 4: last.serve}})
				require.NoError(t, err)
				require.Equal(t, last.votes, votes)
				require.Equal(t, last.took, time.Since(began))
			})
		})
	}
}

// A replica without a mark hears a quorum too, however many may be down.
func TestWithoutAMarkAQuorumIsHeard(t *testing.T) {
	for _, size := range []bft.Size{{C: 2}, {F: 1}, {F: 1, C: 1}, {F: 1, C: 2}, {F: 1, C: 3}, {F: 2, C: 2}} {
		w := newWorld(t, size, 1)
		w.order(10)
		serve := make(map[bft.ReplicaID]serving)
		for id := bft.ReplicaID(2); int(id) <= size.N(); id++ {
			serve[id] = w.honest(9)
		}
		s := w.store()
		network := &peers{serve: serve}
		r, err := w.replica(s, network)
		require.NoError(t, err)
		_, err = r.catchUp(t.Context())
		require.NoError(t, err)
		for id := range serve {
			serve[id] = recalls(0)
		}
		start := time.Now()
		r, votes, err := mayVote(w, s, 1, network)
		require.NoError(t, err)
		require.Positive(t, r.Status().Height)
		require.Truef(t, votes, "%+v", size)
		require.Less(t, time.Since(start), recallTimeout)
	}
}
