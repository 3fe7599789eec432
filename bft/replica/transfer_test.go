package replica

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/merkle"
	"github.com/reseal-bft/reseal/bft/store"
)

// far is a world so long that a snapshot is less work than its log, with a state of several parts,
// and an honest replica that has all of it.
type far struct {
	*world
	honest *Replica
}

func newFar(t testing.TB) *far {
	w := newWorld(t, bft.Size{F: 2}, 1)
	for range 3 {
		w.order(1 << 19)
	}
	for range worldRetention.Leap + 50 {
		w.order(0)
	}
	w.orderKey("first", 3<<18)
	w.orderKey("second", 3<<18)
	w.orderKey("third", 3<<18)
	w.orderKey("fourth", 3<<18)
	w.order(0)
	w.order(0)
	r, err := w.replica(w.store(), &peers{serve: map[bft.ReplicaID]serve{2: w.honest(1 << 11), 3: w.honest(1 << 11), 4: w.honest(1 << 11)}})
	require.NoError(t, err)
	_, err = r.catchUp(context.Background())
	require.NoError(t, err)
	require.NoError(t, r.saveSnapshot(context.Background(), r.ledger.certified.Load()))
	return &far{w, r}
}

// forged is the content, and the head, of a snapshot of an empty application with the honest
// certificate.
func (f *far) forged() (content, raw []byte) {
	c := f.honest.ledger.certified.Load()
	state := *c.state
	state.app, state.appRoot = kv.New().State(), kv.New().State().Root()
	h, err := f.honest.headOf(&certifiedState{&state, c.header, c.certificate})
	require.NoError(f.t, err)
	block, err := f.honest.cfg.Store.BlockAt(c.height)
	require.NoError(f.t, err)
	var b bytes.Buffer
	_, err = snapshotOf{context.Background(), &state, h, block}.WriteTo(&b)
	require.NoError(f.t, err)
	raw, err = h.marshal()
	require.NoError(f.t, err)
	return b.Bytes(), raw
}

// onContent serves, behind a head that proves right, a state that is changed, and something behind
// its end: only what the head names can tell.
func onContent(change func(h *head, s *state), behind ...byte) func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error) {
	return func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error) {
		if method != methodHead && method != methodSnapshot {
			return answer, nil
		}
		c := f.honest.ledger.certified.Load()
		h, err := f.honest.headOf(c)
		if err != nil {
			return nil, err
		}
		block, err := f.honest.cfg.Store.BlockAt(c.height)
		if err != nil {
			return nil, err
		}
		s := *c.state
		change(h, &s)
		var content bytes.Buffer
		if _, err := (snapshotOf{ctx, &s, h, block}).WriteTo(&content); err != nil {
			return nil, err
		}
		content.Write(behind)
		if method == methodHead {
			raw, err := h.marshal()
			return append(binary.BigEndian.AppendUint64(nil, uint64(content.Len())), raw...), err
		}
		rest := content.Bytes()[min(content.Len(), int(binary.BigEndian.Uint64(call[8:]))):]
		return rest[:min(len(rest), snapshotPart)], nil
	}
}

// serve is how a peer answers a call.
type serve = func(ctx context.Context, method string, call []byte) ([]byte, error)

// good answers as the honest replica does.
func (f *far) good(ctx context.Context, method string, call []byte) ([]byte, error) {
	switch method {
	case methodHead:
		return f.honest.serveHead(ctx, nil, call)
	case methodSnapshot:
		return f.honest.serveSnapshot(ctx, nil, call)
	case methodLog:
		return f.honest.serveLog(ctx, nil, call)
	}
	return nil, errors.New("no")
}

// snapshotLie is what a Byzantine peer does to the answers of an honest one.
type snapshotLie struct {
	name string
	do   func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error)
	// unasked: with honest peers about, the liar is not to be asked for a single part.
	unasked bool
}

func sized(change func(size uint64) uint64) func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error) {
	return func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error) {
		switch method {
		case methodHead:
			return append(binary.BigEndian.AppendUint64(nil, change(binary.BigEndian.Uint64(answer))), answer[8:]...), nil
		case methodSnapshot:
			return make([]byte, snapshotPart), nil
		}
		return answer, nil
	}
}

// onHead changes the head that is offered.
func onHead(change func(h *head)) func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error) {
	return func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error) {
		if method != methodHead {
			return answer, nil
		}
		h, err := parseHead(answer[8:])
		if err != nil {
			return nil, err
		}
		change(h)
		raw, err := h.marshal()
		return append(answer[:8:8], raw...), err
	}
}

// onPart changes the part of the snapshot at an offset.
func onPart(offset uint64, change func(part []byte) []byte) func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error) {
	return func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error) {
		if method == methodSnapshot && binary.BigEndian.Uint64(call[8:]) == offset {
			return change(bytes.Clone(answer)), nil
		}
		return answer, nil
	}
}

var snapshotLies = []snapshotLie{
	{name: "none", do: func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error) {
		return answer, nil
	}},
	{name: "an endless snapshot", do: sized(func(uint64) uint64 { return 1 << 50 }), unasked: true},
	{name: "a snapshot larger than it is", do: sized(func(size uint64) uint64 { return size + 1<<30 }), unasked: true},
	{name: "a byte more", do: sized(func(size uint64) uint64 { return size + 1 }), unasked: true},
	{name: "a byte less", do: onSize(-1)},
	{name: "nothing but a head", do: onSize(-1 << 40)},
	{name: "zeros", do: sized(func(size uint64) uint64 { return size - 1 })},
	{name: "a higher height", do: onHead(func(h *head) { h.block.Height++ })},
	{name: "another state", do: onHead(func(h *head) { h.app[0] ^= 1 })},
	{name: "another root, with its chain", do: onHead(func(h *head) {
		h.app[0] ^= 1
		h.proof.Above[len(h.proof.Above)-1].StateRoot = h.root()
	})},
	{name: "a forged certificate", do: onHead(func(h *head) { h.proof.Certificate.Signature = []byte("bad") })},
	{name: "no chain", do: onHead(func(h *head) { h.proof.Above = nil })},
	{name: "another group key", do: onHead(func(h *head) { h.groupKey = []byte("evil") })},
	{name: "a forged state, all of a piece", do: func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error) {
		forged, head := f.forged()
		switch method {
		case methodHead:
			return append(binary.BigEndian.AppendUint64(nil, uint64(len(forged))), head...), nil
		case methodSnapshot:
			rest := forged[min(len(forged), int(binary.BigEndian.Uint64(call[8:]))):]
			return rest[:min(len(rest), snapshotPart)], nil
		}
		return answer, nil
	}},
	{name: "other sessions behind the honest head", do: onContent(func(_ *head, s *state) { s.sessions = merkle.Map{} })},
	{name: "another system state behind the honest head", do: onContent(func(_ *head, s *state) {
		s.systemSnapshot = bytes.Clone(s.systemSnapshot)
		s.systemSnapshot[len(s.systemSnapshot)-1] ^= 1
	})},
	{name: "something behind the end", do: onContent(func(*head, *state) {}, 0)},
	{name: "another group key before the honest state", do: onContent(func(h *head, _ *state) { h.groupKey = []byte("evil") })},
	{name: "a part in the middle with a bit flipped", do: onPart(snapshotPart, func(p []byte) []byte { p[1<<20] ^= 1; return p })},
	{name: "the first part with a bit flipped in its head", do: onPart(0, func(p []byte) []byte { p[200] ^= 1; return p })},
	{name: "the first part with a bit flipped in the block", do: onPart(0, func(p []byte) []byte { p[700] ^= 1; return p })},
	{name: "a part cut short", do: onPart(snapshotPart, func(p []byte) []byte { return p[:len(p)-1] })},
	{name: "a part of nothing", do: onPart(snapshotPart, func(p []byte) []byte { return nil })},
	{name: "a part too long", do: onPart(0, func(p []byte) []byte { return append(p, 0) })},
	{name: "silence for parts", do: func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error) {
		if method == methodSnapshot {
			return silent(ctx, method, call)
		}
		return answer, nil
	}},
	{name: "silence for all", do: func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error) {
		return silent(ctx, method, call)
	}},
	{name: "nothing, for ever", do: func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error) { return nil, nil }},
}

// Two peers serve the log in drips, good blocks, but few and slowly; nobody has a snapshot.
func TestTheLogInDrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { require.NoError(t, checkDrips(newFar(t))) })
}

func checkDrips(f *far) error {
	log := func(ctx context.Context, method string, call []byte) ([]byte, error) {
		if method != methodLog {
			return nil, errors.New("no")
		}
		return f.good(ctx, method, call)
	}
	drip := func(ctx context.Context, method string, call []byte) ([]byte, error) {
		if method != methodLog {
			return nil, errors.New("no")
		}
		select {
		case <-time.After(3 * time.Second):
			return f.piece(fromOf(call), littleBehind).marshal()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	r, err := f.replica(f.store(), &peers{serve: map[bft.ReplicaID]serve{2: drip, 3: drip, 4: log, 5: log, 6: log, 7: log}})
	if err != nil {
		return err
	}
	for honest := bft.ReplicaID(4); honest <= 7; honest++ {
		r.merits.blame(honest) // so that the others are asked first
	}
	began := time.Now()
	agreed, err := r.catchUp(context.Background())
	if took := time.Since(began); err != nil || !agreed || took > 30*time.Second || r.ledger.latest.Load().height != f.ledger.latest.Load().height {
		return fmt.Errorf("agreed: %t after %s, at height %d: %w", agreed, took, r.ledger.latest.Load().height, err)
	}
	return nil
}

// A link slower than the minimum rate, to all, is good enough in the end.
func TestASlowNetworkHasItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t)
		slow := func(ctx context.Context, method string, call []byte) ([]byte, error) {
			answer, err := f.good(ctx, method, call)
			select {
			case <-time.After(time.Duration(len(answer)) * time.Second / (minRate / 4)):
				return answer, err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		r, err := f.replica(f.store(), &peers{serve: map[bft.ReplicaID]serve{2: slow, 3: slow, 4: slow, 5: slow}})
		require.NoError(t, err)
		agreed, err := r.catchUp(t.Context())
		require.NoError(t, err)
		require.True(t, agreed)
		require.Equal(t, f.ledger.latest.Load().root, r.ledger.latest.Load().root)
	})
}

// onSize lies about the size, and serves the honest content.
func onSize(change int) func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error) {
	return func(f *far, ctx context.Context, method string, call, answer []byte) ([]byte, error) {
		if method != methodHead {
			return answer, nil
		}
		size := max(0, int(binary.BigEndian.Uint64(answer))+change)
		return append(binary.BigEndian.AppendUint64(nil, uint64(size)), answer[8:]...), nil
	}
}

// checkSnapshotLies lets two of seven replicas lie to one that comes back with nothing, and says
// what is wrong with how it comes through: it must have the honest state in less than a minute,
// without more traffic and leftovers than honest replicas cause.
func checkSnapshotLies(t *testing.T, f *far, lies []snapshotLie) error {
	honestSize := snapshotBytes(f)
	for _, lie := range lies {
		parts, fetched := 0, 0
		liar := func(ctx context.Context, method string, call []byte) ([]byte, error) {
			answer, err := f.good(ctx, method, call)
			if err != nil {
				return nil, err
			}
			answer, err = lie.do(f, ctx, method, call, answer)
			if method == methodSnapshot {
				parts++
				fetched += len(answer)
			}
			return answer, err
		}
		s := f.store()
		network := &peers{serve: map[bft.ReplicaID]serve{2: liar, 3: liar, 4: f.good, 5: f.good, 6: f.good, 7: f.good}}
		r, err := f.replica(s, network)
		if err != nil {
			return err
		}
		for honest := bft.ReplicaID(4); honest <= 7 && !lie.unasked; honest++ {
			r.merits.blame(honest) // so that the liars are asked first
		}
		began := time.Now()
		agreed, err := r.catchUp(context.Background())
		took := time.Since(began)
		got, want := r.ledger.latest.Load(), f.ledger.latest.Load()
		switch {
		case err != nil || !agreed:
			return fmt.Errorf("%s: agreed: %t, %w", lie.name, agreed, err)
		case got.height != want.height || got.root != want.root:
			return fmt.Errorf("%s: at height %d in the end, not %d", lie.name, got.height, want.height)
		case took > time.Minute:
			return fmt.Errorf("%s: it took %s", lie.name, took)
		case lie.unasked && parts > 0:
			return fmt.Errorf("%s: the liar served %d parts", lie.name, parts)
		case fetched > 2*(honestSize+snapshotPart):
			return fmt.Errorf("%s: the liars served %d bytes", lie.name, fetched)
		}
		if _, err := f.replica(s, network); err != nil {
			return fmt.Errorf("%s: started again: %w", lie.name, err)
		}
	}
	return nil
}

func snapshotBytes(f *far) int {
	_, size, _, err := f.honest.cfg.Store.ReadSnapshot(0, 0, nil)
	require.NoError(f.t, err)
	return int(size)
}

func TestLiesAboutSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { require.NoError(t, checkSnapshotLies(t, newFar(t), snapshotLies)) })
}

// One peer alone, and it lies: nothing of it is believed, and nothing left behind; the next start
// finds the state as it was.
func TestALiarAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t)
		for _, lie := range snapshotLies[1:] {
			dir := t.TempDir()
			s, err := store.Open(dir, f.id, store.Options{})
			require.NoError(t, err)
			r, err := f.replica(s, &peers{})
			require.NoError(t, err)
			before := r.ledger.latest.Load()
			liar := func(ctx context.Context, method string, call []byte) ([]byte, error) {
				answer, err := f.good(ctx, method, call)
				if err == nil {
					answer, err = lie.do(f, ctx, method, call, answer)
				}
				return answer, err
			}
			r.cfg.Network = &peers{serve: map[bft.ReplicaID]serve{2: liar}}
			require.Error(t, r.LeapFrom(t.Context(), 2), lie.name)
			require.Same(t, before, r.ledger.latest.Load(), lie.name)
			require.Equal(t, before.appRoot, r.cfg.Application.State().Root(), lie.name)
			require.Equal(t, before.systemRoot, r.cfg.System.Root(), lie.name)
			files, err := os.ReadDir(filepath.Join(dir, "snapshots"))
			require.NoError(t, err)
			require.Empty(t, files, lie.name)
			require.NoError(t, s.Close())
		}
	})
}

// A replica without a state whose first catch-up found nobody, because those it could reach did not
// know its key yet, finds out afterwards that the others are ahead: also when their logs are cut,
// and it knows no group key to verify their snapshots with. One that lies does not make it stop.
func TestAReplicaWithoutAStateFindsOutThatItIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t)
		cut := func(ctx context.Context, method string, call []byte) ([]byte, error) {
			if method == methodLog {
				return nil, errCut
			}
			return f.good(ctx, method, call)
		}
		network := &peers{}
		fresh := newWorld(t, f.system.Membership().Size, 0)
		fresh.id = f.id
		r, err := fresh.replica(fresh.store(), network)
		require.NoError(t, err)
		for honest, behind := range map[int]bool{2: false, 3: true} { // f is 2
			network.serve = map[bft.ReplicaID]serve{}
			for id := range honest {
				network.serve[bft.ReplicaID(id+2)] = cut
			}
			require.Equal(t, behind, r.isAhead(t.Context(), 2), "%d name the group key", honest)
		}
	})
}

// A replica that does not know the group key yet believes it of f + 1 others, and not of f.
func TestTheGroupKeyIsNotBelievedOfFew(t *testing.T) { require.NoError(t, checkGroupKey(t)) }

func checkGroupKey(t testing.TB) error {
	w := newWorld(t, bft.Size{F: 2}, 0)
	r, err := w.replica(w.store(), &peers{})
	if err != nil {
		return err
	}
	offers := func(evil, honest int) (offers []*offer) {
		for i := range evil + honest {
			key := []byte("the group key")
			if i < evil {
				key = []byte("evil")
			}
			offers = append(offers, &offer{head: &head{groupKey: key}, peer: bft.ReplicaID(i + 2)})
		}
		return offers
	}
	for _, c := range []struct {
		evil, honest int
		want         string
	}{{2, 0, ""}, {2, 2, ""}, {2, 3, "the group key"}, {0, 3, "the group key"}, {0, 2, ""}} {
		if got := agreedKey(offers(c.evil, c.honest), r.Membership().Size.F); string(got) != c.want {
			return fmt.Errorf("%d liars and %d honest replicas: %q", c.evil, c.honest, got)
		}
	}
	return nil
}

// A replica whose own state is not the certified one stops with advice, and does not go on with it.
func TestADivergedStateIsNotGoneOnWith(t *testing.T) { require.NoError(t, checkDivergence(t)) }

func checkDivergence(t testing.TB) error {
	w := newWorld(t, bft.Size{F: 1}, 1)
	for range 4 {
		w.order(10)
	}
	r, err := w.replica(w.store(), &peers{serve: map[bft.ReplicaID]serve{2: w.honest(2), 3: w.honest(2)}})
	if err != nil {
		return err
	}
	put, err := kv.Put([]byte("of"), []byte("its own"))
	if err != nil {
		return err
	}
	batch := r.cfg.Application
	for len(w.blocks) > 0 && r.ledger.latest.Load().height < 2 {
		if _, err := r.fetchPiece(context.Background(), 2, newPatience(firstPatience)); err != nil {
			return err
		}
	}
	if err := batch.Apply(99, 0, []bft.Operation{{Client: w.client.Public().(ed25519.PublicKey), Data: put}}, bft.NewResults([]int{1})); err != nil {
		return err
	}
	if _, err := r.catchUp(context.Background()); !errors.Is(err, errFatal) {
		return fmt.Errorf("it goes on: %w", err)
	}
	return nil
}

// A peer that failed once is not the first to be asked again.
func TestAFailedPeerIsAskedLast(t *testing.T) { require.NoError(t, checkMerits(t)) }

func checkMerits(t testing.TB) error {
	w := newWorld(t, bft.Size{F: 2}, 1)
	r, err := w.replica(w.store(), &peers{})
	if err != nil {
		return err
	}
	r.merits.blame(3)
	for range 100 {
		if order := r.askOrder([]bft.ReplicaID{3}); order[len(order)-1] != 3 {
			return fmt.Errorf("it is asked before others: %v", order)
		}
	}
	return nil
}

// The log is cut by bytes, so that of large blocks few are kept. A replica that needs an older one
// takes a snapshot, however near that is.
func TestASnapshotIsTakenWhereTheLogIsCut(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	for range 30 {
		w.order(10)
	}
	honest, err := w.replica(w.store(), &peers{serve: map[bft.ReplicaID]serve{2: w.honest(100), 3: w.honest(100)}})
	require.NoError(t, err)
	_, err = honest.catchUp(t.Context())
	require.NoError(t, err)
	certified := honest.ledger.certified.Load()
	require.NoError(t, honest.saveSnapshot(t.Context(), certified))
	require.NoError(t, honest.cfg.Store.CutLog(store.Cut{Below: certified.height, Most: 1}))
	f := &far{w, honest}
	r, err := w.replica(w.store(), &peers{serve: map[bft.ReplicaID]serve{2: f.good, 3: f.good, 4: f.good}})
	require.NoError(t, err)
	agreed, err := r.catchUp(t.Context())
	require.NoError(t, err)
	require.True(t, agreed)
	require.Equal(t, honest.ledger.latest.Load().root, r.ledger.latest.Load().root)
}

// Whoever catches up learns of states whose blocks it does not have yet: the snapshot is then of the
// next state for which it has them, however near that is, so that a restart has little to execute.
func TestASnapshotThatCouldNotBeWrittenIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, bft.Size{F: 1}, 1)
		for range 80 {
			w.order(1)
		}
		r, err := w.replica(w.store(), &peers{serve: map[bft.ReplicaID]serve{2: w.honest(100), 3: w.honest(100)}})
		require.NoError(t, err)
		_, err = r.catchUp(t.Context())
		require.NoError(t, err)
		certified := r.ledger.certified.Load()
		ahead := *certified
		ahead.header.Parent = bft.Digest{1}
		ahead.header.Height++

		ctx, cancel := context.WithCancel(t.Context())
		go r.snapshotLoop(ctx)
		r.snapshots.height, r.snapshots.at = 0, time.Now().Add(-snapshotPause)
		r.snapshots.consider(&ahead, false)
		synctest.Wait()
		requireSnapshot(t, r, 0)
		r.snapshots.consider(certified, false)
		synctest.Wait()
		requireSnapshot(t, r, certified.height)
		require.False(t, r.snapshots.again.Load())
		cancel()
		synctest.Wait()
	})
}

func requireSnapshot(t *testing.T, r *Replica, height bft.Height) {
	t.Helper()
	found, content, err := r.cfg.Store.LatestSnapshot()
	require.NoError(t, err)
	require.Equal(t, height, found)
	if content != nil {
		require.NoError(t, content.Close())
	}
}
