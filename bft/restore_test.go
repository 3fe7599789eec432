package bft

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// keptConfig is replica 4 of four, in epoch 3; each leader serves four views.
func keptConfig() Config {
	return Config{Epoch: 3, Size: Size{1, 0}, Self: 4, Leaders: ids(1, 4), Window: 4, Voter: true, Timeouts: labTimeouts}
}

// emptyBlocks are blocks of the views 1 to n, each on the one before, that certify the base.
func emptyBlocks(cfg Config, n int) []*Block {
	var blocks []*Block
	var parent Digest
	for v := View(1); v <= View(n); v++ {
		b := &Block{Header: Header{
			Epoch: cfg.Epoch, View: v, Height: Height(v), Proposer: cfg.LeaderOf(v), Parent: parent, ParentView: v - 1, Time: 1, Payload: emptyPayload,
		}, Signature: make([]byte, SignatureSize)}
		blocks, parent = append(blocks, b), b.Digest()
	}
	return blocks
}

// about is a certificate of a block.
func about(kind VoteKind, b *Block) Certificate {
	return Certificate{Statement{b.Epoch, b.View, kind, b.Digest()}, []byte("certificate")}
}

func nullification(e Epoch, v View) Certificate {
	return Certificate{Statement{e, v, Nullify, Digest{}}, []byte("certificate")}
}

// restarted is a core that found this on disk, and what it does at first.
func restarted(t *testing.T, cfg Config, kept Restored) (*Core, []Effect) {
	core, err := New(cfg, kept)
	require.NoError(t, err)
	return core, append([]Effect(nil), core.Start(Now{1, 1})...)
}

// those are the effects of one type.
func those[E Effect](effects []Effect) (found []E) {
	for _, e := range effects {
		if e, ok := e.(E); ok {
			found = append(found, e)
		}
	}
	return found
}

// What was kept of another epoch says nothing in this one.
func TestRestoredOfAnotherEpoch(t *testing.T) {
	cfg := keptConfig()
	other := cfg
	other.Epoch = 2
	blocks := emptyBlocks(other, 2)
	core, _ := restarted(t, cfg, Restored{
		Votes:        []Vote{{Statement{2, 1, Nullify, Digest{}}, true, []byte{4}}},
		Blocks:       blocks,
		Certificates: []Certificate{nullification(2, 1), about(Notarize, blocks[1]), about(Finalize, blocks[0])},
	})
	require.Equal(t, View(1), core.View())
	require.Empty(t, core.at(1).own, "a vote of another epoch binds")
	require.Zero(t, core.proof.View)
	height, _ := core.Final()
	require.Zero(t, height)
	effects := core.Step(Now{1, 1}, Receive{1, emptyBlocks(cfg, 1)[0]})
	require.Empty(t, those[Accuse](effects), "a leader made a block of this view in another epoch")
	require.Len(t, those[Sign](effects), 1)
}

// A replica stopped when it had stored a finalization, and had not executed the block: it becomes
// final at the start.
func TestRestoredFinalization(t *testing.T) {
	cfg := keptConfig()
	blocks := emptyBlocks(cfg, 3)
	core, effects := restarted(t, cfg, Restored{Blocks: blocks, Certificates: []Certificate{about(Finalize, blocks[2]), about(Finalize, blocks[0])}})
	final := those[Finalized](effects)
	require.Len(t, final, 3)
	require.Equal(t, blocks[2], final[2].Block)
	require.Equal(t, Height(3), core.provenHeight)
	require.Equal(t, View(3), core.proof.View, "the highest is shown to others")
}

// A finalization is one thing, and blocks that were counted final another: only the first makes a
// height proven.
func TestRestoredFinalBlockIsProvenByItsCertificate(t *testing.T) {
	cfg := keptConfig()
	b := emptyBlocks(cfg, 1)[0]
	kept := Restored{Blocks: []*Block{b}, Final: Base{Height: 1, Digest: b.Digest(), Time: 1}, FinalView: 1, Certificates: []Certificate{about(Notarize, b)}}
	core, _ := restarted(t, cfg, kept)
	require.Zero(t, core.provenHeight)
	kept.Certificates = append(kept.Certificates, about(Finalize, b))
	core, _ = restarted(t, cfg, kept)
	require.Equal(t, Height(1), core.provenHeight)
}

// What does not lead up to the final block is no state to go on from.
func TestRestoredStatesLeadUpToTheFinalBlock(t *testing.T) {
	cfg := keptConfig()
	blocks := emptyBlocks(cfg, 2)
	good := Restored{
		Blocks: blocks, Final: Base{Height: 2, Digest: blocks[1].Digest(), Time: 1, Root: labRoot(2)}, FinalView: 2,
		Executed: []Executed{{Height: 0}, {Height: 1, Root: labRoot(1)}, {Height: 2, Root: labRoot(2)}},
	}
	_, err := New(cfg, good)
	require.NoError(t, err)
	for name, change := range map[string]func(*Restored){
		"the block is missing":       func(r *Restored) { r.Blocks = blocks[:1] },
		"another block of its view":  func(r *Restored) { b := *blocks[1]; b.Time++; r.Blocks = []*Block{blocks[0], &b} },
		"its state is missing":       func(r *Restored) { r.Executed = r.Executed[:2] },
		"a state is missing":         func(r *Restored) { r.Executed = []Executed{r.Executed[0], r.Executed[2]} },
		"states are above the block": func(r *Restored) { r.Executed = append(r.Executed, Executed{Height: 3}) },
	} {
		bad := good
		bad.Executed = append([]Executed(nil), good.Executed...)
		change(&bad)
		_, err := New(cfg, bad)
		require.Error(t, err, name)
	}
}

// A gap in what was kept of the views is asked for: the first view that lacks a certificate above
// the highest notarized block.
func TestRestoredGapIsAskedFor(t *testing.T) {
	cfg := keptConfig()
	b := emptyBlocks(cfg, 1)[0]
	core, effects := restarted(t, cfg, Restored{Blocks: []*Block{b}, Certificates: []Certificate{about(Notarize, b), nullification(3, 3)}})
	require.Equal(t, View(4), core.View())
	require.Contains(t, effects, Effect(Broadcast{Status{Epoch: 3, View: 2, WantFinality: true}}))
	timers := those[SetTimer](effects)
	require.Contains(t, timers, SetTimer{Timer{4, TimerFinalize}, labTimeouts.Finalize}, "the block that is open gets finalize votes")
}

// A leader that signed one block before the restart and another one after it is convicted; one that
// was convicted is accused again.
func TestRestoredHeadersConvict(t *testing.T) {
	cfg := keptConfig()
	b := emptyBlocks(cfg, 1)[0]
	second := *b
	second.Time++
	core, effects := restarted(t, cfg, Restored{Blocks: []*Block{b}})
	require.Empty(t, those[Accuse](effects))
	effects = core.Step(Now{1, 1}, Receive{2, SignedHeader{second.Header, second.Signature}})
	require.Len(t, those[Accuse](effects), 1)

	_, effects = restarted(t, cfg, Restored{Blocks: []*Block{b, &second}})
	require.Len(t, those[Accuse](effects), 1, "the log may not have it yet")
}

// Own votes count after the restart as before, and those whose signature was cut off are signed.
func TestRestoredVotesCount(t *testing.T) {
	cfg := keptConfig()
	b := emptyBlocks(cfg, 1)[0]
	statement := Statement{3, 1, Notarize, b.Digest()}
	core, effects := restarted(t, cfg, Restored{Blocks: []*Block{b}, Votes: []Vote{{statement, true, []byte{4}}}})
	require.Empty(t, those[Sign](effects))
	require.Contains(t, effects, Effect(Broadcast{Vote{statement, true, []byte{4}}}), "it is said again")
	core.Step(Now{1, 1}, Receive{1, Vote{statement, true, []byte{1}}})
	effects = core.Step(Now{1, 1}, Receive{2, Vote{statement, true, []byte{2}}})
	require.Len(t, those[Combine](effects), 1, "with its own, a quorum")

	core, effects = restarted(t, cfg, Restored{Blocks: []*Block{b}, Votes: []Vote{{statement, true, nil}}})
	require.Equal(t, []Sign{{Vote{statement, true, nil}}}, those[Sign](effects))
	core.Step(Now{1, 1}, Signed{Vote{statement, true, []byte{4}}, nil})
	core.Step(Now{1, 1}, Expired{Timer{1, TimerView}})
	later := core.Step(Now{1 + 10*time.Hour.Milliseconds(), 1}, Expired{Timer{1, TimerView}})
	require.Empty(t, those[Sign](later), "the view has its first vote")
}
