package client

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
)

// putBack restores the whole service as it was after its first write, as if from backups of all stores.
func putBack(t *testing.T, s *service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	put, err := kv.Put([]byte("a"), []byte("1"))
	require.NoError(t, err)
	s.store = kv.New()
	require.NoError(t, s.store.Apply(1, 0, []bft.Operation{{Data: put}}, bft.NewResults([]int{1})))
	s.height = 1
}

// A cluster all of whose stores were put back proves what was true then: a client that was shown
// more does not take it for the present.
func TestAClusterThatWasPutBack(t *testing.T) {
	s := newService(t)
	r := start(t, s, 4)
	first := newClient(t, s, r.peers, 10*time.Millisecond)
	for _, value := range []string{"1", "2", "3", "4"} {
		put(t, first, "a", value)
	}
	require.Equal(t, "4", get(t, first, "a", 0))
	require.Equal(t, bft.Height(4), first.Seen())
	putBack(t, s)

	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	later, err := New(Config{Cluster: cluster, Peers: r.peers, GroupKey: NewVerifier(s.key), Key: key, Patience: 10 * time.Millisecond, Seen: first.Seen()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, later.Close()) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, c := range []*Client{first, later} {
		var back *WentBackError
		_, err := c.Query(ctx, []byte("a"), 0, nil)
		require.ErrorAs(t, err, &back)
		require.Equal(t, WentBackError{Height: 1, Seen: 4}, *back)
		require.NoError(t, ctx.Err(), "it does not take as long as the caller would wait")
	}
	op, err := kv.Put([]byte("a"), []byte("5"))
	require.NoError(t, err)
	_, err = later.Submit(ctx, op)
	var back *WentBackError
	require.ErrorAs(t, err, &back)
	require.Equal(t, WentBackError{Height: 2, Seen: 4}, *back)
	require.Equal(t, "5", get(t, newClient(t, s, r.peers, 0), "a", 0), "a client that was shown nothing has nothing to warn of")
}

// The first height that a cluster reaches anew, after it was put back by one, was shown before with
// something else in it.
func TestAClusterThatWasPutBackByOne(t *testing.T) {
	s := newService(t)
	r := start(t, s, 1)
	put(t, newClient(t, s, r.peers, 0), "a", "1")
	op, err := kv.Put([]byte("a"), []byte("2"))
	require.NoError(t, err)
	for _, by := range []bft.Height{0, 1} {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		seen := s.height + by
		c, err := New(Config{Cluster: cluster, Peers: r.peers, GroupKey: NewVerifier(s.key), Key: key, Seen: seen})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		_, err = c.Submit(t.Context(), op)
		if by == 0 {
			require.NoError(t, err)
			continue
		}
		var back *WentBackError
		require.ErrorAs(t, err, &back)
		require.Equal(t, WentBackError{Height: seen, Seen: seen}, *back)
	}
}

// One replica that shows an old state is passed over.
func TestOneReplicaThatWasPutBack(t *testing.T) {
	s := newService(t)
	r := start(t, s, 4)
	c := newClient(t, s, r.peers, 10*time.Millisecond)
	put(t, c, "a", "1")
	old, err := s.query([]byte("a"))
	require.NoError(t, err)
	put(t, c, "a", "2")
	r.behave(int(c.preferred.Load()), func(context.Context, string, []byte) ([]byte, error) { return old, nil })
	require.Equal(t, "2", get(t, c, "a", 0))
}
