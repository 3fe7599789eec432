package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/merkle"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
	"github.com/reseal-bft/reseal/threshold"
	"github.com/reseal-bft/reseal/threshold/thresholdtest"
)

var cluster = bft.ClusterID{4, 5, 6}

// service stands for the replicas behind their transports: one executor, and a group key of one share.
type service struct {
	t     testing.TB
	share *threshold.Share
	key   *threshold.PublicKey

	mu       sync.Mutex
	store    *kv.Store
	sessions merkle.Map
	results  map[string][][]byte
	height   bft.Height
	time     time.Time
	executed int
	lazy     bool // executes the first operation of a request only
}

func newService(t testing.TB) *service {
	sharing, shares, err := thresholdtest.Sharing(threshold.Params{N: 1, T: 1})
	require.NoError(t, err)
	return &service{
		t: t, share: shares[0], key: sharing.GroupKey(),
		store: kv.New(), results: make(map[string][][]byte), time: time.Now(),
	}
}

// certify signs a header for the state as it is.
func (s *service) certify() (bft.Header, bft.Certificate) {
	h := bft.Header{
		Epoch: 1, View: bft.View(s.height), Height: s.height + 2, StateHeight: s.height, Time: s.time.UnixMilli(),
		StateRoot: request.StateRoot(s.height, s.store.State().Root(), s.sessions.Root(), bft.Digest{}),
	}
	c := bft.Certificate{Statement: bft.Statement{Epoch: 1, View: h.View, Kind: bft.Notarize, Block: h.Digest()}}
	p := s.share.Sign(c.Statement.Bytes(cluster))
	c.Signature = p.Signature[:]
	return h, c
}

func (s *service) submit(raw []byte) ([]byte, error) {
	r, err := request.Parse(raw)
	if err != nil {
		return nil, err
	}
	if err := r.Verify(cluster); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	leaf := request.SessionLeaf(r.Client, r.Sequence)
	value, _ := s.sessions.Get(leaf)
	record, _ := request.ParseRecord(value)
	if r.Sequence > record.Sequence {
		s.height++
		s.executed++
		var ops []bft.Operation
		for i, op := range r.Operations {
			if s.lazy && i > 0 {
				break
			}
			ops = append(ops, bft.Operation{Client: r.Client, Data: op})
		}
		made := bft.NewResults([]int{len(ops)})
		require.NoError(s.t, s.store.Apply(s.height, 0, ops, made))
		results := made.Of(0)
		record = request.Record{Sequence: r.Sequence, Height: s.height, Results: request.ResultsDigest(results)}
		s.sessions = s.sessions.Update([]merkle.Change{{Key: leaf, Value: record.MarshalBinary()}})
		s.results[string(raw)] = results
	}
	reply := request.Reply{Results: s.results[string(raw)], Record: record, Proof: s.sessions.Prove(leaf), AppRoot: s.store.State().Root()}
	reply.Header, reply.Certificate = s.certify()
	return reply.MarshalBinary()
}

// claim answers how far the state is proven.
func (s *service) claim([]byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, c := s.certify()
	anchor := request.Anchor{Header: h, Certificate: c}
	return anchor.MarshalBinary()
}

func (s *service) read(call []byte) ([]byte, error) { return s.query(call[8:]) }

func (s *service) query(query []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer, proof, err := s.store.State().Query(query)
	if err != nil {
		return nil, err
	}
	reply := request.ReadReply{Answer: answer, Proof: proof, AppRoot: s.store.State().Root(), SessionsRoot: s.sessions.Root()}
	reply.Header, reply.Certificate = s.certify()
	return reply.MarshalBinary()
}

// behaviour changes what a replica answers; nil is honest.
type behaviour func(ctx context.Context, method string, answer []byte) ([]byte, error)

func silent(ctx context.Context, _ string, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func failing(context.Context, string, []byte) ([]byte, error) { return nil, errors.New("no") }

func lying(_ context.Context, method string, answer []byte) ([]byte, error) {
	if method == methodSubmit {
		r, err := request.ParseReply(answer)
		if err != nil {
			return nil, err
		}
		r.Results[0] = []byte{byte(kv.NotFound)}
		return r.MarshalBinary()
	}
	answer[len(answer)-1] ^= 1
	return answer, nil
}

// replicas is a set of transports before a service.
type replicas struct {
	peers     []transport.Peer
	behaviour []atomic.Pointer[behaviour]
	calls     []atomic.Int64
}

func (r *replicas) behave(i int, b behaviour) { r.behaviour[i].Store(&b) }

func start(t testing.TB, s *service, n int) *replicas {
	t.Helper()
	return startProving(t, s, n, func(int) bool { return true })
}

// startProving starts replicas of which some do not prove to have their identity key now.
func startProving(t testing.TB, s *service, n int, proves func(i int) bool) *replicas {
	t.Helper()
	r := &replicas{behaviour: make([]atomic.Pointer[behaviour], n), calls: make([]atomic.Int64, n)}
	for i := range n {
		identity, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		id := bft.ReplicaID(i + 1)
		_, epochKey, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		certificate, err := transport.Credential(identity, cluster, id, transport.Term{}, epochKey)
		require.NoError(t, err)
		cfg := transport.Config{Cluster: cluster, Self: id, Listen: "127.0.0.1:0", Certificate: certificate, Handler: func(transport.Sender, []byte) {}}
		if proves(i) {
			cfg.Identity = identity
		}
		tr, err := transport.New(cfg)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, tr.Close()) })
		serve := func(method string, honest func([]byte) ([]byte, error)) {
			tr.HandleClient(method, func(ctx context.Context, _ *transport.Sender, data []byte) ([]byte, error) {
				r.calls[i].Add(1)
				answer, err := honest(data)
				if b := r.behaviour[i].Load(); err == nil && b != nil {
					answer, err = (*b)(ctx, method, answer)
				}
				return answer, err
			})
		}
		serve(methodSubmit, s.submit)
		serve(methodHeight, s.claim)
		serve(methodRead, s.read)
		serve(methodInfo, func([]byte) ([]byte, error) {
			return fmt.Appendf(nil, `{"replica":%d,"state":{"group_key":"%x"}}`, id, s.key.Bytes()), nil
		})
		r.peers = append(r.peers, transport.Peer{ID: id, Address: tr.Addr().String(), Identity: &identity.PublicKey})
	}
	return r
}

func newClient(t testing.TB, s *service, peers []transport.Peer, patience time.Duration) *Client {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	c, err := New(Config{Cluster: cluster, Peers: peers, Size: bft.Size{F: 1}, GroupKey: NewVerifier(s.key), Key: key, Patience: patience})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func put(t testing.TB, c *Client, key, value string) {
	t.Helper()
	op, err := kv.Put([]byte(key), []byte(value))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	results, err := c.Submit(ctx, op)
	require.NoError(t, err)
	result, err := kv.ParseResult(results[0])
	require.NoError(t, err)
	require.Equal(t, kv.OK, result.Status)
}

// get queries a key of the store, with its proof.
func get(t testing.TB, c *Client, key string, maxAge time.Duration) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var value []byte
	_, err := c.Query(ctx, []byte(key), maxAge, func(r *request.ReadReply) (err error) {
		value, _, err = kv.VerifyQuery(r.AppRoot, []byte(key), r.Answer, r.Proof)
		return err
	})
	require.NoError(t, err)
	return string(value)
}

func TestSubmitAndQuery(t *testing.T) {
	s := newService(t)
	c := newClient(t, s, start(t, s, 4).peers, 0)
	put(t, c, "a", "1")
	put(t, c, "a", "2")
	require.Equal(t, "2", get(t, c, "a", time.Minute))
	require.Equal(t, "", get(t, c, "b", 0))
	require.Equal(t, 2, s.executed)
}

// TestEachMisbehaviour lets all replicas but one misbehave: the client gets its proven outcome from
// that one, and the request is executed once.
func TestEachMisbehaviour(t *testing.T) {
	for name, b := range map[string]behaviour{"silent": silent, "failing": failing, "lying": lying} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			r := start(t, s, 4)
			c := newClient(t, s, r.peers, 20*time.Millisecond)
			good := (int(c.preferred.Load()) + 2) % 4
			for i := range 4 {
				if i != good {
					r.behave(i, b)
				}
			}
			put(t, c, "a", "1")
			require.Equal(t, 1, s.executed)
			require.EqualValues(t, good, c.preferred.Load())
			require.Equal(t, "1", get(t, c, "a", 0))
			before := r.calls[good].Load()
			put(t, c, "a", "2")
			require.Equal(t, before+1, r.calls[good].Load(), "who answered is asked first")
			require.Equal(t, 2, s.executed)
		})
	}
}

func TestReplicaThatIsDown(t *testing.T) {
	s := newService(t)
	peers := start(t, s, 2).peers
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	down := peers[0]
	down.ID, down.Address = 9, l.Addr().String()
	c := newClient(t, s, []transport.Peer{down, peers[0]}, time.Hour)
	c.preferred.Store(0)
	put(t, c, "a", "1")
}

func TestAllMisbehaveUntilTheEnd(t *testing.T) {
	s := newService(t)
	r := start(t, s, 2)
	r.behave(0, lying)
	r.behave(1, failing)
	c := newClient(t, s, r.peers, 10*time.Millisecond)
	op, err := kv.Put([]byte("a"), nil)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = c.Submit(ctx, op)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "no replica gave a proven answer")
	require.Greater(t, r.calls[0].Load(), int64(1), "they are asked again and again")
}

func endedHere(_ context.Context, method string, answer []byte) ([]byte, error) {
	if method != methodSubmit {
		return answer, nil
	}
	return nil, &transport.GoneError{Err: errors.New("the session has ended")}
}

// A request whose session has ended is not asked for until its time is over: a quorum says so, with
// the others silent, failing, or down. Fewer than a quorum keep nobody from an outcome, also when
// they answer first.
func TestALostOutcomeIsSaidAtOnce(t *testing.T) {
	for name, other := range map[string]behaviour{"silent": silent, "failing": failing, "lying": lying, "the same": endedHere} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			r := start(t, s, 4)
			c := newClient(t, s, r.peers, 10*time.Millisecond)
			put(t, c, "a", "0") // it knows a height
			for i := range 3 {
				r.behave(i, endedHere)
			}
			r.behave(3, other)
			op, err := kv.Put([]byte("a"), nil)
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err = c.Submit(ctx, op)
			require.ErrorIs(t, err, ErrOutcomeLost)
			require.ErrorContains(t, err, "the session has ended")
			require.NoError(t, ctx.Err())
		})
	}
	s := newService(t)
	r := start(t, s, 4)
	c := newClient(t, s, r.peers, 10*time.Millisecond)
	c.preferred.Store(0)
	r.behave(0, endedHere)
	r.behave(1, endedHere)
	r.behave(2, failing)
	put(t, c, "a", "1")
}

// A replica that is busy is left alone for as long as it says; then the next one is asked.
func TestBusyReplicaIsLeftAlone(t *testing.T) {
	s := newService(t)
	r := start(t, s, 2)
	c := newClient(t, s, r.peers, time.Hour)
	c.preferred.Store(0)
	const after = 100 * time.Millisecond
	r.behave(0, func(_ context.Context, method string, answer []byte) ([]byte, error) {
		if method == methodHeight {
			return answer, nil
		}
		return nil, &transport.BusyError{After: after, Err: errors.New("busy")}
	})
	began := time.Now()
	put(t, c, "a", "1")
	require.GreaterOrEqual(t, time.Since(began), after)
	require.EqualValues(t, 2, r.calls[0].Load(), "for a height, and once for the request")
	require.EqualValues(t, 1, r.calls[1].Load())
}

func TestHowLongToStayAway(t *testing.T) {
	for range 100 {
		for refusals, least := range map[int]time.Duration{0: time.Second, 4: time.Second, 5: 32 * leastAway, 7: 128 * leastAway, 100: mostAway} {
			require.GreaterOrEqual(t, away(time.Second, refusals), least)
			require.Less(t, away(time.Second, refusals), least*3/2)
		}
		require.Less(t, away(time.Hour, 0), mostAway*3/2, "no replica silences a client for long")
	}
}

// Who answers other calls is not silent on this one, only slow, as long as there is time.
func TestSilence(t *testing.T) {
	c := newClient(t, newService(t), []transport.Peer{{ID: 1, Address: "127.0.0.1:1"}}, time.Second)
	require.Zero(t, c.silence(0, time.Hour, time.Hour), "it never answered")
	require.Zero(t, c.silence(-1, time.Hour, time.Hour), "it failed")
	c.heard[0].Store(int64(time.Since(c.began)))
	require.InDelta(t, time.Hour, c.silence(0, time.Hour, 2*time.Hour), float64(time.Minute))
	require.Equal(t, time.Minute, c.silence(0, time.Hour, time.Minute))
	c.began = c.began.Add(-2 * time.Hour)
	require.Negative(t, c.silence(0, time.Hour, time.Minute), "that was long ago")
}

// A client has no more bytes under way than a replica keeps for it; requests beyond wait, and are
// sent when there is room.
func TestBytesInFlight(t *testing.T) {
	s := newService(t)
	r := start(t, s, 1)
	most, now := atomic.Int64{}, atomic.Int64{}
	release := make(chan struct{})
	r.behave(0, func(_ context.Context, method string, answer []byte) ([]byte, error) {
		if method != methodSubmit {
			return answer, nil
		}
		for n := now.Add(1); ; {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		<-release
		now.Add(-1)
		return answer, nil
	})
	c := newClient(t, s, r.peers, time.Hour)
	var group sync.WaitGroup
	const fit = inFlight / (1 << 20)
	for i := range 2 * fit {
		group.Go(func() { put(t, c, fmt.Sprint(i), string(make([]byte, kv.MaxValue))) })
	}
	require.Eventually(t, func() bool { return now.Load() == fit }, time.Minute, time.Millisecond)
	close(release)
	group.Wait()
	require.EqualValues(t, fit, most.Load())
}

func TestPatienceFollowsTheLoad(t *testing.T) {
	c := newClient(t, newService(t), []transport.Peer{{ID: 1, Address: "127.0.0.1:1"}}, time.Second)
	require.Equal(t, time.Second, c.patience())
	for range 100 {
		c.took(time.Second)
	}
	require.InDelta(t, 4*time.Second, c.patience(), float64(time.Second/10))
	for range 100 {
		c.took(time.Minute)
	}
	require.Equal(t, 8*time.Second, c.patience())
}

func TestManyAtOnce(t *testing.T) {
	s := newService(t)
	c := newClient(t, s, start(t, s, 3).peers, 10*time.Second)
	var group sync.WaitGroup
	const count = 4 * request.Window
	for i := range count {
		group.Go(func() { put(t, c, fmt.Sprint(i), fmt.Sprint(i)) })
	}
	group.Wait()
	require.Equal(t, count, s.executed)
	for i := range count {
		require.Equal(t, fmt.Sprint(i), get(t, c, fmt.Sprint(i), 0))
	}
}

func TestSessionResumesInANewProcess(t *testing.T) {
	s := newService(t)
	r := start(t, s, 2)
	first := newClient(t, s, r.peers, 0)
	put(t, first, "a", "1")
	again, err := New(Config{Cluster: cluster, Peers: r.peers, GroupKey: NewVerifier(s.key), Key: first.cfg.Key})
	require.NoError(t, err)
	defer again.Close()
	for range 2 * request.Window {
		put(t, again, "a", "2")
	}
	require.Equal(t, 1+2*request.Window, s.executed)
}

func TestQueryNeverGoesBack(t *testing.T) {
	s, old := newService(t), newService(t)
	old.share, old.key = s.share, s.key
	fresh, stale := start(t, s, 1), start(t, old, 1)
	stale.peers[0].ID = 1
	c := newClient(t, s, append(stale.peers, fresh.peers...), time.Hour)
	c.preferred.Store(1)
	put(t, c, "a", "1")
	c.preferred.Store(0)
	require.Equal(t, "1", get(t, c, "a", 0), "the stale replica is passed over")

	s.time = time.Now().Add(-time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := newClient(t, s, fresh.peers, time.Hour).Query(ctx, []byte("a"), time.Minute, nil)
	require.ErrorContains(t, err, "its state is 1h")
}

func TestAgeOfAQuery(t *testing.T) {
	s := newService(t)
	c := newClient(t, s, start(t, s, 1).peers, time.Millisecond)
	s.time = time.Now().Add(-90 * time.Second)
	require.Equal(t, "", get(t, c, "a", 2*time.Minute))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := c.Query(ctx, []byte("a"), 80*time.Second, nil)
	require.ErrorContains(t, err, "its state is 1m3")
}

// What was read is seen as what was written is: a later read does not go back behind it.
func TestAReadIsSeen(t *testing.T) {
	s := newService(t)
	peers := start(t, s, 2).peers
	writer, reader := newClient(t, s, peers, 0), newClient(t, s, peers, 0)
	put(t, writer, "a", "1")
	put(t, writer, "a", "2")
	require.Zero(t, reader.Seen())
	require.Equal(t, "2", get(t, reader, "a", 0))
	require.EqualValues(t, 2, reader.Seen())
}

// A request that cannot be made uses up no slot of the session.
func TestARequestThatIsTooLargeLeavesTheSessionWhole(t *testing.T) {
	s := newService(t)
	c := newClient(t, s, start(t, s, 1).peers, 0)
	for range request.Window + 1 {
		_, err := c.Submit(t.Context(), make([]byte, bft.MaxOperation+1))
		require.ErrorContains(t, err, "the limit is")
	}
	require.Len(t, c.slots, request.Window)
	put(t, c, "a", "1")
}

// A result for each operation, or none: who asked for two takes the second without looking.
func TestAResultForEachOperation(t *testing.T) {
	s := newService(t)
	s.lazy = true
	c := newClient(t, s, start(t, s, 1).peers, 10*time.Millisecond)
	op, err := kv.Put([]byte("a"), nil)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err = c.Submit(ctx, op, op)
	require.ErrorContains(t, err, "1 results for 2 operations")
}

func TestGroupKey(t *testing.T) {
	s, other := newService(t), newService(t)
	good, bad := start(t, s, 2).peers, start(t, other, 1).peers
	key, err := GroupKey(t.Context(), cluster, append(bad, good...), 1)
	require.NoError(t, err)
	require.True(t, key.Equal(s.key))
	_, err = GroupKey(t.Context(), cluster, append(bad, good[0]), 1)
	require.ErrorIs(t, err, ErrNoGroupKey)

	once := startProving(t, other, 3, func(int) bool { return false }).peers // who had the identity keys once
	key, err = GroupKey(t.Context(), cluster, append(once, good...), 1)
	require.NoError(t, err)
	require.True(t, key.Equal(s.key))
	_, err = GroupKey(t.Context(), cluster, once, 1)
	require.ErrorIs(t, err, ErrNoGroupKey)

	down := make([]transport.Peer, 3) // more than f, and they all say the same: nothing
	for i := range down {
		down[i] = good[0]
		down[i].Address = "127.0.0.1:1"
	}
	key, err = GroupKey(t.Context(), cluster, append(down, good...), 1)
	require.NoError(t, err)
	require.True(t, key.Equal(s.key))
	_, err = GroupKey(t.Context(), cluster, down, 1)
	require.ErrorIs(t, err, ErrNoGroupKey)
}

func TestVerifierRemembers(t *testing.T) {
	s := newService(t)
	v := NewVerifier(s.key)
	for i := range 3 * remembered {
		message := fmt.Append(nil, i/2)
		signature := s.share.Sign(message).Signature
		require.NoError(t, v.Verify(message, signature[:]))
		require.Error(t, v.Verify(append(message, 'x'), signature[:]))
		require.Error(t, v.Verify(message, signature[1:]))
		signature[7] ^= 1
		require.Error(t, v.Verify(message, signature[:]))
	}
}

func TestNewNeedsEverything(t *testing.T) {
	_, err := New(Config{})
	require.ErrorContains(t, err, "needs")
}
