package replica_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/replica"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
)

func (c *cluster) get(through int, key ed25519.PrivateKey, sequence uint64, name string) string {
	operation, err := kv.Get([]byte(name))
	require.NoError(c.t, err)
	result, err := kv.ParseResult(c.submit(through, key, sequence, operation)[0])
	require.NoError(c.t, err)
	require.Equal(c.t, kv.OK, result.Status, "reading %q", name)
	return string(result.Value)
}

func TestWritesAreOrderedAndProven(t *testing.T) {
	c := newCluster(t, bft.Size{F: 1})
	for i := range c.nodes {
		c.start(i)
	}
	client := newClient(t)
	for i := uint64(1); i <= 20; i++ {
		c.put(int(i)%4, client, i, fmt.Sprint("key", i), fmt.Sprint("value", i))
	}
	require.Equal(t, "value7", c.get(2, client, 21, "key7"))
}

func TestTheSameRequestIsExecutedOnce(t *testing.T) {
	c := newCluster(t, bft.Size{F: 1})
	for i := range c.nodes {
		c.start(i)
	}
	client := newClient(t)
	swap := func(old, value string) []byte {
		operation, err := kv.CompareAndSwap([]byte("x"), []byte(old), []byte(value))
		require.NoError(t, err)
		return operation
	}
	c.put(0, client, 1, "x", "a")
	first := c.submit(1, client, 2, swap("a", "b"))
	again := c.submit(2, client, 2, swap("a", "b"))
	require.Equal(t, first, again, "the second submission gets the first one's result")
}

func TestTheServiceGoesOnWithOneReplicaDownAndItCatchesUp(t *testing.T) {
	c := newCluster(t, bft.Size{F: 1})
	for i := range c.nodes {
		c.start(i)
	}
	client := newClient(t)
	c.put(0, client, 1, "before", "1")
	c.stop(3)
	for i := uint64(2); i <= 12; i++ {
		c.put(int(i)%3, client, i, "while", fmt.Sprint(i))
	}
	height := c.nodes[0].replica.Status().Height
	c.start(3)
	c.await(3, height)
	require.Equal(t, "12", c.get(3, client, 13, "while"))
}

// While a replica is down, another's vote for its own block stands against nobody else's
// nullification: every quorum of three needs the vote that it has cast. So that block must be one
// that the others vote for, whatever their clocks and its own show, and show since when.
func TestALeaderWhoseClockIsAheadMakesBlocksThatOthersVoteFor(t *testing.T) {
	writes := func(c *cluster, name string) { // through several turns of each
		client := newClient(c.t)
		for i := uint64(1); i <= 32; i++ {
			c.put(2*int(i%2), client, i, name, fmt.Sprint(i))
		}
	}
	begin := func(t *testing.T, ahead time.Duration) *cluster {
		c := newCluster(t, bft.Size{F: 1})
		for i := range c.nodes {
			c.ahead[i].Store(int64(ahead))
			c.start(i)
		}
		writes(c, "before")
		c.stop(3)
		return c
	}
	date := func(c *cluster) time.Time {
		header, _, ok := c.nodes[0].replica.Anchor()
		require.True(c.t, ok)
		return time.UnixMilli(header.Time)
	}
	t.Run("since its clock jumped", func(t *testing.T) {
		c := begin(t, 0)
		c.ahead[1].Store(int64(time.Hour))
		writes(c, "while")
		require.Less(t, time.Until(date(c)), testTimeouts.Ahead, "the log's time is no clock's that is wrong")
	})
	t.Run("from the first block on", func(t *testing.T) {
		c := newCluster(t, bft.Size{F: 1})
		c.ahead[0].Store(int64(time.Hour)) // it leads first
		for i := range 3 {
			c.start(i)
		}
		writes(c, "while")
		require.Less(t, time.Until(date(c)), testTimeouts.Ahead)
	})
	t.Run("when the others' clocks were put right", func(t *testing.T) {
		c := begin(t, time.Hour)
		c.ahead[0].Store(0)
		c.ahead[2].Store(0)
		writes(c, "put right")
		for _, i := range []int{0, 2} { // whose cores believe until then what they believed before
			c.stop(i)
			c.start(i)
		}
		writes(c, "while")
		require.Greater(t, time.Until(date(c)), time.Hour-time.Minute, "the log's time waits for their clocks")
	})
}

func TestAllReplicasRestartWithTheirDisks(t *testing.T) {
	c := newCluster(t, bft.Size{F: 1})
	for i := range c.nodes {
		c.start(i)
	}
	client := newClient(t)
	c.put(0, client, 1, "kept", "yes")
	for i := range c.nodes {
		c.stop(i)
	}
	for i := range c.nodes {
		c.start(i)
	}
	require.Equal(t, "yes", c.get(1, client, 2, "kept"))
}

func TestARestartGoesOnFromASnapshot(t *testing.T) {
	c := newCluster(t, bft.Size{F: 1})
	for i := range c.nodes {
		c.start(i)
	}
	client := newClient(t)
	for i := uint64(1); i <= 8; i++ {
		c.put(0, client, i, fmt.Sprint("key", i), fmt.Sprint("value", i))
	}
	require.NoError(t, c.nodes[0].replica.SnapshotNow())
	c.put(0, client, 9, "after", "the snapshot")
	c.stop(0)
	c.start(0)
	require.Positive(t, c.nodes[0].replica.SnapshotHeight())
	require.Equal(t, "value3", c.get(0, client, 10, "key3"))
	require.Equal(t, "the snapshot", c.get(0, client, 11, "after"))
	first := c.submit(0, client, 11, mustGet(t, "after"))
	require.NotEmpty(t, first, "a request that was executed after the restart is answered again")
}

func mustGet(t *testing.T, name string) []byte {
	operation, err := kv.Get([]byte(name))
	require.NoError(t, err)
	return operation
}

func TestASnapshotOfAnotherStateIsNotBelieved(t *testing.T) {
	c := newCluster(t, bft.Size{F: 1})
	for i := range c.nodes {
		c.start(i)
	}
	client := newClient(t)
	c.put(0, client, 1, "balance", "10")
	require.NoError(t, c.nodes[0].replica.SnapshotNow())
	require.NoError(t, c.nodes[0].replica.ForgeSnapshot(kv.New().State()))
	c.stop(0)
	require.ErrorContains(t, c.tryStart(0), "its root is not the certified one")
}

func TestAReplicaWithoutADiskGoesOnFromAnothersSnapshot(t *testing.T) {
	c := newCluster(t, bft.Size{F: 1})
	for i := range 3 {
		c.start(i)
	}
	client := newClient(t)
	for i := uint64(1); i <= 8; i++ {
		c.put(0, client, i, fmt.Sprint("key", i), fmt.Sprint("value", i))
	}
	require.NoError(t, c.nodes[0].replica.SnapshotNow())
	c.prepare = func(r *replica.Replica) {
		require.Eventually(t, func() bool { return r.LeapFrom(t.Context(), 1) == nil }, time.Minute, 10*time.Millisecond)
	}
	c.start(3)
	require.Positive(t, c.nodes[3].replica.SnapshotHeight())
	require.Equal(t, "value8", c.get(3, client, 9, "key8"))
	c.prepare = nil
	c.stop(3)
	c.start(3)
	require.Equal(t, "value1", c.get(3, client, 10, "key1"), "it restarts from what it fetched")
}

func TestAForgedSnapshotOfAnotherReplicaIsNotBelieved(t *testing.T) {
	c := newCluster(t, bft.Size{F: 1})
	for i := range 3 {
		c.start(i)
	}
	client := newClient(t)
	c.put(0, client, 1, "balance", "10")
	require.NoError(t, c.nodes[0].replica.ForgeSnapshot(kv.New().State()))
	var refused error
	c.prepare = func(r *replica.Replica) {
		require.Eventually(t, func() bool {
			refused = r.LeapFrom(t.Context(), 1)
			return refused != nil && !transport.Unavailable(refused)
		}, time.Minute, 10*time.Millisecond)
	}
	c.start(3)
	require.ErrorContains(t, refused, "its root is not the certified one")
	c.prepare = nil
	c.stop(3)
	c.start(3)
	require.Equal(t, "10", c.get(3, client, 2, "balance"), "started again, it fetches the log")
}

// With one of four replicas away the fast path is lost and blocks are finalized by votes: then it
// is finalizations that prove the log to who comes back.
func TestASnapshotProvenByAFinalizationIsBelieved(t *testing.T) {
	c := newCluster(t, bft.Size{F: 1})
	for i := range 3 {
		c.start(i)
	}
	client := newClient(t)
	for i := uint64(1); i <= 8; i++ {
		c.put(0, client, i, "count", fmt.Sprint(i))
	}
	c.prepare = func(r *replica.Replica) {
		require.Eventually(t, func() bool {
			require.NoError(t, r.CatchUp(t.Context()))
			return r.CertifiedBy() == bft.Finalize
		}, time.Minute, 10*time.Millisecond)
		require.NoError(t, r.SnapshotNow())
	}
	c.start(3)
	c.prepare = nil
	c.stop(3)
	c.start(3)
	require.Positive(t, c.nodes[3].replica.SnapshotHeight())
	require.Equal(t, "8", c.get(3, client, 9, "count"))
}

// The cores of the others hear of a replica whose process has ended.
func TestTheEndOfAReplicaIsHeardOf(t *testing.T) {
	c := newCluster(t, bft.Size{F: 1})
	c.lost = make(chan bft.ReplicaID, 64)
	for i := range c.nodes {
		c.start(i)
	}
	client := newClient(t)
	c.put(0, client, 1, "name", "value")
	c.stop(3)
	require.Eventually(t, func() bool { return <-c.lost == 4 }, time.Minute, time.Millisecond)
	c.put(0, client, 2, "name", "value")
}

// What takes time or memory for a client is done in its turn: a request is verified, a query
// computed, an answer made. The same request asked for again, by however many calls, is no way
// around it.
func TestWhatIsDoneForClientsTakesTurns(t *testing.T) {
	c := newCluster(t, bft.Size{F: 1})
	for i := range c.nodes {
		c.start(i)
	}
	key := newClient(t)
	c.put(0, key, 1, "name", "value")
	again, err := kv.Put([]byte("name"), []byte("value"))
	require.NoError(t, err)
	req, err := request.New(c.id, key, 1, request.Application, [][]byte{again})
	require.NoError(t, err)
	client, err := transport.Dial(c.id, transport.Peer{ID: 1, Address: c.membership.Members[0].Address, Identity: c.membership.Members[0].Identity})
	require.NoError(t, err)
	defer client.Close()

	entered, leave := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(leave) })
	defer release() // before the cluster is stopped, which waits for all calls
	c.nodes[0].transport.HandleClient("test/work", func(ctx context.Context, _ *transport.Sender, _ []byte) ([]byte, error) {
		done, err := transport.Turn(ctx)
		if err != nil {
			return nil, err
		}
		defer done()
		entered <- struct{}{}
		<-leave
		return nil, nil
	})
	calls := map[string][]byte{replica.MethodSubmit: req.Raw(), replica.MethodRead: append(make([]byte, 8), "name"...)}
	for method, body := range calls {
		_, err := client.Call(t.Context(), method, body)
		require.NoError(t, err, method)
	}
	for range max(1, runtime.GOMAXPROCS(0)/2) {
		go func() { _, _ = client.Call(t.Context(), "test/work", nil) }()
		<-entered
	}
	for method, body := range calls {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := client.Call(ctx, method, body)
		cancel()
		require.ErrorContains(t, err, context.DeadlineExceeded.Error(), method)
	}
	release()
	for method, body := range calls {
		_, err := client.Call(t.Context(), method, body)
		require.NoError(t, err, method)
	}
}
