package replica

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/kv"
	"github.com/reseal-bft/reseal/bft/request"
)

// What clients read again and again is held for them within a bound in bytes. Who waits for what is
// no longer held is told so.
func TestHeldResultsAreBoundedInBytes(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	w.orderKey("big", kv.MaxValue)
	get, err := kv.Get([]byte("big"))
	require.NoError(t, err)
	reads := make([][]byte, 8)
	for i := range reads {
		reads[i] = get
	}
	const blocks = 3 * testResults / (8 * kv.MaxValue)
	waiting := make([]chan *request.Reply, blocks)
	keys := make([]sessionKey, blocks)
	for i := range blocks {
		w.sent++
		r, err := request.New(w.id, w.client, w.sent, request.Application, reads)
		require.NoError(t, err)
		keys[i] = keyOf(r)
		waiting[i] = w.ledger.await(keys[i])
		w.orderPayload(request.AppendPayload(nil, []*request.Request{r}))
		held := 0
		for _, out := range w.ledger.results {
			for _, result := range out.results {
				held += len(result)
			}
		}
		require.LessOrEqual(t, held, testResults)
		require.LessOrEqual(t, w.ledger.bytes, testResults)
	}
	require.Nil(t, <-waiting[0], "it was let go before it was certified")
	h := w.tip.Header
	h.StateHeight, h.StateRoot = w.ledger.latest.Load().height, w.ledger.latest.Load().root
	require.NotNil(t, w.ledger.certify(h, certificate(bft.Finalize, &h)))
	reply := <-waiting[blocks-1]
	require.Len(t, reply.Results, 8)
	require.Len(t, reply.Results[7], 1+kv.MaxValue)
	require.NotNil(t, <-w.ledger.await(keys[blocks-1]), "who asks again is answered")
	require.Empty(t, w.ledger.waiters)
}

// Who asks for little waits for the state of a few blocks to be certified, beside somebody who asks
// for all that a block's results may be.
func TestLargeResultsDisplaceNoSmallOnes(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	w.orderKey("big", kv.MaxValue)
	get, err := kv.Get([]byte("big"))
	require.NoError(t, err)
	order := func(operations ...[]byte) sessionKey {
		w.sent++
		r, err := request.New(w.id, w.client, w.sent, request.Application, operations)
		require.NoError(t, err)
		w.orderPayload(request.AppendPayload(nil, []*request.Request{r}))
		return keyOf(r)
	}
	little, err := kv.Put([]byte("key"), []byte("value"))
	require.NoError(t, err)
	small := order(little)
	waiting := w.ledger.await(small)
	var large []sessionKey
	for range 3 * testResults / (8 * kv.MaxValue) {
		large = append(large, order(get, get, get, get, get, get, get, get))
		require.LessOrEqual(t, w.ledger.bytes, testResults)
	}
	require.NotContains(t, w.ledger.results, large[0])
	require.Contains(t, w.ledger.results, large[len(large)-1])
	h := w.tip.Header
	h.StateHeight, h.StateRoot = w.ledger.latest.Load().height, w.ledger.latest.Load().root
	require.NotNil(t, w.ledger.certify(h, certificate(bft.Finalize, &h)))
	require.NotNil(t, <-waiting)
}

// A leader may put a request into one block as often as he likes, and an old one of a session
// behind a later one: each is executed once, and none that is passed.
func TestOneBlockExecutesARequestOnce(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	made := func(sequence uint64) *request.Request {
		r, err := request.New(w.id, w.client, sequence, request.Application, [][]byte{[]byte("operation")})
		require.NoError(t, err)
		return r
	}
	first, passes := made(1), made(1+request.Window) // of one slot
	for _, test := range []struct{ block, executed []*request.Request }{
		{[]*request.Request{first, first}, []*request.Request{first}},
		{[]*request.Request{first, passes, first, passes}, []*request.Request{first, passes}},
		{[]*request.Request{passes, first}, []*request.Request{passes}},
	} {
		fresh, records := w.ledger.fresh(w.ledger.latest.Load().sessions, test.block, 1)
		require.Equal(t, test.executed, fresh)
		require.Len(t, records, len(fresh))
	}
}

// A certificate proves the root that its header names, and nothing of a replica whose own is
// another one.
func TestACertificateOfAnotherRootCertifiesNothing(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	w.order(10)
	h := w.header(nil)
	other := h
	other.StateRoot[0] ^= 1
	require.Nil(t, w.ledger.certify(other, certificate(bft.Finalize, &other)))
	require.Nil(t, w.ledger.certified.Load())
	require.NotNil(t, w.ledger.certify(h, certificate(bft.Finalize, &h)))
	require.Nil(t, w.ledger.certify(h, certificate(bft.Finalize, &h)), "no news")
}

// failing is an application whose disk fails at a height.
type failing struct {
	bft.Application
	at bft.Height
}

var errDisk = errors.New("the disk fails")

func (f failing) Apply(height bft.Height, time int64, operations []bft.Operation, results *bft.Results) error {
	if height >= f.at {
		return errDisk
	}
	return f.Application.Apply(height, time, operations, results)
}

// An application that cannot go on stops the replica, when it catches up and when it executes its
// own log again: nothing is said of a state that is not.
func TestAnApplicationThatFailsStopsTheReplica(t *testing.T) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	for range 8 {
		w.order(10)
	}
	s := w.store()
	r, err := w.replica(s, &peers{serve: map[bft.ReplicaID]serve{2: w.honest(100)}})
	require.NoError(t, err)
	r.ledger.app = failing{r.ledger.app, 5}
	_, err = r.catchUp(t.Context())
	require.ErrorIs(t, err, errFatal)
	require.ErrorIs(t, err, errDisk)
	require.EqualValues(t, 4, r.ledger.latest.Load().height)

	r, err = w.replica(s, &peers{})
	require.NoError(t, err)
	require.EqualValues(t, 8, r.ledger.latest.Load().height, "the log has them all")
	r.ledger = newLedger(w.id, failing{kv.New(), 5}, newEpochs(w.system.history[0], w.system.readyAt), testResults)
	require.ErrorIs(t, r.replayAll(), errDisk)
}
