package monitor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/monitor"
	"github.com/stretchr/testify/require"
)

// bench shows one replica's monitor what a core is said to have done: replica 1 of n = 6 (f = c =
// 1, q = 4, p = 1), in epoch 2, above height 10.
type bench struct {
	*monitor.Monitor
	config bft.Config
	now    bft.Now
	said   []string
}

func newBench() *bench {
	x := &bench{now: bft.Now{Mono: 1000, Wall: 50_000}, config: bft.Config{
		Epoch: 2, Size: bft.Size{F: 1, C: 1}, Self: 1, Leaders: []bft.ReplicaID{1, 2, 3, 4, 5, 6}, Window: 1, Voter: true,
		Base: bft.Base{Height: 10, Digest: bft.Digest{10}, Time: 40_000, Root: bft.Digest{1}},
		Timeouts: bft.Timeouts{View: time.Second, ViewMax: time.Minute, Finalize: time.Second, Idle: time.Second, Resend: time.Second,
			Ahead: time.Second},
	}}
	x.Monitor = monitor.New(x.config, bft.Restored{}, func(sentence string) { x.said = append(x.said, sentence) })
	x.Observe(x.now, nil)
	x.Observe(x.now, bft.Expired{Timer: bft.Timer{Kind: bft.TimerResend + 1}}) // started, and nothing has happened
	return x
}

// block is a valid block of view 1 on the base; change makes it another.
func (x *bench) block(change func(*bft.Header)) *bft.Block {
	b := &bft.Block{Header: bft.Header{
		Epoch: 2, View: 1, Height: 11, Proposer: x.config.LeaderOf(1), Parent: x.config.Base.Digest, Time: 50_000,
		Payload: bft.PayloadDigest([]byte("x")), StateHeight: 10, StateRoot: x.config.Base.Root,
	}, Payload: []byte("x")}
	if change != nil {
		change(&b.Header)
	}
	return b
}

func vote(kind bft.VoteKind, view bft.View, block bft.Digest, first bool) bft.Vote {
	return bft.Vote{Statement: bft.Statement{Epoch: 2, View: view, Kind: kind, Block: block}, First: first}
}

func (x *bench) does(effects ...bft.Effect) { x.Judge(x.now, effects) }

func (x *bench) shown(m bft.Message) { x.Observe(x.now, bft.Receive{From: 2, Message: m}) }

// first has a peer's first vote come in.
func (x *bench) first(from bft.ReplicaID, v bft.Vote) {
	x.Observe(x.now, bft.Receive{From: from, Message: v})
}

func (x *bench) certified(kind bft.VoteKind, b *bft.Block) bft.Certificate {
	c := bft.Certificate{Statement: vote(kind, b.View, b.Digest(), false).Statement}
	if kind == bft.Nullify {
		c.Block = bft.Digest{}
	}
	x.Observe(x.now, bft.Verified{Certificate: c, From: 2, OK: true})
	x.does(bft.StoreCertificate{Certificate: c}, bft.Broadcast{Message: c})
	return c
}

func (x *bench) nullified(view bft.View) bft.Certificate {
	return x.certified(bft.Nullify, &bft.Block{Header: bft.Header{View: view}})
}

// stored shows a block, and has the core store it.
func (x *bench) stored(b *bft.Block) *bft.Block {
	x.shown(b)
	x.does(bft.StoreBlock{Block: b})
	return b
}

func TestWhatIsJustifiedPasses(t *testing.T) {
	x := newBench()
	b := x.stored(x.block(nil))
	v := vote(bft.Notarize, 1, b.Digest(), true)
	x.does(bft.Sign{Vote: v})
	v.Partial = []byte{1}
	x.Observe(x.now, bft.Signed{Vote: v})
	x.does(bft.Broadcast{Message: v})
	x.does(bft.StoreCertificate{Certificate: x.certified(bft.Notarize, b)})
	x.does(bft.Sign{Vote: vote(bft.Finalize, 1, b.Digest(), false)})
	x.certified(bft.Finalize, b)
	x.does(bft.Finalized{Block: b})
	require.Empty(t, x.said)
}

// A replica counts votes 64 views ahead. What is said of later ones is as if it was not: it justifies
// nothing, and its sender's first vote is the next.
func TestVotesFarAheadAreNotCounted(t *testing.T) {
	for view, counted := range map[bft.View]bool{65: true, 66: false} {
		x := newBench()
		b := x.block(func(h *bft.Header) { h.View, h.Proposer = view, bft.ReplicaID(1+(view-1)%6) })
		header := bft.SignedHeader{Header: b.Header, Signature: b.Signature}
		x.shown(header)
		x.first(2, vote(bft.Notarize, view, bft.Digest{7}, true))
		x.does(bft.Send{To: 2, Message: header})
		require.Equal(t, counted, !strings.Contains(strings.Join(x.said, ""), "nobody voted for another block"), view)
	}
}

// TestWhatIsNotJustifiedIsSaid has a core do one wrong thing at a time.
func TestWhatIsNotJustifiedIsSaid(t *testing.T) {
	firstVote := func(change func(x *bench, h *bft.Header)) func(x *bench) {
		return func(x *bench) {
			b := x.stored(x.block(func(h *bft.Header) { change(x, h) }))
			x.does(bft.Sign{Vote: vote(bft.Notarize, b.View, b.Digest(), true)})
		}
	}
	for sentence, does := range map[string]func(x *bench){
		"votes for a block in view 1 that it does not hold": func(x *bench) {
			x.does(bft.Sign{Vote: vote(bft.Notarize, 1, bft.Digest{7}, true)})
		},
		"before it is stored": func(x *bench) {
			b := x.block(nil)
			x.shown(b)
			x.does(bft.Sign{Vote: vote(bft.Notarize, 1, b.Digest(), true)})
		},
		"whose parent is not known to be notarized":  firstVote(func(_ *bench, h *bft.Header) { h.Parent = bft.Digest{9} }),
		"though view 1 before it is not nullified":   firstVote(func(_ *bench, h *bft.Header) { h.View = 2 }),
		"a block of height 12 on one of height 10":   firstVote(func(_ *bench, h *bft.Header) { h.Height = 12 }),
		"with a time before its parent's":            firstVote(func(_ *bench, h *bft.Header) { h.Time = 39_999 }),
		"whose time is 2s ahead":                     firstVote(func(x *bench, h *bft.Header) { h.Time = x.now.Wall + 2000 }),
		"certifies another state than it has":        firstVote(func(_ *bench, h *bft.Header) { h.StateRoot = bft.Digest{2} }),
		"ends the epoch: true, where the state says": firstVote(func(_ *bench, h *bft.Header) { h.EpochEnd, h.Payload = true, bft.PayloadDigest(nil) }),
		"casts a first vote in view 1 after another vote in it": func(x *bench) {
			x.due(1)
			x.does(bft.Sign{Vote: vote(bft.Nullify, 1, bft.Digest{}, true)})
			b := x.stored(x.block(nil))
			x.does(bft.Sign{Vote: vote(bft.Notarize, 1, b.Digest(), true)})
		},
		"nullifies view 1 before its time is up": func(x *bench) {
			x.does(bft.SetTimer{Timer: bft.Timer{View: 1, Kind: bft.TimerView}, After: time.Second})
			x.does(bft.Sign{Vote: vote(bft.Nullify, 1, bft.Digest{}, true)})
		},
		"finalize a block of view 1 without its notarization": func(x *bench) {
			b := x.stored(x.block(nil))
			x.does(bft.Sign{Vote: vote(bft.Finalize, 1, b.Digest(), false)})
		},
		"finalize a block of view 1 after another vote in it": func(x *bench) {
			x.due(1)
			x.does(bft.Sign{Vote: vote(bft.Nullify, 1, bft.Digest{}, true)})
			b := x.stored(x.block(nil))
			x.certified(bft.Notarize, b)
			x.does(bft.Sign{Vote: vote(bft.Finalize, 1, b.Digest(), false)})
		},
		"after it has voted to finalize a block of it": func(x *bench) {
			b := x.stored(x.block(nil))
			x.does(bft.Sign{Vote: vote(bft.Notarize, 1, b.Digest(), true)})
			x.certified(bft.Notarize, b)
			x.does(bft.Sign{Vote: vote(bft.Finalize, 1, b.Digest(), false)})
			for from := bft.ReplicaID(2); from <= 6; from++ {
				x.first(from, vote(bft.Nullify, 1, bft.Digest{}, true))
			}
			x.does(bft.Sign{Vote: vote(bft.Nullify, 1, bft.Digest{}, false)})
		},
		"with 4 of 5 first votes is not ruled out": func(x *bench) {
			b := x.stored(x.block(nil))
			x.does(bft.Sign{Vote: vote(bft.Notarize, 1, b.Digest(), true)})
			for from := bft.ReplicaID(2); from <= 4; from++ {
				x.first(from, vote(bft.Notarize, 1, b.Digest(), true))
			}
			x.first(5, vote(bft.Nullify, 1, bft.Digest{}, true))
			x.does(bft.Sign{Vote: vote(bft.Nullify, 1, bft.Digest{}, false)})
		},
		"sends a vote in view 1 that it has not signed": func(x *bench) {
			x.does(bft.Broadcast{Message: vote(bft.Nullify, 1, bft.Digest{}, true)})
		},
		"stores a block of view 1 that it was never shown": func(x *bench) { x.does(bft.StoreBlock{Block: x.block(nil)}) },
		"sends a block of view 1 that it was never shown":  func(x *bench) { x.does(bft.Send{To: 2, Message: x.block(nil)}) },
		"stores a certificate of view 1 that it neither": func(x *bench) {
			x.does(bft.StoreCertificate{Certificate: bft.Certificate{Statement: vote(bft.Nullify, 1, bft.Digest{}, false).Statement}})
		},
		"sends a certificate of view 1 that it neither": func(x *bench) {
			x.does(bft.Broadcast{Message: bft.Certificate{Statement: vote(bft.Nullify, 1, bft.Digest{}, false).Statement}})
		},
		"announces height 11 as final without the votes": func(x *bench) { x.does(bft.Finalized{Block: x.stored(x.block(nil))}) },
		"announces height 12 as final after 10": func(x *bench) {
			b := x.stored(x.block(func(h *bft.Header) { h.Height = 12 }))
			x.certified(bft.Finalize, b)
			x.does(bft.Finalized{Block: b})
		},
		"proposes in view 3, which replica": func(x *bench) { x.proposes(3) },
		"proposes a block in view 7 though view 6 before it": func(x *bench) {
			for view := bft.View(1); view < 6; view++ {
				x.nullified(view)
			}
			x.proposes(7)
		},
		"accuses replica 1 of two blocks": func(x *bench) {
			b := x.stored(x.block(nil))
			x.does(bft.Accuse{Replica: 1, Evidence: bft.Evidence{A: bft.SignedHeader{Header: b.Header}, B: bft.SignedHeader{Header: b.Header}}})
		},
		"says that its state of height 10 is another": func(x *bench) {
			x.does(bft.Diverged{Height: 10, Certified: x.config.Base.Root})
		},
		"with a state that is not the cluster's": func(x *bench) {
			x.does(bft.Diverged{Height: 10, Certified: bft.Digest{9}})
			x.due(1)
			x.does(bft.Sign{Vote: vote(bft.Nullify, 1, bft.Digest{}, true)})
		},
		"combines 3 votes in view 1, fewer than 4": func(x *bench) { x.combines(2, 3, 4) },
		"counts a vote nullify of replica 5 in view 1 that it did not get from it": func(x *bench) {
			x.does(bft.Combine{Statement: vote(bft.Nullify, 1, bft.Digest{}, true).Statement, Partials: map[bft.ReplicaID][]byte{5: {5}}})
		},
		"or after it had forged one": func(x *bench) {
			x.Observe(x.now, bft.Verified{Certificate: bft.Certificate{Statement: vote(bft.Nullify, 9, bft.Digest{}, false).Statement}, From: 3})
			x.combines(2, 3, 4, 5)
		},
		"that are combined already": func(x *bench) { x.combines(2, 3, 4, 5); x.combines(2, 3, 4, 5) },
		"checks a certificate of replica 2, which has forged one": func(x *bench) {
			x.Observe(x.now, bft.Combined{Bad: []bft.ReplicaID{2}})
			x.checks(1)
		},
		"checks a certificate of view 1 that replica 2 did not send": func(x *bench) {
			x.shown(vote(bft.Nullify, 1, bft.Digest{}, true))
			x.does(bft.Verify{Certificate: bft.Certificate{Statement: vote(bft.Nullify, 1, bft.Digest{}, false).Statement}, From: 2})
		},
		"checks a certificate of view 1 that it has":                             func(x *bench) { x.nullified(1); x.checks(1) },
		"checks 3 certificates of replica 2 at a time, and 3 for one statement":  func(x *bench) { x.checks(1); x.checks(1); x.checks(1) },
		"checks 65 certificates of replica 2 at a time, and 1 for one statement": func(x *bench) { x.checksMany(65) },
		"checks a certificate of view 1, below what is final":                    func(x *bench) { x.finalizes(x.stored(x.block(nil))); x.checks(1) },
		"fetches a block of view 1 that nobody has named":                        func(x *bench) { x.does(bft.Fetch{Block: bft.Digest{7}, View: 1, Above: 10}) },
		"fetches blocks above height 9, and is at 10": func(x *bench) {
			x.first(3, vote(bft.Notarize, 1, bft.Digest{7}, true))
			x.does(bft.Fetch{Block: bft.Digest{7}, View: 1, Above: 9})
		},
		"asks itself for a block": func(x *bench) { x.does(bft.Fetch{Block: bft.Digest{7}, View: 1, Hint: []bft.ReplicaID{1}}) },
		"asks for certificates from view 3 on, and lacks those from view 1 on": func(x *bench) { x.does(bft.Broadcast{Message: bft.Status{Epoch: 2, FinalHeight: 10, View: 3}}) },
		"asks for certificates from view 1 on, and lacks those from view 2 on": func(x *bench) {
			x.nullified(1)
			x.does(bft.Broadcast{Message: bft.Status{Epoch: 2, FinalHeight: 10, View: 1}})
		},
		"says that it can show finality up to view 1, and knows it up to view 0": func(x *bench) {
			x.does(bft.Broadcast{Message: bft.Status{Epoch: 2, FinalHeight: 10, View: 1, FinalView: 1}})
		},
		"asks for finality: true, and has notarized blocks that are not final: false": func(x *bench) {
			x.does(bft.Broadcast{Message: bft.Status{Epoch: 2, FinalHeight: 10, View: 1, WantFinality: true}})
		},
		"sends replica 3 a finalize vote of view 1 that it has not asked for": func(x *bench) { x.does(bft.Send{To: 3, Message: vote(bft.Finalize, 1, bft.Digest{1}, false)}) },
		"sends replica 3 a certificate of view 1 that it has not asked for":   func(x *bench) { x.does(bft.Send{To: 3, Message: x.nullified(1)}) },
		"sends a header of view 1, and nobody voted for another block": func(x *bench) {
			x.does(bft.Send{To: 3, Message: bft.SignedHeader{Header: x.stored(x.block(nil)).Header}})
		},
		"tells all to finalize a block of view 1, and the fast path may still complete": func(x *bench) { x.does(bft.Broadcast{Message: vote(bft.Finalize, 1, x.notarized().Digest(), false)}) },
		"answers replica 2 again after 0 ms": func(x *bench) {
			c := x.nullified(1)
			for range 2 {
				x.shown(bft.Status{Epoch: 2, View: 1})
				x.does(bft.Send{To: 2, Message: c})
			}
		},
		"does not store the certificate of view 1":          func(x *bench) { x.silent(1) },
		"does not send on the certificate that ends view 1": func(x *bench) { x.silent(1) },
		"gives view 1 2s after 0 leaders failed in a row": func(x *bench) {
			x.does(bft.SetTimer{Timer: bft.Timer{View: 1, Kind: bft.TimerView}, After: 2 * time.Second})
		},
		"gives view 3 4s after 1 leaders failed in a row": func(x *bench) { // one leader has failed since a block was notarized
			x.nullified(1)
			x.certified(bft.Notarize, x.stored(x.block(func(h *bft.Header) { h.View = 2 })))
			x.nullified(3)
			x.does(bft.SetTimer{Timer: bft.Timer{View: 3, Kind: bft.TimerView}, After: 4 * time.Second})
		},
		"nullifies view 2, and is in view 1":                func(x *bench) { x.due(2); x.does(bft.Sign{Vote: vote(bft.Nullify, 2, bft.Digest{}, true)}) },
		"casts a first vote in view 2, and is in view 1":    firstVote(func(_ *bench, h *bft.Header) { h.View = 2 }),
		"casts a fallback vote in view 1, and is in view 2": func(x *bench) { x.nullified(1); x.does(bft.Sign{Vote: vote(bft.Nullify, 1, bft.Digest{}, false)}) },
		"that certifies height 9, on one that certifies 10": firstVote(func(_ *bench, h *bft.Header) { h.StateHeight = 9 }),
		"that gives view 1 as its parent's":                 firstVote(func(_ *bench, h *bft.Header) { h.ParentView = 1 }),
		"with the state of height 10, and has executed height 11": func(x *bench) {
			b := x.notarized()
			x.finalizes(b)
			x.Observe(x.now, bft.Executed{Height: 11, Root: bft.Digest{11}})
			x.does(bft.Propose{MinTime: 60_000, Header: bft.Header{Epoch: 2, View: 2, Height: 12, Parent: b.Digest(), ParentView: 1, StateHeight: 10, StateRoot: x.config.Base.Root}})
		},
		"waits for operations for 2s in view 1": func(x *bench) {
			x.does(bft.Propose{Header: x.block(nil).Header, MinTime: 40_000, MayIdle: 2 * time.Second})
		},
		"proposes in view 7, and is in view 1": func(x *bench) { x.proposes(7) },
		"proposes a block in view 1 with a time before its parent's": func(x *bench) {
			x.does(bft.Propose{Header: x.block(nil).Header, MinTime: 39_999})
		},
		"sends two blocks of its own for view 1": func(x *bench) {
			x.does(bft.Broadcast{Message: x.stored(x.block(nil))})
			x.does(bft.Broadcast{Message: x.stored(x.block(func(h *bft.Header) { h.Time++ }))})
		},
		"announces a block of view 1 after one of view 1": func(x *bench) {
			b := x.stored(x.block(nil))
			x.finalizes(b)
			x.does(bft.Finalized{Block: x.stored(x.block(func(h *bft.Header) { h.Height, h.Parent = 12, b.Digest() }))})
		},
		"sends a status of epoch 1": func(x *bench) { x.does(bft.Broadcast{Message: bft.Status{Epoch: 1, FinalHeight: 10}}) },
	} {
		t.Run(sentence, func(t *testing.T) {
			x := newBench()
			does(x)
			require.Contains(t, strings.Join(x.said, "\n"), sentence)
		})
	}
}

// due has a view's time run out.
func (x *bench) due(view bft.View) {
	x.does(bft.SetTimer{Timer: bft.Timer{View: view, Kind: bft.TimerView}, After: time.Second})
	x.now.Mono += 1000
	x.now.Wall += 1000
	x.Observe(x.now, bft.Expired{Timer: bft.Timer{View: view, Kind: bft.TimerView}})
}

func (x *bench) proposes(view bft.View) {
	b := x.block(func(h *bft.Header) { h.View = view })
	x.does(bft.Propose{Header: b.Header, MinTime: 40_000})
}

// combines has the votes of peers to nullify view 1 come in, and combines them.
func (x *bench) combines(from ...bft.ReplicaID) {
	partials := map[bft.ReplicaID][]byte{}
	v := vote(bft.Nullify, 1, bft.Digest{}, true)
	for _, id := range from {
		v.Partial = []byte{byte(id)}
		partials[id] = v.Partial
		x.first(id, v)
	}
	x.does(bft.Combine{Statement: v.Statement, Partials: partials})
}

// checks has a certificate of replica 2 come in, and checks it.
func (x *bench) checks(view bft.View) {
	c := bft.Certificate{Statement: vote(bft.Nullify, view, bft.Digest{}, false).Statement}
	x.shown(c)
	x.does(bft.Verify{Certificate: c, From: 2})
}

func (x *bench) checksMany(n bft.View) {
	for view := range n {
		x.checks(view + 1)
	}
}

// notarized is the block of view 1, with its notarization.
func (x *bench) notarized() *bft.Block {
	b := x.stored(x.block(nil))
	x.certified(bft.Notarize, b)
	return b
}

func (x *bench) finalizes(b *bft.Block) {
	x.certified(bft.Finalize, b)
	x.does(bft.Finalized{Block: b})
}

// silent has a nullification come in, of which nothing becomes.
func (x *bench) silent(view bft.View) {
	x.Observe(x.now, bft.Verified{Certificate: bft.Certificate{Statement: vote(bft.Nullify, view, bft.Digest{}, false).Statement}, From: 2, OK: true})
	x.does()
}

// What a replica had said before it started again it may say again, to all.
func TestWhatIsSaidAgainAtAStart(t *testing.T) {
	x := newBench()
	b := x.block(nil)
	own := vote(bft.Finalize, 1, b.Digest(), false)
	own.Partial = []byte{1}
	notarize := vote(bft.Notarize, 1, b.Digest(), true)
	restored := bft.Restored{
		Votes: []bft.Vote{notarize, own}, Blocks: []*bft.Block{b},
		Certificates: []bft.Certificate{{Statement: notarize.Statement, Signature: []byte{1}}},
	}
	again := []bft.Effect{bft.Broadcast{Message: own}}
	for event, justified := range map[bft.Event]bool{nil: true, bft.Expired{Timer: bft.Timer{Kind: bft.TimerResend + 1}}: false} {
		var said []string
		watch := monitor.Observe(func(_ bft.Config, sentence string) { said = append(said, sentence) })(x.config, restored)
		watch(bft.Now{Mono: 1, Wall: x.now.Wall}, event, again)
		require.Equal(t, justified, len(said) == 0, "%v", said)
	}
}
