package replica

import (
	"crypto/ed25519"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// examined is a run of replica 1 in view 1, as far as it judges what peers send.
func examined(t *testing.T) (*world, *epochRun) {
	w := newWorld(t, bft.Size{F: 1}, 1)
	r, err := w.replica(w.store(), &peers{})
	require.NoError(t, err)
	r.cfg.Timeouts = someTimeouts
	e, err := r.newRun(t.Context(), r.Membership(), EpochKeys{})
	require.NoError(t, err)
	require.EqualValues(t, 1, e.view.Load())
	return w, e
}

// made is a block of a view, signed by its leader; another number makes another block.
func (w *world) made(e *epochRun, view bft.View, number int) *bft.Block {
	payload := w.payload(10)
	return w.sign(bft.Header{
		Epoch: 1, View: view, Height: 1, Proposer: e.config.LeaderOf(view), Time: int64(number), Payload: bft.PayloadDigest(payload),
	}, payload)
}

func headerOf(b *bft.Block) bft.SignedHeader {
	return bft.SignedHeader{Header: b.Header, Signature: b.Signature}
}

func (e *epochRun) sender(id bft.ReplicaID) transport.Sender {
	return transport.Sender{ID: id, EpochKey: e.membership.Member(id).EpochKey}
}

// led returns views of one other leader, from a view on.
func (e *epochRun) led(from bft.View, count int) (id bft.ReplicaID, views []bft.View) {
	for v := from; len(views) < count; v++ {
		if leader := e.config.LeaderOf(v); leader != e.config.Self && (id == 0 || leader == id) {
			id, views = leader, append(views, v)
		}
	}
	return id, views
}

// A Byzantine leader signs any number of blocks for its views to come, all valid. Two of each view
// are verified, with the signatures of what they carry.
func TestALeadersBlocksAreVerifiedTwiceInAView(t *testing.T) {
	require.NoError(t, checkBlocksOfAView(t))
}

func checkBlocksOfAView(t *testing.T) error {
	w, e := examined(t)
	leader, views := e.led(2, 2)
	from := e.sender(leader)
	for _, view := range views {
		verified := 0
		for i := range 20 {
			if err := e.examine(from, w.made(e, view, i)); err == nil {
				verified++
			} else {
				require.ErrorIs(t, err, errScrutinized)
			}
		}
		if verified != blocksOfView {
			return fmt.Errorf("%d blocks of one view were verified", verified)
		}
	}
	require.Len(t, e.scrutiny.turns, 2)
	e.finalView.Store(uint64(views[0]))
	_, later := e.led(views[1]+1, 1)
	require.NoError(t, e.examine(e.sender(e.config.LeaderOf(later[0])), w.made(e, later[0], 0)))
	require.Len(t, e.scrutiny.turns, 2, "of views that are over nothing is remembered")
	return nil
}

// Who has an old key of a leader that has recovered takes none of its turns away.
func TestAnOldKeyTakesNoTurn(t *testing.T) {
	w, e := examined(t)
	leader, views := e.led(2, 1)
	_, key, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	old := transport.Sender{ID: leader, EpochKey: key.Public().(ed25519.PublicKey)}
	for i := range 5 {
		junk := w.made(e, views[0], i)
		junk.Signature = make([]byte, ed25519.SignatureSize)
		require.Error(t, e.examine(old, junk))
	}
	require.NoError(t, e.examine(e.sender(leader), w.made(e, views[0], 9)))
}

// Leaders send their own blocks. Somebody else's could be sent by n - 1, each of them as often.
func TestOnlyItsLeaderSendsABlock(t *testing.T) { require.NoError(t, checkForeignBlock(t)) }

func checkForeignBlock(t *testing.T) error {
	w, e := examined(t)
	leader, views := e.led(2, 1)
	other := bft.ReplicaID(2)
	if leader == other {
		other = 3
	}
	if e.examine(e.sender(other), w.made(e, views[0], 0)) == nil {
		return fmt.Errorf("replica %d had a block of %d verified", other, leader)
	}
	return nil
}

// A peer makes up headers and evidence without end. It has 64 signatures verified, and eight more
// for each view; others are heard meanwhile, and so is what it has said before.
func TestSignaturesOfAPeerAreBounded(t *testing.T) { require.NoError(t, checkSignaturesOfAPeer(t)) }

func checkSignaturesOfAPeer(t *testing.T) error {
	w, e := examined(t)
	_, views := e.led(2, 1)
	good := headerOf(w.made(e, views[0], 0))
	other := headerOf(w.made(e, views[0], 1))
	junk := 0
	flood := func(from bft.ReplicaID, make func(bft.SignedHeader) bft.Message) (verified int) {
		for range 3 * mostSignatures {
			h := good
			junk++
			h.Time = int64(1000 + junk)
			if err := e.examine(e.sender(from), make(h)); err != nil && err != errScrutinized {
				require.ErrorContains(t, err, "does not carry its leader's signature")
				verified++
			}
		}
		return verified
	}
	asHeader := func(h bft.SignedHeader) bft.Message { return h }
	asEvidence := func(h bft.SignedHeader) bft.Message {
		a, b := h, other
		if da, db := a.Digest(), b.Digest(); string(da[:]) > string(db[:]) {
			a, b = b, a
		}
		return bft.Evidence{A: a, B: b}
	}

	for range 1000 {
		if err := e.examine(e.sender(2), good); err != nil {
			return fmt.Errorf("what is said again is verified again: %w", err)
		}
	}
	if verified := flood(2, asHeader); verified != mostSignatures-1 {
		return fmt.Errorf("a peer had %d headers verified", verified)
	}
	require.ErrorIs(t, e.examine(e.sender(2), other), errScrutinized)
	require.NoError(t, e.examine(e.sender(3), good), "another peer has what is its own")
	require.Equal(t, mostSignatures/2, flood(4, asEvidence), "two signatures each")

	e.view.Store(2)
	require.Equal(t, signaturesOfView, flood(2, asHeader))
	e.view.Store(1 << 40)
	require.Equal(t, mostSignatures, flood(2, asHeader))
	require.LessOrEqual(t, len(e.scrutiny.of(string(e.sender(2).EpochKey), 0).verdicts), mostVerdicts)
	return nil
}

// A leader's word on a view far ahead does not count yet, and is not verified.
func TestWordsOnViewsFarAheadAreIgnored(t *testing.T) { require.NoError(t, checkWordsAhead(t)) }

func checkWordsAhead(t *testing.T) error {
	_, e := examined(t)
	for _, word := range []struct {
		most bft.View
		on   func(bft.Header) bft.Message
	}{
		{wordsAhead, func(h bft.Header) bft.Message { return &bft.Block{Header: h} }},
		{wordsAhead, func(h bft.Header) bft.Message { return bft.SignedHeader{Header: h} }},
		{bft.VotesAhead, func(h bft.Header) bft.Message { return bft.Evidence{A: bft.SignedHeader{Header: h}} }},
	} {
		for _, ahead := range []bft.View{word.most, word.most + 1} {
			m := word.on(bft.Header{Epoch: 1, View: 1 + ahead})
			if e.ignores(m) != (ahead > word.most) {
				return fmt.Errorf("%T of a view %d ahead: ignored %t", m, ahead, e.ignores(m))
			}
		}
	}
	return nil
}

// The gateway is where all of it is asked.
func TestTheGatewayExamines(t *testing.T) {
	w, e := examined(t)
	e.meter.init(1<<20, 1<<20)
	e.events.init()
	e.r.run.Store(e)
	leader, views := e.led(2, 1)
	for i := range 5 {
		e.r.Receive(e.sender(leader), bft.MarshalMessage(w.made(e, views[0], i)))
	}
	e.r.Receive(e.sender(leader), bft.MarshalMessage(w.made(e, views[0]+1<<20, 0)))
	require.Len(t, e.events.items, blocksOfView)
}
