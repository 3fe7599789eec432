package bft_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
)

// mill runs cores in one thread, with a scheme without cryptography: it answers every effect at
// once and delivers every message in order.
type mill struct {
	cores   []*bft.Core
	inboxes [][]bft.Event
	heights []bft.Height
	steps   int
	payload []byte
	digest  bft.Digest
}

func newMill(tb testing.TB, size bft.Size, operation int) *mill {
	m := &mill{payload: make([]byte, operation)}
	m.digest = bft.PayloadDigest(m.payload)
	n := size.N()
	m.inboxes, m.heights = make([][]bft.Event, n), make([]bft.Height, n)
	var leaders []bft.ReplicaID
	for i := range n {
		leaders = append(leaders, bft.ReplicaID(i+1))
	}
	for i := range n {
		core, err := bft.New(bft.Config{
			Size: size, Self: bft.ReplicaID(i + 1), Leaders: leaders, Window: 8, Voter: true,
			Timeouts: bft.Timeouts{View: time.Second, ViewMax: time.Minute, Finalize: 100 * time.Millisecond, Idle: 10 * time.Millisecond, Resend: time.Second, Ahead: time.Second},
		}, bft.Restored{})
		require.NoError(tb, err)
		m.cores = append(m.cores, core)
	}
	for i, core := range m.cores {
		m.carryOut(i, core.Start(bft.Now{Mono: 1, Wall: 1}))
	}
	return m
}

var (
	partial     = []byte("partial")
	certificate = []byte("certificate")
)

// carryOut answers the effects of core i.
func (m *mill) carryOut(i int, effects []bft.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case bft.Sign:
			e.Vote.Partial = partial
			m.put(i, bft.Signed{Vote: e.Vote})
		case bft.Broadcast:
			var received bft.Event = bft.Receive{From: bft.ReplicaID(i + 1), Message: e.Message}
			for j := range m.inboxes {
				if j != i {
					m.put(j, received)
				}
			}
		case bft.Combine:
			m.put(i, bft.Combined{Statement: e.Statement, Signature: certificate})
		case bft.Verify:
			m.put(i, bft.Verified{Certificate: e.Certificate, From: e.From, OK: true})
		case bft.Propose:
			b := &bft.Block{Header: e.Header, Payload: m.payload}
			b.Header.Payload, b.Time = m.digest, e.MinTime
			m.put(i, bft.Proposed{Block: b})
		case bft.Finalized:
			m.heights[i] = e.Block.Height
			m.put(i, bft.Executed{Height: e.Block.Height})
		}
	}
}

func (m *mill) put(i int, ev bft.Event) { m.inboxes[i] = append(m.inboxes[i], ev) }

// round lets every core take in what is waiting.
func (m *mill) round() {
	for i, core := range m.cores {
		for k := 0; k < len(m.inboxes[i]); k++ {
			m.steps++
			m.carryOut(i, core.Step(bft.Now{Mono: 1, Wall: 1}, m.inboxes[i][k]))
		}
		clear(m.inboxes[i])
		m.inboxes[i] = m.inboxes[i][:0]
	}
}

// BenchmarkBlocks orders blocks of one 128-byte operation among four cores in one thread. Counted
// are blocks that are final at every core, and all steps of all cores.
func BenchmarkBlocks(b *testing.B) {
	m := newMill(b, bft.Size{F: 1}, 128)
	b.ReportAllocs()
	b.ResetTimer()
	for m.heights[0] < bft.Height(b.N) {
		m.round()
	}
	b.ReportMetric(float64(m.heights[0])/b.Elapsed().Seconds(), "blocks/s")
	b.ReportMetric(float64(m.steps)/b.Elapsed().Seconds(), "steps/s")
	b.ReportMetric(float64(m.steps)/float64(b.N), "steps/block")
}

// Receiving a vote that completes nothing allocates nothing.
func TestVotesAllocateNothing(t *testing.T) {
	size := bft.Size{F: 5}
	m := newMill(t, size, 0)
	core := m.cores[0]
	view := core.View()
	votes := func(k int) []bft.Event {
		var events []bft.Event
		for id := 2; id <= 8; id++ {
			s := bft.Statement{View: view + bft.View(k), Kind: bft.Notarize, Block: bft.Digest{1}}
			events = append(events, bft.Receive{From: bft.ReplicaID(id), Message: bft.Vote{Statement: s, First: true, Partial: partial}})
		}
		return events
	}
	for k := range 20 { // the rounds and tallies of these views are made once
		core.Step(bft.Now{Mono: 1, Wall: 1}, votes(k)[0])
	}
	k := 0
	batches := make([][]bft.Event, 20)
	for i := range batches {
		batches[i] = votes(i)[1:]
	}
	allocations := testing.AllocsPerRun(15, func() {
		for _, ev := range batches[k] {
			core.Step(bft.Now{Mono: 1, Wall: 1}, ev)
		}
		k++
	})
	require.Zero(t, allocations)
}
