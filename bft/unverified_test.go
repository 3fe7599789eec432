package bft

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What one Byzantine replica says, and nobody has verified, changes nothing that the others do
// among themselves: the same blocks at the same pace, the same votes to each other, whatever it
// floods them with.
func TestOnePeersWordChangesNothing(t *testing.T) {
	junk := map[string]func(v Vote) []Message{
		"finalize votes ahead": func(v Vote) []Message {
			return []Message{Vote{Statement{v.Epoch, v.View + 41, Finalize, Digest{9}}, false, []byte("junk")}}
		},
		"finalize votes behind": func(v Vote) []Message {
			return []Message{Vote{Statement{v.Epoch, v.View - min(v.View, 1), Finalize, Digest{9}}, false, []byte("junk")}}
		},
		"finalize votes for the block": func(v Vote) []Message {
			return []Message{Vote{Statement{v.Epoch, v.View, Finalize, v.Block}, false, []byte("junk")}}
		},
		"requests for finality": func(Vote) []Message { return []Message{Status{WantFinality: true}} },
		"certificates": func(v Vote) []Message {
			var all []Message
			for kind := Notarize; kind <= Finalize; kind++ {
				all = append(all, Certificate{Statement{v.Epoch, v.View + 1, kind, Digest{}}, []byte("junk")})
			}
			return all
		},
	}
	quiet := trace(t, nil)
	for name, more := range junk {
		t.Run(name, func(t *testing.T) { require.Equal(t, quiet, trace(t, more)) })
	}
}

// trace runs four replicas for a while, and returns what replicas 1 to 3 said to each other and
// when their blocks became final. Replica 4 says more than it should.
func trace(t *testing.T, more func(Vote) []Message) (said []string) {
	l := newLab(t, Size{1, 0}, 4)
	l.pass = func(from, to ReplicaID, m Message) Message {
		if v, ok := m.(Vote); ok && from == 4 && more != nil && v.Kind != Finalize && v.View > 3 {
			for _, x := range more(v) {
				l.after(0, func() { l.nodes[to].step(Receive{4, x}) })
			}
		}
		if v, ok := m.(Vote); ok && v.Kind == Finalize && to == 4 {
			return nil // what it is told in answer would show in the blocks that it makes
		}
		if from != 4 && to != 4 {
			said = append(said, fmt.Sprintf("%7d: %d to %d %T %+v", l.now, from, to, m, m))
		}
		return m
	}
	l.start()
	l.run(3*time.Second, never)
	require.Greater(t, l.final(1, 2, 3), Height(20))
	slices.Sort(said) // of what is said in the same millisecond, the order is no matter
	return append(said, fmt.Sprint(l.final(1, 2, 3)))
}

// f + 1 peers that lack finality, a correct one among them, are answered before all.
func TestManyThatLackFinalityAreHeard(t *testing.T) {
	core := failedViews(t, 4)
	v := core.View()
	b := &Block{Header: Header{View: v, Height: 1, Proposer: 2, Time: 1, Payload: emptyPayload}, Signature: make([]byte, SignatureSize)}
	feed(core, core.Step(Now{1, 1}, Receive{2, b}))
	feed(core, core.Step(Now{1, 1}, Receive{2, Certificate{Statement{0, v, Notarize, b.Digest()}, []byte("certificate")}}))
	core.trouble = 0
	finalize := Statement{0, v, Finalize, b.Digest()}
	r := core.at(v)
	r.own = append(r.own[:0], Vote{Statement: Statement{0, v, Notarize, b.Digest()}, First: true, Partial: []byte{4}})
	r.spread = false
	feed(core, core.Step(Now{1, 1}, Receive{1, Vote{finalize, false, []byte{1}}}))
	require.False(t, r.spread)
	require.Zero(t, core.careful)
	feed(core, core.Step(Now{1, 1}, Receive{2, Vote{finalize, false, []byte{2}}}))
	require.True(t, r.spread)
	require.NotZero(t, core.careful)
}
