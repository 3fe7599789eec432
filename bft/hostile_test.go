package bft

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// hostileMessage draws a message that a Byzantine peer may send: well-formed, and else anything.
func hostileMessage(t *rapid.T) Message {
	view := View(rapid.Uint64Range(0, 90).Draw(t, "view"))
	if rapid.IntRange(0, 19).Draw(t, "far") == 0 {
		view = View(rapid.Uint64().Draw(t, "far view"))
	}
	digest := Digest{byte(rapid.IntRange(0, 200).Draw(t, "digest"))}
	statement := Statement{View: view, Kind: VoteKind(rapid.IntRange(0, 5).Draw(t, "kind")), Block: digest}
	header := Header{
		View: view, Height: Height(rapid.Uint64Range(0, 3000).Draw(t, "height")), Proposer: ReplicaID(rapid.IntRange(0, 7).Draw(t, "proposer")),
		Parent: digest, ParentView: view - View(rapid.IntRange(0, 2).Draw(t, "gap")), Time: int64(rapid.IntRange(-5, 5).Draw(t, "time")),
		StateHeight: Height(rapid.Uint64Range(0, 5).Draw(t, "state")), EpochEnd: rapid.Bool().Draw(t, "end"), Payload: emptyPayload,
	}
	other := header
	other.Time++
	signature := make([]byte, SignatureSize)
	switch rapid.IntRange(0, 5).Draw(t, "message") {
	case 0:
		return &Block{Header: header, Signature: signature}
	case 1:
		return Vote{statement, rapid.Bool().Draw(t, "first"), []byte{1}}
	case 2:
		return Certificate{statement, []byte{1}}
	case 3:
		return SignedHeader{header, signature}
	case 4:
		return newEvidence(SignedHeader{header, signature}, SignedHeader{other, signature})
	default:
		return Status{View: view, FinalHeight: header.Height, WantFinality: header.EpochEnd}
	}
}

// Whatever f peers send, and however certificates come out, nothing panics, memory is bounded, and
// without the votes of a quorum nothing is final.
func TestHostilePeers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		core, err := New(Config{
			Size: Size{1, 1}, Self: 2, Leaders: []ReplicaID{1, 2, 3, 4, 5, 6}, Window: 2, Voter: true,
			Timeouts: Timeouts{View: time.Second, ViewMax: time.Minute, Finalize: time.Millisecond, Idle: time.Millisecond, Resend: time.Second, Ahead: time.Second},
		}, Restored{})
		require.NoError(t, err)
		now := int64(1)
		effects := core.Start(Now{now, now})
		for range rapid.IntRange(1, 150).Draw(t, "events") {
			queue := append([]Effect(nil), effects...)
			for len(queue) > 0 {
				answer := grudgingAnswer(t, queue[0])
				queue = queue[1:]
				if answer != nil {
					queue = append(queue, core.Step(Now{now, now}, answer)...)
				}
			}
			now += int64(rapid.IntRange(0, 2000).Draw(t, "wait"))
			var ev Event = Expired{Timer{core.View(), TimerKind(rapid.IntRange(0, 4).Draw(t, "timer"))}}
			if rapid.IntRange(0, 4).Draw(t, "or") > 0 {
				ev = Lost{ReplicaID(rapid.IntRange(0, 8).Draw(t, "lost"))}
			}
			if rapid.IntRange(0, 4).Draw(t, "or else") > 0 {
				ev = Receive{ReplicaID(rapid.SampledFrom([]int{0, 1, 1, 1, 2, 7}).Draw(t, "from")), hostileMessage(t)}
			}
			effects = core.Step(Now{now, now}, ev)
		}
		views, blocks := core.Held()
		require.Less(t, views, 300)
		require.Less(t, blocks, 300)
		height, _ := core.Final()
		require.Zero(t, height)
	})
}

// grudgingAnswer signs, makes certificates only from a quorum, and finds that what a peer sent is
// forged.
func grudgingAnswer(t *rapid.T, e Effect) Event {
	switch e := e.(type) {
	case Sign:
		v := e.Vote
		v.Partial = []byte{2}
		return Signed{Vote: v}
	case Combine:
		require.GreaterOrEqual(t, len(e.Partials), 4)
		return Combined{Statement: e.Statement, Bad: []ReplicaID{1}}
	case Verify:
		return Verified{Certificate: e.Certificate, From: e.From}
	case Propose:
		b := &Block{Header: e.Header, Signature: make([]byte, SignatureSize)}
		b.Header.Payload, b.Time = emptyPayload, e.MinTime
		return Proposed{b}
	case Finalized:
		require.Fail(t, "final without a quorum")
	}
	return nil
}
