package replica

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/transport"
)

// A peer that sends more than the core sees waits at its own connection; the others are heard.
func TestAPeerIsSlowedByItsOwnBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m meter
		m.init(1000*messageBytes, 500)
		large := &bft.Block{Payload: make([]byte, 5000*messageBytes)}
		m.await(2, large) // one message there is always room for
		let := func(from bft.ReplicaID, message bft.Message) chan struct{} {
			in := make(chan struct{})
			go func() { m.await(from, message); close(in) }()
			synctest.Wait()
			return in
		}
		small := bft.Status{}
		waits := let(2, small)
		require.NotPanics(t, func() { <-let(3, &bft.Block{Payload: make([]byte, 600*messageBytes)}) }, "another peer is heard")
		select {
		case <-waits:
			t.Fatal("the budget is not kept")
		default:
		}
		m.seen(2, large)
		<-waits

		// Nobody is heard while much is decided and not carried out; then everybody is.
		m.decide(501)
		waits = let(4, small)
		select {
		case <-waits:
			t.Fatal("what is decided grows without bound")
		default:
		}
		m.decide(-1)
		<-waits
		m.decide(100)
		waits = let(4, small)
		m.close()
		<-waits
	})
}

// However small what a peer says is, the others' waits behind no more than 256 of its messages.
func TestSmallMessagesOfAPeerAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m meter
		m.init(5<<20, 5<<20)
		small := bft.Vote{Partial: make([]byte, 48)}
		taken, sent := make(chan struct{}, 1000), bft.ReplicaID(2)
		go func() {
			for range cap(taken) {
				m.await(sent, small)
				taken <- struct{}{}
			}
		}()
		synctest.Wait()
		require.Len(t, taken, 256)
		m.await(3, small) // another peer is heard
		m.count(4, small) // what was said early counts the same
		require.Equal(t, m.sent[3], m.sent[4])
		for n := 257; n <= cap(taken); n++ {
			m.seen(sent, small)
			synctest.Wait()
			require.Len(t, taken, n, "one more for each that the core has seen")
		}
	})
}

// What a peer says early has a budget, and who has had a key of its takes nothing of what it says
// under the one that counts.
func TestWhatIsSaidEarlyHasABudget(t *testing.T) {
	q := early{limit: 20 * messageBytes}
	honest := transport.Sender{ID: 2, EpochKey: []byte("honest")}
	for range 5 {
		q.keep(honest, 3, bft.Status{Epoch: 3})
	}
	for range 100 {
		q.keep(transport.Sender{ID: 2, EpochKey: []byte("another thief")}, 3, bft.Status{Epoch: 3})
	}
	for range 100 {
		q.keep(transport.Sender{ID: 2, EpochKey: []byte("thief")}, 3, &bft.Block{Payload: make([]byte, 1<<20)})
	}
	q.keep(transport.Sender{ID: 3, EpochKey: []byte("honest")}, 3, bft.Status{Epoch: 3})
	held := 0
	peers := q.take(3)
	for from, p := range peers {
		if from.id == 2 {
			held += p.bytes
		}
	}
	require.LessOrEqual(t, held, q.limit)
	require.Len(t, peers[earlySender{2, "honest"}].messages, 5)
	require.Len(t, peers[earlySender{3, "honest"}].messages, 1)
}

// Parsed blocks have a budget; made-up ones high above keep the next ones out no more.
func TestParsedBlocksHaveABudget(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	requests, err := request.ParsePayload(w.payload(10_000))
	require.NoError(t, err)
	p := parsed{limit: 100_000}
	for i := range 100 {
		p.add(position{1, bft.View(1000 + i)}, bft.Digest{1, byte(i)}, requests)
		require.LessOrEqual(t, p.bytes, p.limit)
	}
	p.add(position{1, 1}, bft.Digest{2}, requests)
	p.add(position{1, 1}, bft.Digest{2}, requests)
	require.LessOrEqual(t, p.bytes, p.limit)
	got, ok := p.take(position{1, 1}, bft.Digest{2})
	require.True(t, ok)
	require.Equal(t, requests, got)
	_, _ = p.take(position{1, 2000}, bft.Digest{})
	require.Zero(t, p.bytes)
	require.Empty(t, p.blocks)
}

// What is ordered and not certified as executed is summed over the chain, whatever else a leader has
// signed.
func TestPayloadsOfAChain(t *testing.T) {
	c := newHeaderCache()
	parent := bft.Digest{9}
	for height := range bft.Height(5) {
		b := &bft.Block{Header: bft.Header{Height: height + 1, Parent: parent}, Payload: make([]byte, 100)}
		fork := &bft.Block{Header: bft.Header{Height: height + 1, Parent: parent, Time: 1}, Payload: make([]byte, 1<<20)}
		c.add(b.Digest(), b)
		c.add(fork.Digest(), fork)
		parent = b.Digest()
	}
	require.Equal(t, 300, c.payloads(parent, 2))
	require.Equal(t, 500, c.payloads(parent, 0))
	require.Zero(t, c.payloads(bft.Digest{8}, 0))
}
