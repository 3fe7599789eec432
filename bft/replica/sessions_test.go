package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/merkle"
	"github.com/reseal-bft/reseal/bft/request"
)

// counting is an application that counts what was executed, by operation.
type counting struct{ executed map[string]int }

func (c *counting) Apply(_ bft.Height, _ int64, operations []bft.Operation, results *bft.Results) error {
	for _, operation := range operations {
		c.executed[string(operation.Client)+string(operation.Data)]++
		results.Add(nil)
	}
	return nil
}
func (c *counting) State() bft.State                               { return c }
func (c *counting) Restore(io.Reader) error                        { return nil }
func (c *counting) Root() bft.Digest                               { return bft.Digest{} }
func (c *counting) Query([]byte) (answer, proof []byte, err error) { return nil, nil, nil }
func (c *counting) WriteTo(io.Writer) (int64, error)               { return 0, nil }

// chain executes blocks of requests on a ledger of its own.
type chain struct {
	t      require.TestingT
	app    *counting
	ledger *ledger
}

func newChain(t require.TestingT, blocks, records int) *chain {
	c := &chain{t: t, app: &counting{make(map[string]int)}}
	c.ledger = newLedger(bft.Digest{7}, c.app, newEpochs(&Membership{Epoch: 1, Size: bft.Size{F: 1}}, nil), testResults)
	c.ledger.sessions.blocks, c.ledger.sessions.records = blocks, records
	return c
}

func (c *chain) height() bft.Height { return c.ledger.latest.Load().height }

func (c *chain) sessions() merkle.Map { return c.ledger.latest.Load().sessions }

func (c *chain) execute(requests ...*request.Request) {
	block := &bft.Block{Header: bft.Header{Epoch: 1, Height: c.height() + 1}}
	_, err := c.ledger.execute(block, block.Digest(), requests, false)
	require.NoError(c.t, err)
	for h := bft.Height(0); h+8 < c.height(); h++ {
		delete(c.ledger.states, h) // as if certified
	}
}

// restored is a chain that goes on from what is in a snapshot.
func (c *chain) restored() *chain {
	var snapshot bytes.Buffer
	_, err := c.sessions().WriteTo(&snapshot)
	require.NoError(c.t, err)
	sessions, err := merkle.Read(&snapshot)
	require.NoError(c.t, err)
	r := newChain(c.t, c.ledger.sessions.blocks, c.ledger.sessions.records)
	r.ledger.adopt(c.height(), sessions)
	return r
}

// bound makes a request with one operation, its own number, as a client would that has seen a height.
func bound(t require.TestingT, client, last, slot uint64, height bft.Height) *request.Request {
	sequence := request.NextSequence(last, slot, height, time.UnixMilli(0))
	operation := binary.BigEndian.AppendUint64(nil, sequence)
	r := unsigned(t, client, sequence, len(operation))
	copy(r.Operations[0], operation)
	return r
}

func (c *chain) count(r *request.Request) int {
	return c.app.executed[string(r.Client)+string(r.Operations[0])]
}

// A request is not executed at or below the height that it is bound to: it could be forgotten there,
// and then executed again.
func TestNothingIsExecutedBeforeItsTime(t *testing.T) {
	c := newChain(t, 12, 10)
	r := bound(t, 1, 0, 0, 3)
	for range 3 {
		c.execute(r)
		require.Zero(t, c.count(r))
	}
	c.execute(r)
	require.Equal(t, 1, c.count(r))
	c.execute(r)
	require.Equal(t, 1, c.count(r))
}

// A request is executed once at most, however often and late it is repeated, whatever sessions were
// ended meanwhile; replay from any snapshot agrees; and what is bound to a height that was final a
// moment ago is executed.
func TestEndedSessionsExecuteNothingTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const blocks, records = 12, 10
		c := newChain(t, blocks, records)
		replicas := []*chain{c}
		var made []*request.Request
		last := make(map[[2]uint64]uint64)
		for range rapid.IntRange(1, 120).Draw(t, "blocks") {
			var block []*request.Request
			var fresh []*request.Request
			for range rapid.IntRange(0, 3).Draw(t, "new") {
				client, slot := rapid.Uint64Range(1, 20).Draw(t, "client"), rapid.Uint64Range(0, 2).Draw(t, "slot")
				at := [2]uint64{client, slot}
				lag := bft.Height(rapid.IntRange(0, 20).Draw(t, "lag"))
				r := bound(t, client, last[at], slot, c.height()-min(c.height(), lag))
				last[at] = r.Sequence
				made = append(made, r)
				if lag == 0 {
					fresh = append(fresh, r)
				}
				block = append(block, r)
			}
			for range rapid.IntRange(0, 4).Draw(t, "repeated") {
				if len(made) > 0 {
					block = append(block, made[rapid.IntRange(0, len(made)-1).Draw(t, "old")])
				}
			}
			if rapid.Bool().Draw(t, "restore") {
				replicas = append(replicas[:1], c.restored())
			}
			for _, replica := range replicas {
				replica.execute(block...)
				if replica.ledger.latest.Load().root != c.ledger.latest.Load().root {
					t.Fatal("a restored replica has another state")
				}
			}
			for _, r := range made {
				if c.count(r) > 1 {
					t.Fatalf("request %d of client %x was executed %d times", r.Sequence, r.Client[:8], c.count(r))
				}
			}
			for _, r := range fresh {
				if c.count(r) != 1 && request.Bound(r.Sequence) < c.height() {
					t.Fatalf("request %d, bound to the height before its block, was not executed", r.Sequence)
				}
			}
			if n := c.sessions().Len(); n > records+len(block)+1 {
				t.Fatalf("%d records are kept", n)
			}
		}
		for range blocks + 1 {
			c.execute()
		}
		floor := c.sessions()
		if _, ok := floor.Get(request.SessionFloor()); floor.Len() > 1 || floor.Len() == 1 && !ok {
			t.Fatalf("%d records are left of sessions that ended", floor.Len())
		}
		for _, r := range made {
			before := c.count(r)
			c.execute(r)
			if c.count(r) != before && (before > 0 || request.Bound(r.Sequence)+blocks < c.height()) {
				t.Fatal("a request was executed after its session had ended")
			}
		}
	})
}

// Clients that come once leave nothing behind, and those that wait for what is not executed any
// more hear so.
func TestOneShotClients(t *testing.T) {
	const blocks, records = 64, 1000
	c := newChain(t, blocks, records)
	rng := rand.New(rand.NewPCG(1, 2))
	var first *request.Request
	for range 4 * records / 10 {
		var block []*request.Request
		for range 10 {
			block = append(block, bound(t, rng.Uint64(), 0, 0, c.height()))
		}
		if first == nil {
			first = block[0]
		}
		c.execute(block...)
		require.LessOrEqual(t, c.sessions().Len(), records+1)
		require.LessOrEqual(t, c.ledger.sessions.leaves, 2*records+1024)
	}
	require.Equal(t, blocks*10, c.sessions().Len(), "they end with their time: there was room")
	_, why := c.ledger.passed(first)
	require.ErrorIs(t, why, ErrEnded)
	late := bound(t, rng.Uint64(), 0, 0, c.height()-blocks-1)
	told := c.ledger.await(keyOf(late))
	c.execute(late)
	require.Nil(t, <-told)
	require.Zero(t, c.count(late))
}

// Who opens sessions without end drives out the records of others, but what these have sent again at
// whatever moment is not executed twice, and what they send anew is executed.
func TestAFloodOfSessionsRepeatsNobodysRequest(t *testing.T) {
	const blocks, records, flood = 64, 40, 15
	c := newChain(t, blocks, records)
	rng := rand.New(rand.NewPCG(1, 2))
	var sent []*request.Request
	driven := 0
	for i := range uint64(30) {
		own := bound(t, 7, 0, i%64, c.height())
		block := append([]*request.Request{}, sent...) // all again, before and behind what is to drive them out
		for range flood {
			block = append(block, bound(t, rng.Uint64(), 0, 0, c.height()))
		}
		c.execute(append(append(block, own), sent...)...)
		sent = append(sent, own)
		for _, r := range sent {
			require.Equal(t, 1, c.count(r))
			if _, why := c.ledger.passed(r); errors.Is(why, ErrEnded) {
				driven++
			}
		}
	}
	require.Greater(t, driven, 100, "the flood has ended sessions")
}

// A session's number says at which height it begins, and rises: from one request to the next, and
// from one process to a later one.
func TestSequences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slot, height := rapid.Uint64Range(0, 63).Draw(t, "slot"), bft.Height(rapid.Uint64Range(0, 1<<39).Draw(t, "height"))
		now := time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "now"))
		first := request.NextSequence(0, slot, height, now)
		second := request.NextSequence(first, slot, height, now)
		later := request.NextSequence(first, slot, height+1, now)
		if request.Bound(first) != height || request.Bound(second) != height || request.Bound(later) != height+1 || second <= first || later <= second {
			t.Fatal(first, second, later)
		}
		if first%request.Window != slot || second%request.Window != slot {
			t.Fatal("another slot", first, second)
		}
	})
}
