package transport

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/budget"
)

var cluster = bft.ClusterID{1, 2, 3}

const patience = time.Minute

func eventually(t testing.TB, condition func() bool, what string) {
	t.Helper()
	require.Eventually(t, condition, patience, 2*time.Millisecond, what)
}

// frame is one that a replica received.
type frame struct {
	from Sender
	data string
}

// member is a replica under test.
type member struct {
	*Transport
	peer     Peer
	identity *ecdsa.PrivateKey
	epochKey ed25519.PrivateKey
	frames   chan frame
	connects chan bft.ReplicaID
}

// reserve returns an address that nobody listens on.
func reserve(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// newMembers makes n replicas that are not started.
func newMembers(t testing.TB, n int) []*member {
	t.Helper()
	members := make([]*member, n)
	for i := range members {
		identity, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		members[i] = &member{
			identity: identity, frames: make(chan frame, 1<<16), connects: make(chan bft.ReplicaID, 1024),
			peer: Peer{ID: bft.ReplicaID(i + 1), Address: reserve(t), Identity: &identity.PublicKey},
		}
	}
	return members
}

func peersOf(members []*member) []Peer {
	peers := make([]Peer, len(members))
	for i, m := range members {
		peers[i] = m.peer
	}
	return peers
}

func newEpochKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return key
}

// config is what start starts a member with.
func (m *member) config(t testing.TB, peers []Peer) Config {
	t.Helper()
	m.epochKey = newEpochKey(t)
	certificate, err := Credential(m.identity, cluster, m.peer.ID, Term{}, m.epochKey)
	require.NoError(t, err)
	return Config{
		Cluster: cluster, Self: m.peer.ID, Listen: m.peer.Address, Certificate: certificate, Peers: peers,
		Handler:   func(from Sender, data []byte) { m.frames <- frame{from, string(data)} },
		OnConnect: func(id bft.ReplicaID) { m.connects <- id },
	}
}

func (m *member) start(t testing.TB, cfg Config) {
	t.Helper()
	var err error
	m.Transport, err = New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
}

// startAll starts n replicas and waits until all are connected with all.
func startAll(t testing.TB, n int) []*member {
	t.Helper()
	members := newMembers(t, n)
	for _, m := range members {
		m.start(t, m.config(t, peersOf(members)))
	}
	for _, m := range members {
		eventually(t, func() bool { return len(m.Connected()) == n-1 }, "the replicas connect")
	}
	return members
}

func (m *member) next(t testing.TB) frame {
	t.Helper()
	select {
	case f := <-m.frames:
		return f
	case <-time.After(patience):
		require.FailNow(t, "no frame arrived")
		return frame{}
	}
}

func TestFramesArriveInOrder(t *testing.T) {
	members := startAll(t, 3)
	const count = 500
	for i := range count {
		members[0].Broadcast(fmt.Appendf(nil, "frame %d", i))
	}
	for _, m := range members[1:] {
		for i := range count {
			f := m.next(t)
			require.Equal(t, fmt.Sprintf("frame %d", i), f.data)
			require.EqualValues(t, 1, f.from.ID)
			require.Equal(t, members[0].epochKey.Public(), f.from.EpochKey)
		}
	}
	members[1].Send(3, []byte("to one"))
	require.Equal(t, "to one", members[2].next(t).data)
	members[1].Send(3, nil)
	require.Empty(t, members[2].next(t).data)
	members[1].Send(9, []byte("to nobody"))
	members[1].Send(3, make([]byte, MaxFrame+1))
	members[1].Broadcast(make([]byte, MaxFrame+1))
	members[1].Send(3, make([]byte, MaxFrame))
	require.Len(t, members[2].next(t).data, MaxFrame, "what is too large was not sent")
}

func TestCalls(t *testing.T) {
	members := startAll(t, 2)
	members[1].Handle("reseal/echo", func(_ context.Context, from *Sender, request []byte) ([]byte, error) {
		return fmt.Appendf(nil, "%d says %s", from.ID, request), nil
	})
	members[1].HandleClient("reseal/fail", func(context.Context, *Sender, []byte) ([]byte, error) {
		return nil, errors.New("it is raining")
	})
	ctx := t.Context()
	answer, err := members[0].Call(ctx, 2, "reseal/echo", []byte("hello"))
	require.NoError(t, err)
	require.Equal(t, "1 says hello", string(answer))

	_, err = members[0].Call(ctx, 2, "reseal/fail", nil)
	require.ErrorContains(t, err, "it is raining")
	require.False(t, Unavailable(err))
	_, err = members[0].Call(ctx, 2, "reseal/none", nil)
	require.ErrorContains(t, err, "no such method")
	_, err = members[0].Call(ctx, 7, "reseal/echo", nil)
	require.True(t, Unavailable(err))
	_, err = members[0].Call(ctx, 2, "reseal/echo", make([]byte, MaxCall+1))
	require.ErrorContains(t, err, "the limit")

	require.NoError(t, members[1].Close())
	_, err = members[0].Call(ctx, 2, "reseal/echo", nil)
	require.True(t, Unavailable(err), "%v", err)
}

func TestCallEndsWithItsContext(t *testing.T) {
	members := startAll(t, 2)
	entered := make(chan struct{})
	members[1].Handle("reseal/wait", func(ctx context.Context, _ *Sender, _ []byte) ([]byte, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	_, err := members[0].Call(ctx, 2, "reseal/wait", nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestClients(t *testing.T) {
	members := startAll(t, 2)
	members[0].HandleClient("reseal/who", func(_ context.Context, from *Sender, _ []byte) ([]byte, error) {
		return fmt.Append(nil, from == nil), nil
	})
	members[0].Handle("reseal/secret", func(context.Context, *Sender, []byte) ([]byte, error) { return []byte("x"), nil })
	client := dialClient(t, cluster, members[0].peer)

	answer, err := client.Call(t.Context(), "reseal/who", nil)
	require.NoError(t, err)
	require.Equal(t, "true", string(answer))
	answer, err = members[1].Call(t.Context(), 1, "reseal/who", nil)
	require.NoError(t, err)
	require.Equal(t, "false", string(answer))
	_, err = client.Call(t.Context(), "reseal/secret", nil)
	require.ErrorContains(t, err, "no such method")
	wrong := members[0].peer
	wrong.Identity = members[1].peer.Identity
	_, err = dialClient(t, cluster, wrong).Call(t.Context(), "reseal/who", nil)
	require.ErrorContains(t, err, "not issued by the identity")
	require.True(t, Unavailable(err))
	_, err = dialClient(t, bft.ClusterID{9}, members[0].peer).Call(t.Context(), "reseal/who", nil)
	require.ErrorContains(t, err, "another cluster")
}

func dialClient(t testing.TB, cluster bft.ClusterID, to Peer) *Client {
	t.Helper()
	c, err := Dial(cluster, to)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestClientsAreBounded(t *testing.T) {
	members := newMembers(t, 2)
	cfg := members[0].config(t, peersOf(members))
	cfg.MaxClients, cfg.MaxClientCalls = 2, 1
	members[0].start(t, cfg)
	entered, leave := make(chan struct{}), make(chan struct{})
	members[0].HandleClient("reseal/wait", func(context.Context, *Sender, []byte) ([]byte, error) {
		close(entered)
		<-leave
		return nil, nil
	})
	members[0].HandleClient("reseal/ping", func(context.Context, *Sender, []byte) ([]byte, error) { return nil, nil })
	first := dialClient(t, cluster, members[0].peer)
	result := make(chan error, 1)
	go func() {
		_, err := first.Call(t.Context(), "reseal/wait", nil)
		result <- err
	}()
	<-entered

	second := dialClient(t, cluster, members[0].peer)
	_, err := second.Call(t.Context(), "reseal/ping", nil)
	require.ErrorContains(t, err, "too many calls")
	var busy *BusyError
	require.ErrorAs(t, err, &busy)
	require.Equal(t, crowdedAway, busy.After, "the client hears when to come back")
	third := dialClient(t, cluster, members[0].peer)
	_, err = third.Call(t.Context(), "reseal/ping", nil)
	require.Error(t, err, "there is no place for a third client")

	members[1].start(t, members[1].config(t, peersOf(members)))
	eventually(t, func() bool { return len(members[1].Connected()) == 1 }, "there is one for a replica")
	close(leave)
	require.NoError(t, <-result)
	require.NoError(t, second.Close())
	eventually(t, func() bool {
		_, err := third.Call(t.Context(), "reseal/ping", nil)
		return err == nil
	}, "the place becomes free")
}

func TestReconnect(t *testing.T) {
	members := startAll(t, 2)
	require.EqualValues(t, 2, <-members[0].connects)
	require.NoError(t, members[1].Close())
	eventually(t, func() bool { return len(members[0].Connected()) == 0 }, "the end of a connection is noticed")

	members[0].Send(2, []byte("meanwhile"))
	members[1].start(t, members[1].config(t, peersOf(members)))
	require.EqualValues(t, 2, <-members[0].connects)
	require.Equal(t, "meanwhile", members[1].next(t).data)
	eventually(t, func() bool { return len(members[1].Connected()) == 1 }, "both directions")
}

func TestSetCertificate(t *testing.T) {
	members := startAll(t, 2)
	members[0].epochKey = newEpochKey(t)
	certificate, err := Credential(members[0].identity, cluster, 1, Term{}, members[0].epochKey)
	require.NoError(t, err)
	require.EqualValues(t, 2, <-members[0].connects)
	members[0].SetCertificate(certificate)
	require.EqualValues(t, 2, <-members[0].connects)
	members[0].Send(2, []byte("new"))
	f := members[1].next(t)
	require.Equal(t, "new", f.data)
	require.Equal(t, members[0].epochKey.Public(), f.from.EpochKey)
}

func TestSetPeers(t *testing.T) {
	members := startAll(t, 3)
	members[0].SetPeers(peersOf(members[:2]))
	eventually(t, func() bool { return len(members[0].Connected()) == 1 && len(members[2].Connected()) == 1 },
		"the removed replica is disconnected in both directions")
	_, err := members[2].Call(t.Context(), 1, "reseal/none", nil)
	require.Error(t, err)
	members[2].Send(1, []byte("let me in"))
	members[1].Send(1, []byte("still here"))
	require.Equal(t, "still here", members[0].next(t).data)

	members[0].SetPeers(peersOf(members))
	eventually(t, func() bool { return len(members[0].Connected()) == 2 && len(members[2].Connected()) == 2 }, "it comes back")
	require.Equal(t, "let me in", members[0].next(t).data)
}

func TestStrangersAreRefused(t *testing.T) {
	members := newMembers(t, 2)
	members[0].start(t, members[0].config(t, peersOf(members)))
	refused := func(name, text string, change func(cfg *Config, m *member)) {
		t.Run(name, func(t *testing.T) {
			impostor := newMembers(t, 1)[0]
			impostor.peer.ID, impostor.identity = 2, members[1].identity
			cfg := impostor.config(t, peersOf(members[:1]))
			change(&cfg, impostor)
			impostor.start(t, cfg)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			eventually(t, func() bool {
				_, err := impostor.Call(ctx, 1, "reseal/none", nil)
				return err != nil && strings.Contains(err.Error(), text)
			}, "the impostor is told why")
			require.Empty(t, impostor.Connected())
		})
	}
	issue := func(t *testing.T, m *member, c bft.ClusterID, id bft.ReplicaID, age time.Duration) tls.Certificate {
		certificate, err := credential(m.identity, c, id, Term{}, m.epochKey, time.Now().Add(-age))
		require.NoError(t, err)
		return certificate
	}
	refused("another identity", "bad certificate", func(cfg *Config, m *member) {
		m.identity = newMembers(t, 1)[0].identity
		cfg.Certificate = issue(t, m, cluster, 2, 0)
	})
	refused("another cluster", "bad certificate", func(cfg *Config, m *member) { cfg.Certificate = issue(t, m, bft.ClusterID{7}, 2, 0) })
	refused("not a member", "bad certificate", func(cfg *Config, m *member) { cfg.Certificate = issue(t, m, cluster, 5, 0) })
	refused("expired", "bad certificate", func(cfg *Config, m *member) { cfg.Certificate = issue(t, m, cluster, 2, CredentialLife+time.Hour) })
	refused("valid for ten years", "bad certificate", func(cfg *Config, m *member) {
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
			URIs: []*url.URL{replicaURI(cluster, 2, Term{})},
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, m.epochKey.Public(), m.identity)
		require.NoError(t, err)
		cfg.Certificate = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: m.epochKey}
	})
	refused("pins another identity", "not issued by the identity", func(cfg *Config, m *member) {
		cfg.Peers = []Peer{{ID: 1, Address: members[0].peer.Address, Identity: members[1].peer.Identity}}
	})
	require.Empty(t, members[0].frames)
}

// TestCredentialEndsWithItsEpoch: a credential that is good counts no more when the callee says so,
// in both directions and also on a connection that stands.
func TestCredentialEndsWithItsEpoch(t *testing.T) {
	members := newMembers(t, 2)
	var epoch atomic.Uint64
	for i, m := range members {
		cfg := m.config(t, peersOf(members))
		certificate, err := Credential(m.identity, cluster, m.peer.ID, Term{Epoch: bft.Epoch(7 + i)}, m.epochKey)
		require.NoError(t, err)
		cfg.Certificate = certificate
		cfg.Admit = func(s Sender) error {
			if uint64(s.Term.Epoch) < epoch.Load() {
				return fmt.Errorf("epoch %d is over", s.Term.Epoch)
			}
			return nil
		}
		m.start(t, cfg)
	}
	require.EqualValues(t, 2, <-members[0].connects)
	require.EqualValues(t, 1, <-members[1].connects)
	members[1].Handle("reseal/echo", func(_ context.Context, from *Sender, request []byte) ([]byte, error) {
		require.EqualValues(t, 7, from.Term.Epoch)
		return request, nil
	})
	answer, err := members[0].Call(t.Context(), 2, "reseal/echo", []byte("in time"))
	require.NoError(t, err)
	require.Equal(t, "in time", string(answer))
	epoch.Store(8)
	_, err = members[0].Call(t.Context(), 2, "reseal/echo", []byte("too late"))
	require.ErrorContains(t, err, "epoch 7 is over")
	members[1].HandleClient("reseal/open", func(_ context.Context, from *Sender, _ []byte) ([]byte, error) {
		require.Nil(t, from)
		return []byte("8"), nil
	})
	answer, err = members[0].CallUnder(t.Context(), tls.Certificate{}, 2, "reseal/open", nil)
	require.NoError(t, err)
	require.Equal(t, "8", string(answer), "it may ask as a client")
	certificate, err := Credential(members[0].identity, cluster, 1, Term{Epoch: 8}, members[0].epochKey)
	require.NoError(t, err)
	members[0].SetCertificate(certificate)
	require.EqualValues(t, 2, <-members[0].connects, "under a new credential")
}

// TestSlowPeer lets one peer read nothing: frames to the other flow on, the queue of the slow one
// is bounded and what it loses is counted. TestAnotherKeyDoesNotCutTheOwnerOff: whoever once had
// the identity key has credentials that are good, for keys that nobody names.
func TestAnotherKeyDoesNotCutTheOwnerOff(t *testing.T) {
	members := newMembers(t, 2)
	peers := peersOf(members)
	owner := members[1].config(t, peers)
	named := members[1].epochKey.Public().(ed25519.PublicKey)
	callee := members[0].config(t, peers)
	callee.Named = func(s Sender) bool { return named.Equal(s.EpochKey) }
	members[0].start(t, callee)
	members[1].start(t, owner)
	members[1].Send(1, []byte("before"))
	require.Equal(t, "before", members[0].next(t).data)

	impostor := &member{identity: members[1].identity, peer: members[1].peer, frames: make(chan frame, 1), connects: make(chan bft.ReplicaID, 1024)}
	cfg := impostor.config(t, peers[:1])
	cfg.Listen = "127.0.0.1:0"
	impostor.start(t, cfg)
	impostor.Send(1, []byte("false"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := impostor.Call(ctx, 1, "reseal/none", nil)
	for err != nil && Unavailable(err) && ctx.Err() == nil { // its calls arrive: so it is connected
		_, err = impostor.Call(ctx, 1, "reseal/none", nil)
	}
	for i := range 20 {
		members[1].Send(1, []byte{byte(i)})
		require.Equal(t, string([]byte{byte(i)}), members[0].next(t).data)
	}
}

func TestSlowPeer(t *testing.T) {
	members := newMembers(t, 3)
	release := make(chan struct{})
	for i, m := range members {
		cfg := m.config(t, peersOf(members))
		cfg.Memory = &budget.Table{Queue: 1 << 20, Clients: 64 << 20, Calls: 64 << 20}
		if i == 2 {
			cfg.Handler = func(Sender, []byte) { <-release }
		}
		m.start(t, cfg)
	}
	defer close(release)
	eventually(t, func() bool { return len(members[0].Connected()) == 2 }, "the replicas connect")
	big := make([]byte, 512<<10)
	for range 100 { // more than the windows of a connection hold
		members[0].Broadcast(big)
		members[1].next(t)
	}
	for _, s := range members[0].Stats() {
		require.True(t, s.Connected || s.ID == 3) // who takes nothing for stallTimeout is left
		require.LessOrEqual(t, s.Queued, 1<<20)
		require.Equal(t, s.ID == 3, s.Dropped > 0)
	}
}

func TestBusyPort(t *testing.T) {
	members := newMembers(t, 1)
	cfg := members[0].config(t, nil)
	members[0].start(t, cfg)
	_, err := New(cfg)
	require.ErrorContains(t, err, "is in use")
	require.Equal(t, cfg.Listen, members[0].Addr().String())
}

func TestCredentialNeedsAnIdentity(t *testing.T) {
	_, err := Credential(newEpochKey(t), cluster, 1, Term{}, newEpochKey(t))
	require.ErrorContains(t, err, "P-256")
}

func TestQueue(t *testing.T) {
	q := newQueue(10)
	for _, s := range []string{"aaaa", "bbbb", "cccc"} {
		q.put([]byte(s))
	}
	queued, dropped := q.stats()
	require.Equal(t, 8, queued)
	require.EqualValues(t, 1, dropped)
	require.Equal(t, [][]byte{[]byte("bbbb")}, q.take(5))
	require.Equal(t, [][]byte{[]byte("cccc")}, q.take(1))
	require.Empty(t, q.take(1))
	q.put(make([]byte, 50))
	require.Len(t, q.take(1), 1, "a frame larger than the queue is kept while it is alone")
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 'a', 'b'}, []byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		r := bytes.NewReader(append(a, b...))
		for {
			before := r.Len()
			frame, err := readFrame(r)
			if err != nil {
				return
			}
			require.Equal(t, before-r.Len(), 4+len(frame))
		}
	})
}

// BenchmarkRoundTrip sends a frame there and another back.
func BenchmarkRoundTrip(b *testing.B) {
	for _, size := range []int{200, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			members := startAll(b, 2)
			data := make([]byte, size)
			b.SetBytes(int64(2 * size))
			for b.Loop() {
				members[0].Send(2, data)
				members[1].next(b)
				members[1].Send(1, data)
				members[0].next(b)
			}
		})
	}
}

// BenchmarkBroadcast sends frames to three peers as fast as they take them.
func BenchmarkBroadcast(b *testing.B) {
	for _, size := range []int{200, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			members := startAll(b, 4)
			data := make([]byte, size)
			b.SetBytes(int64(3 * size))
			const ahead = 256
			i := 0
			for b.Loop() {
				members[0].Broadcast(data)
				if i++; i > ahead {
					for _, m := range members[1:] {
						m.next(b)
					}
				}
			}
		})
	}
}
