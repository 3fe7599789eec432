package replica

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/store"
)

// markCase is what a replica, which has voted up to views 7, 5 and 6 and has the log up to height
// 20, makes of a mark at its start in epoch 3.
type markCase struct {
	name   string
	alter  func(m *mark)
	raw    func(raw []byte) []byte
	live   bool
	forgot bool
}

var markCases = []markCase{
	{name: "as it was", alter: func(*mark) {}},
	{name: "a second old", alter: func(m *mark) { m.voted[bft.Notarize], m.final = 6, 17 }},
	{name: "no mark", raw: func([]byte) []byte { return nil }},
	{name: "of the epoch before", alter: func(m *mark) { m.epoch, m.voted[bft.Notarize], m.final = 2, 900, 900 }},
	{name: "a notarize vote forgotten", alter: func(m *mark) { m.voted[bft.Notarize]++ }, forgot: true},
	{name: "a nullify vote forgotten", alter: func(m *mark) { m.voted[bft.Nullify]++ }, forgot: true},
	{name: "a finalize vote forgotten", alter: func(m *mark) { m.voted[bft.Finalize]++ }, forgot: true},
	{name: "a block forgotten", alter: func(m *mark) { m.final++ }, forgot: true},
	{name: "forgetful before", alter: func(m *mark) { m.forgetful = true }, forgot: true},
	{name: "of a later epoch", alter: func(m *mark) { m.epoch++ }, forgot: true},
	{name: "of another replica", alter: func(m *mark) { m.self++ }, forgot: true},
	{name: "of another cluster", alter: func(m *mark) { m.cluster[0] ^= 1 }, forgot: true},
	{name: "a bit flipped", raw: func(raw []byte) []byte { raw[len(markDomain)+60] ^= 1; return raw }, forgot: true},
	{name: "the tag exchanged", raw: func(raw []byte) []byte { raw[len(raw)-1] ^= 1; return raw }, forgot: true},
	{name: "cut short", raw: func(raw []byte) []byte { return raw[:len(raw)-1] }, forgot: true},
	{name: "emptied", raw: func(raw []byte) []byte { return raw[:0] }, forgot: true},
	{name: "emptied, but the epoch began in this process", raw: func(raw []byte) []byte { return raw[:0] }, live: true},
	{name: "made long", raw: func(raw []byte) []byte { return append(raw, 0) }, forgot: true},
	{name: "planted, but the epoch began in this process", alter: func(m *mark) { m.epoch = 1 << 60 }, live: true},
	{name: "garbage, but the epoch began in this process", raw: func([]byte) []byte { return []byte("garbage") }, live: true},
	{name: "a vote forgotten, in an epoch that seemed to begin in this process", alter: func(m *mark) { m.voted[bft.Nullify]++ }, live: true, forgot: true},
}

func checkMarks() error {
	key := []byte("the epoch's key")
	for _, c := range markCases {
		m := &mark{cluster: bft.Digest{7}, self: 2, epoch: 3, voted: [4]bft.View{0, 7, 5, 6}, certified: 18, final: 20}
		if c.alter != nil {
			c.alter(m)
		}
		f := found{raw: m.marshal(key), voted: [4]bft.View{0, 7, 5, 6}, final: 20}
		if c.raw != nil {
			f.raw = c.raw(f.raw)
		}
		f.mark, _ = parseMark(f.raw)
		if reason := f.forgot(bft.Digest{7}, 2, 3, key, c.live); (reason != "") != c.forgot {
			return fmt.Errorf("%s: %q", c.name, reason)
		}
	}
	return nil
}

func TestMarks(t *testing.T) { require.NoError(t, checkMarks()) }

func FuzzParseMark(f *testing.F) {
	m := mark{cluster: bft.Digest{7}, self: 2, epoch: 3, voted: [4]bft.View{0, 7, 5, 6}, certified: 18, final: 20, forgetful: true}
	f.Add(m.marshal([]byte("key")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMark(data)
		if err != nil {
			return
		}
		again := m.marshal(nil)
		body := len(data) - 32
		require.True(t, bytes.Equal(data[:body], again[:body]), "one encoding")
		_ = markIsGood(data, []byte("key"))
	})
}

// ownSigner signs as the replica under test does, and nobody else can.
type ownSigner struct{}

func (ownSigner) Sign(message []byte) ([]byte, error) {
	sum := sha256.Sum256(append([]byte("the share of replica 1"), message...))
	return sum[:], nil
}

// mayVote starts a replica on a store and says whether it may vote in an epoch.
func mayVote(w *world, s *store.Store, epoch bft.Epoch, network *peers) (*Replica, bool, error) {
	r, err := w.replica(s, network)
	if err != nil {
		return nil, false, err
	}
	keys := EpochKeys{Signer: ownSigner{}, MarkKey: []byte("key")}
	restored, err := s.Restore(epoch)
	if err != nil {
		return nil, false, err
	}
	m := *r.Membership()
	m.Epoch = epoch
	r.remember(context.Background(), &m, &keys, &restored)
	return r, keys.Signer != nil, nil
}

type serving = func(context.Context, string, []byte) ([]byte, error)

// recalls answers as a peer that says that it has had votes of this replica up to a view of epoch
// 1, and has none to show.
func recalls(view bft.View) serving { return remembers(view, []byte("not signed")) }

// shows answers as one that has the vote.
func shows(w *world, view bft.View) serving {
	partial, _ := ownSigner{}.Sign(voteIn(view).Bytes(w.id))
	return remembers(view, partial)
}

func voteIn(view bft.View) bft.Statement {
	return bft.Statement{Epoch: 1, View: view, Kind: bft.Nullify}
}

func remembers(view bft.View, partial []byte) serving {
	if view == 0 {
		return remembersVote(bft.Statement{}, nil)
	}
	return remembersVote(voteIn(view), partial)
}

func remembersVote(statement bft.Statement, partial []byte) serving {
	return func(_ context.Context, method string, _ []byte) ([]byte, error) {
		switch {
		case method != methodRecall:
			return nil, errors.New("no")
		case statement == bft.Statement{}:
			return nil, nil
		}
		return bft.MarshalMessage(bft.Vote{Statement: statement, First: true, Partial: partial}), nil
	}
}

// checkRecall lets peers say what they have had of a replica whose store knows its vote in view 9.
func checkRecall(t testing.TB) error {
	nonsense := func(context.Context, string, []byte) ([]byte, error) { return []byte("nonsense"), nil }
	w := newWorld(t, bft.Size{F: 1}, 1)
	type serve = map[bft.ReplicaID]serving
	for _, c := range []struct {
		name  string
		peers serve
		votes bool
		// forgot: it has found out that it has forgotten votes; without it, and without votes, too
		// few others were heard.
		forgot bool
	}{
		{"nobody is there", serve{}, false, false},
		{"one is there", serve{2: recalls(9)}, false, false},
		{"a quorum with itself", serve{2: recalls(9), 4: recalls(0)}, true, false},
		{"all know as much", serve{2: recalls(9), 3: recalls(8), 4: recalls(0)}, true, false},
		{"one liar", serve{2: recalls(200), 3: recalls(9), 4: recalls(9)}, true, false},
		{"one liar, alone", serve{2: recalls(200)}, false, false},
		{"one talks nonsense", serve{2: nonsense, 3: recalls(9)}, false, false},
		{"two say more", serve{2: recalls(10), 3: recalls(12), 4: recalls(0)}, false, true},
		{"two say more, one is silent", serve{2: recalls(10), 3: silent, 4: recalls(11)}, false, true},
		{"one shows a vote that is known", serve{2: shows(w, 9), 3: recalls(0), 4: recalls(0)}, true, false},
		{"one shows a later vote, others are liars", serve{2: shows(w, 10), 3: recalls(0), 4: recalls(0)}, false, true},
		{"one shows a later vote, nobody else is there", serve{3: shows(w, 10)}, false, true},
	} {
		w := newWorld(t, bft.Size{F: 1}, 1)
		s := w.store()
		batch := s.NewBatch()
		if err := batch.PutVote(bft.Vote{Statement: voteIn(9), First: true}); err != nil {
			return err
		}
		if err := batch.Commit(true); err != nil {
			return err
		}
		r, votes, err := mayVote(w, s, 1, &peers{serve: c.peers})
		if forgot := err == nil && r.Status().Amnesia; err != nil || votes != c.votes || forgot != c.forgot {
			return fmt.Errorf("%s: votes: %t, has forgotten: %t, %w", c.name, votes, forgot, err)
		}
	}
	return nil
}

// Whatever lies where the mark should be, the start goes on; what cannot be read is no consent to
// forget.
func TestAMarkThatCannotBeReadCountsAsDamaged(t *testing.T) {
	for name, leave := range map[string]func(path string) error{
		"a directory":  func(path string) error { return os.Mkdir(path, 0o700) },
		"an empty one": func(path string) error { return os.WriteFile(path, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, bft.Size{F: 1}, 1)
			dir := filepath.Join(t.TempDir(), "store")
			s, err := store.Open(dir, w.id, store.Options{})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, s.Close()) })
			require.NoError(t, leave(dir+".mark"))
			quorum := &peers{serve: map[bft.ReplicaID]serving{2: recalls(0), 3: recalls(0)}}
			r, votes, err := mayVote(w, s, 1, quorum)
			require.NoError(t, err)
			require.False(t, votes)
			require.True(t, r.Status().Amnesia)
		})
	}
}

func TestPeersRemember(t *testing.T) { require.NoError(t, checkRecall(t)) }

// Once forgetful, a replica stays so for the epoch, whatever its store knows after it has caught
// up, and is well again in the next.
func TestAmnesiaLastsForTheEpoch(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	s := w.store()
	quorum := &peers{serve: map[bft.ReplicaID]serving{2: recalls(0), 3: recalls(0)}}
	m := mark{cluster: w.id, self: 1, epoch: 1, final: 3}
	require.NoError(t, s.WriteMark(m.marshal([]byte("key"))))
	r, votes, err := mayVote(w, s, 1, &peers{})
	require.NoError(t, err)
	require.False(t, votes)
	require.True(t, r.Status().Amnesia)
	require.Contains(t, r.Status().AmnesiaReason, "up to 3")
	for range 5 {
		w.order(10)
	}
	r, err = w.replica(s, &peers{serve: map[bft.ReplicaID]func(context.Context, string, []byte) ([]byte, error){2: w.honest(9), 3: w.honest(9)}})
	require.NoError(t, err)
	_, err = r.catchUp(t.Context())
	require.NoError(t, err)
	for range 2 {
		_, votes, err = mayVote(w, s, 1, &peers{})
		require.NoError(t, err)
		require.False(t, votes, "its store knows more than the mark now, and its votes no more than before")
	}
	r, votes, err = mayVote(w, s, 2, quorum)
	require.NoError(t, err)
	require.True(t, votes)
	require.False(t, r.Status().Amnesia)
}

// Votes that are forgotten on purpose, because what is final has passed them, are no amnesia.
func TestForgettingOldVotesIsNoAmnesia(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	for range 6 {
		w.order(10)
	}
	s := w.store()
	r, err := w.replica(s, &peers{serve: map[bft.ReplicaID]func(context.Context, string, []byte) ([]byte, error){2: w.honest(9), 3: w.honest(9)}})
	require.NoError(t, err)
	_, err = r.catchUp(t.Context())
	require.NoError(t, err)
	quorum := &peers{serve: map[bft.ReplicaID]serving{2: recalls(0), 3: recalls(0)}}
	m := mark{cluster: w.id, self: 1, epoch: 1, final: 6, voted: [4]bft.View{0, 5, 2, 1}}
	require.NoError(t, s.WriteMark(m.marshal([]byte("key"))))
	_, votes, err := mayVote(w, s, 1, quorum)
	require.NoError(t, err)
	require.True(t, votes)
}

// A mark that outlives the votes of which it tells would silence, after a power cut, a replica that
// has told nobody of them.
func TestAMarkTellsOfNothingThatAPowerCutTakes(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	disk := vfs.NewCrashableMem()
	s, err := store.Open("a/store", w.id, store.Options{FS: disk})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	r, err := w.replica(s, &peers{serve: map[bft.ReplicaID]serving{2: recalls(0), 3: recalls(0)}})
	require.NoError(t, err)
	r.cfg.Timeouts = someTimeouts
	e, err := r.newRun(t.Context(), r.Membership(), EpochKeys{Signer: ownSigner{}, MarkKey: []byte("key")})
	require.NoError(t, err)
	require.True(t, e.config.Voter)

	vote := bft.Vote{Statement: voteIn(9), First: true}
	batch := s.NewBatch()
	require.NoError(t, batch.PutVote(vote))
	require.NoError(t, batch.Commit(false))
	e.noteVoted(vote)
	m := e.mark()
	require.NoError(t, e.writeMark(&m))

	after, err := store.Open("a/store", w.id, store.Options{FS: disk.CrashClone(vfs.CrashCloneCfg{})})
	require.NoError(t, err)
	defer func() { require.NoError(t, after.Close()) }()
	raw, err := after.ReadMark()
	require.NoError(t, err)
	kept, err := parseMark(raw)
	require.NoError(t, err)
	require.EqualValues(t, 9, kept.voted[bft.Nullify])
	votes, err := after.Votes(1)
	require.NoError(t, err)
	require.Len(t, votes, 1)
}

// A snapshot makes old votes unnecessary, but not those a little below the final view: late
// finalize votes still go there, and contradict them if they are gone.
func TestASnapshotForgetsOnlyVotesThatBindNoMore(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	for range 2 * guardedViews {
		w.order(0)
	}
	s := w.store()
	r, err := w.replica(s, &peers{serve: map[bft.ReplicaID]serving{2: w.honest(1 << 11), 3: w.honest(1 << 11)}})
	require.NoError(t, err)
	_, err = r.catchUp(t.Context())
	require.NoError(t, err)
	c := r.ledger.certified.Load()
	block, err := s.BlockAt(c.height)
	require.NoError(t, err)
	batch := s.NewBatch()
	for view := bft.View(1); view <= block.View; view++ {
		require.NoError(t, batch.PutVote(bft.Vote{Statement: voteIn(view)}))
	}
	require.NoError(t, batch.Commit(true))
	r.forget(c)
	votes, err := s.Votes(1)
	require.NoError(t, err)
	require.NotEmpty(t, votes)
	require.Equal(t, block.View-guardedViews, votes[0].View)
}
