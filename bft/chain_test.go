package bft

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// chainOf makes a valid chain of an epoch on height 10: an ordinary block each, the epoch's last
// block, fillers.
func chainOf(ordinary, fillers int) (Tip, []*Header) {
	base := BaseTip(3, Base{Height: 10, Digest: Digest{10}, Time: 100, Root: stateRoot(10)})
	tip, view := base, View(0)
	var headers []*Header
	for i := range ordinary + fillers + 1 {
		view += View(1 + i%2) // some views are nullified
		h := next(&tip, view)
		if h.EpochEnd = i >= ordinary; i == 0 {
			h.EpochEnd = false
		}
		if h.EpochEnd {
			h.Payload = emptyPayload
			h.StateHeight = Height(10 + ordinary) // of the block below the last
			h.StateRoot = stateRoot(h.StateHeight)
		}
		headers = append(headers, h)
		if err := tip.Extend(h); err != nil {
			panic(fmt.Sprint("block ", i, ": ", err))
		}
	}
	return base, headers
}

func stateRoot(h Height) Digest { return Digest{0xaa, byte(h)} }

// next is an ordinary block on a tip, which certifies the state two blocks below it.
func next(tip *Tip, view View) *Header {
	height := tip.Header.Height + 1
	return &Header{
		Epoch: tip.Epoch, View: view, Height: height, Proposer: 1, Parent: tip.Digest, ParentView: tip.View(),
		Time: tip.Header.Time + 1, Payload: Digest{byte(height)},
		StateHeight: max(tip.Header.StateHeight, height-2), StateRoot: stateRoot(max(tip.Header.StateHeight, height-2)),
	}
}

// chainFault is one way to break a chain: block (from 0) is altered, and the ones above it linked anew.
type chainFault struct {
	name  string
	block int
	alter func(h *Header)
	want  error
}

// Of chainOf(4, 2): blocks 0 to 3 are ordinary (heights 11 to 14), 4 is the epoch's last, 5 and 6
// are fillers.
var chainFaults = []chainFault{
	{"another epoch", 1, func(h *Header) { h.Epoch++ }, errEpoch},
	{"the epoch before", 0, func(h *Header) { h.Epoch-- }, errEpoch},
	{"another parent", 2, func(h *Header) { h.Parent[0] ^= 1 }, errParent},
	{"on another base", 0, func(h *Header) { h.Parent[0] ^= 1 }, errParent},
	{"the parent's view again", 2, func(h *Header) { h.View = h.ParentView }, errParentView},
	{"a view below", 3, func(h *Header) { h.View = 1 }, errParentView},
	{"view 0", 0, func(h *Header) { h.View = 0 }, errParentView},
	{"a false parent view", 2, func(h *Header) { h.ParentView-- }, errParentView},
	{"a height left out", 1, func(h *Header) { h.Height++ }, errHeight},
	{"a height again", 1, func(h *Header) { h.Height-- }, errHeight},
	{"time falls", 2, func(h *Header) { h.Time -= 2 }, errTime},
	{"time below the base's", 0, func(h *Header) { h.Time = 99 }, errTime},
	{"the certified state goes back", 3, func(h *Header) { h.StateHeight, h.StateRoot = 10, stateRoot(10) }, errStateHeight},
	{"the state of the block itself", 3, func(h *Header) { h.StateHeight = h.Height }, errStateHeight},
	{"a state of the epoch before", 0, func(h *Header) { h.StateHeight = 9 }, errStateHeight},
	{"a filler certifies the next epoch's state", 5, func(h *Header) { h.StateHeight = 15 }, errStateHeight},
	{"the base with another root", 0, func(h *Header) { h.StateRoot[1] ^= 1 }, errStateRoot},
	{"the parent's state with another root", 1, func(h *Header) { h.StateRoot[1] ^= 1 }, errStateRoot},
	{"the end on the base's state", 0, func(h *Header) { h.EpochEnd, h.Payload = true, emptyPayload }, errStateRoot},
	{"the end on a state that has none", 1, func(h *Header) { h.EpochEnd, h.Payload = true, emptyPayload }, errStateRoot},
	{"a filler takes the end back", 5, func(h *Header) { h.EpochEnd, h.StateHeight = false, 14 }, errStateRoot},
	{"the last block carries something", 4, func(h *Header) { h.Payload[0] ^= 1 }, errFiller},
	{"a filler carries something", 6, func(h *Header) { h.Payload[0] ^= 1 }, errFiller},
}

// checkChainFaults alters one thing at a time, and says what was not noticed.
func checkChainFaults() error {
	for _, fault := range chainFaults {
		tip, headers := chainOf(4, 2)
		var found error
		for i, h := range headers {
			altered := *h
			if i > fault.block {
				altered.Parent = tip.Digest
			}
			if i == fault.block {
				fault.alter(&altered)
			}
			if found = tip.Extend(&altered); found != nil {
				if i != fault.block {
					found = fmt.Errorf("at block %d: %w", i, found)
				}
				break
			}
		}
		if found != fault.want {
			return fmt.Errorf("%s: found %v, not %v", fault.name, found, fault.want)
		}
	}
	return nil
}

func TestEveryFaultOfAChainIsFound(t *testing.T) { require.NoError(t, checkChainFaults()) }

func TestCertifiedStateIsNotTooOld(t *testing.T) { require.NoError(t, checkLag()) }

// checkLag checks that the certified state of a block with operations lies at most MaxStateLag
// blocks back, and that empty blocks go on.
func checkLag() error {
	tip := BaseTip(1, Base{Root: stateRoot(0)})
	for i := range 3 * MaxStateLag {
		h := next(&tip, View(i+1))
		h.StateHeight, h.StateRoot = 0, stateRoot(0)
		h.Payload = PayloadDigest([]byte("operations"))
		if err := tip.Follows(h); (err == nil) != (i < MaxStateLag) {
			return fmt.Errorf("operations %d blocks above the state: %v", i+1, err)
		}
		h.Payload = emptyPayload
		if err := tip.Extend(h); err != nil {
			return err
		}
	}
	return nil
}

// proofCase is a proof of the first final blocks of a chain, by a certificate of the block above others.
type proofCase struct {
	name             string
	blocks, top      int
	kind             VoteKind
	alter            func(*Certificate)
	want             error
	wantEnd          Height
	ordinary, filler int
}

var proofCases = []proofCase{
	{name: "a finalization of the block itself", blocks: 3, top: 3, kind: Finalize, ordinary: 4},
	{name: "a finalization above", blocks: 2, top: 4, kind: Finalize, ordinary: 4},
	{name: "a notarization, by its state", blocks: 2, top: 4, kind: Notarize, ordinary: 4},
	{name: "a notarization of a state below", blocks: 3, top: 4, kind: Notarize, ordinary: 4, want: errProofShort},
	{name: "a notarization of the block itself", blocks: 3, top: 3, kind: Notarize, ordinary: 4, want: errProofShort},
	{name: "a nullification", blocks: 3, top: 3, kind: Nullify, ordinary: 4, want: errProofKind},
	{name: "a kind of its own", blocks: 3, top: 3, kind: 9, ordinary: 4, want: errProofKind},
	{name: "the epoch's last, by its finalization", blocks: 5, top: 5, kind: Finalize, ordinary: 4, filler: 2, wantEnd: 15},
	{name: "the epoch's last, by a filler's", blocks: 5, top: 7, kind: Finalize, ordinary: 4, filler: 2, wantEnd: 15},
	{name: "the epoch's last, by a filler's notarization", blocks: 5, top: 7, kind: Notarize, ordinary: 4, filler: 2, want: errProofShort},
	{name: "a filler", blocks: 6, top: 6, kind: Finalize, ordinary: 4, filler: 2, want: errProofShort},
	{name: "a filler below a filler", blocks: 6, top: 7, kind: Finalize, ordinary: 4, filler: 2, want: errProofShort},
	{name: "another block", blocks: 3, top: 3, kind: Finalize, ordinary: 4, alter: func(c *Certificate) { c.Block[0] ^= 1 }, want: errProofBlock},
	{name: "another view", blocks: 3, top: 3, kind: Finalize, ordinary: 4, alter: func(c *Certificate) { c.View++ }, want: errProofBlock},
	{name: "another epoch", blocks: 3, top: 3, kind: Finalize, ordinary: 4, alter: func(c *Certificate) { c.Epoch++ }, want: errProofBlock},
}

func checkProofs() error {
	for _, c := range proofCases {
		tip, headers := chainOf(c.ordinary, c.filler)
		top := headers[c.top-1]
		p := Proof{Certificate: Certificate{Statement{Epoch: top.Epoch, View: top.View, Kind: c.kind, Block: top.Digest()}, []byte{1}}}
		if c.alter != nil {
			c.alter(&p.Certificate)
		}
		for _, h := range headers[c.blocks:c.top] {
			p.Above = append(p.Above, *h)
		}
		end, err := p.Prove(tip, headers[:c.blocks])
		if err != c.want {
			return fmt.Errorf("%s: found %v, not %v", c.name, err, c.want)
		}
		if err == nil && end.Last != c.wantEnd {
			return fmt.Errorf("%s: the epoch ends at %d, not %d", c.name, end.Last, c.wantEnd)
		}
	}
	return nil
}

func TestProofs(t *testing.T) { require.NoError(t, checkProofs()) }

func TestAProofOfNothingProvesNothing(t *testing.T) {
	tip, _ := chainOf(1, 0)
	p := Proof{Certificate: Certificate{Statement{Epoch: 3, Kind: Finalize, Block: tip.Digest}, []byte{1}}}
	_, err := p.Prove(tip, nil)
	require.ErrorIs(t, err, errProofBlock, "the base needs no proof, and nobody can sign for view 0")
}

func TestAProofHasABound(t *testing.T) {
	p := Proof{Above: make([]Header, MaxProof+1), Certificate: Certificate{Statement{Kind: Finalize}, []byte{1}}}
	_, err := p.MarshalBinary()
	require.ErrorIs(t, err, errProofLong)
	_, err = p.Prove(Tip{}, nil)
	require.ErrorIs(t, err, errProofLong)
}

func FuzzParseProof(f *testing.F) {
	_, headers := chainOf(3, 1)
	p := Proof{Above: []Header{*headers[1], *headers[2]}, Certificate: Certificate{Statement{Epoch: 3, View: 4, Kind: Finalize, Block: headers[2].Digest()}, []byte("signature")}}
	seed, err := p.MarshalBinary()
	require.NoError(f, err)
	f.Add(seed)
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseProof(data)
		if err != nil {
			return
		}
		again, err := p.MarshalBinary()
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, again))
		tip, headers := chainOf(2, 0)
		_, _ = p.Prove(tip, headers[:1]) // must not panic
	})
}
