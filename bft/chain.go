package bft

import (
	"errors"

	"golang.org/x/crypto/cryptobyte"
)

// This file says what a valid chain of one epoch is, and what proves blocks of it final. Everybody
// asks here: the rules for a first vote, the tree of blocks, catching up over the log, replay from
// disk, snapshots.

// MaxStateLag bounds how many blocks a header's certified state may lie behind a block with
// operations: a cluster that executes slower than it orders must slow down. Empty blocks are not
// bounded: they bring finality when nothing else can.
const MaxStateLag = 128

var (
	errEpoch       = errors.New("the block is of another epoch")
	errParent      = errors.New("the block's parent is another one")
	errParentView  = errors.New("the view is not above the parent's, or the parent's is given wrong")
	errHeight      = errors.New("the height is not the parent's plus one")
	errTime        = errors.New("the time is before the parent's")
	errStateHeight = errors.New("the certified state is above the parent, below the parent's certified state, or not of this epoch")
	errLag         = errors.New("a block so far above its certified state is not empty")
	errStateRoot   = errors.New("the same state is certified differently than by the parent")
	errFiller      = errors.New("a block that ends the epoch is not empty, or a block after it does not end the epoch")

	errProofBlock = errors.New("the certificate is of another block than the one that ends the chain")
	errProofKind  = errors.New("a nullification proves no block final")
	errProofShort = errors.New("the certificate does not prove all blocks of the chain final")
	errProofLong  = errors.New("the proof of a chain has too many headers")
)

// Tip is the end of a valid chain of one epoch.
type Tip struct {
	// Header is that of the last block. Of the block below the epoch only height, time and state
	// are known.
	Header Header
	Digest Digest
	// Epoch is the chain's; Base says that the tip is the block below it.
	Epoch Epoch
	Base  bool
	// Last is the height of the epoch's last block, 0 while the chain has none. It is never the base's.
	Last Height
}

// BaseTip is the chain of an epoch that has no block yet.
func BaseTip(e Epoch, b Base) Tip {
	header := Header{Height: b.Height, Time: b.Time, StateHeight: b.Height, StateRoot: b.Root}
	return Tip{Header: header, Digest: b.Digest, Epoch: e, Base: true}
}

// TipOf is the chain that ends with a block that is no base and does not end its epoch.
func TipOf(h *Header) Tip { return Tip{Header: *h, Digest: h.Digest(), Epoch: h.Epoch} }

// View is the tip's view, 0 for the block below the epoch.
func (t *Tip) View() View {
	if t.Base {
		return 0
	}
	return t.Header.View
}

// Follows says why a header may not stand on the tip; nil if it may. Views, heights, times and
// certified states go forward only. EpochEnd belongs to the certified state: it is the same where
// the state is the same, and the state below an epoch never asks for its end. From the epoch's last
// block on blocks are empty, and certify states of this epoch only, since the last block begins the
// next.
func (t *Tip) Follows(h *Header) error { return forgiven(t.follows(h)) }

func (t *Tip) follows(h *Header) error {
	p := &t.Header
	switch {
	case h.Epoch != t.Epoch:
		return errEpoch
	case h.Parent != t.Digest:
		return errParent
	case h.ParentView != t.View() || h.View <= t.View():
		return errParentView
	case h.Height != p.Height+1:
		return errHeight
	case h.Time < p.Time:
		return errTime
	case h.StateHeight < p.StateHeight, h.StateHeight > p.Height, t.Last != 0 && h.StateHeight >= t.Last:
		return errStateHeight
	case h.Height-h.StateHeight > MaxStateLag && h.Payload != emptyPayload:
		return errLag
	case h.StateHeight == p.StateHeight && (h.StateRoot != p.StateRoot || h.EpochEnd != (p.EpochEnd && !t.Base)):
		return errStateRoot
	case !t.Base && p.EpochEnd && !h.EpochEnd, h.EpochEnd && h.Payload != emptyPayload:
		return errFiller
	}
	return nil
}

// Extend makes a header that may follow the chain's tip.
func (t *Tip) Extend(h *Header) error { return t.extend(h, h.Digest()) }

func (t *Tip) extend(h *Header, digest Digest) error {
	if err := t.Follows(h); err != nil {
		return err
	}
	if h.EpochEnd && t.Last == 0 {
		t.Last = h.Height
	}
	t.Header, t.Digest, t.Base = *h, digest, false
	return nil
}

// MaxProof bounds the headers of a [Proof]: no more views pass without a final block.
const MaxProof = maxViews

// Proof proves blocks of one epoch final to anybody who can verify certificates. Above are the
// headers that follow the last block proven, up to the one that the certificate is of; there are
// none when it is of that block itself.
//
// A finalization proves its block and all ancestors. So an epoch's last block is proven by its own
// finalization, or by that of one of the fillers above it, which are then in Above. A notarization
// proves the state that its header certifies: a correct replica, one at least, first-voted for it,
// and had executed that state's block as final.
type Proof struct {
	Above       []Header
	Certificate Certificate
}

// Prove checks that the blocks with these headers make a valid chain on tip, and are final if the
// proof's certificate is good, whose signature the caller verifies. It returns the chain's end: the
// certified header, and whether the epoch's last block is among the blocks (it is then the last of
// them: fillers are never final blocks of the log).
func (p *Proof) Prove(tip Tip, blocks []*Header) (Tip, error) {
	if len(p.Above) > MaxProof {
		return tip, errProofLong
	}
	top := tip.Header.Height
	for _, h := range blocks {
		if err := tip.Extend(h); err != nil {
			return tip, err
		}
		top = h.Height
	}
	for i := range p.Above {
		if err := tip.Extend(&p.Above[i]); err != nil {
			return tip, err
		}
	}
	return tip, forgiven(p.proves(&tip, top))
}

// proves says whether the certificate, which is of the tip, proves the chain final up to a height.
func (p *Proof) proves(tip *Tip, height Height) error {
	c := &p.Certificate
	switch {
	case tip.Base || c.Epoch != tip.Epoch || c.View != tip.View() || c.Block != tip.Digest:
		return errProofBlock
	case c.Kind == Notarize && height > tip.Header.StateHeight:
		return errProofShort
	case c.Kind == Finalize && tip.Last != 0 && height > tip.Last:
		return errProofShort
	case c.Kind != Notarize && c.Kind != Finalize:
		return errProofKind
	}
	return nil
}

// MarshalBinary returns the canonical encoding: the number of headers (2 bytes), the headers, the
// certificate.
func (p *Proof) MarshalBinary() ([]byte, error) {
	if len(p.Above) > MaxProof {
		return nil, errProofLong
	}
	var b cryptobyte.Builder
	b.AddUint16(uint16(len(p.Above)))
	for i := range p.Above {
		b.AddBytes(p.Above[i].AppendBinary(nil))
	}
	b.AddBytes(p.Certificate.appendBinary(nil))
	return b.Bytes()
}

// ParseProof parses what [Proof.MarshalBinary] wrote, and only that.
func ParseProof(data []byte) (*Proof, error) {
	s := cryptobyte.String(data)
	var count uint16
	if !s.ReadUint16(&count) || count > MaxProof {
		return nil, errMalformed
	}
	p := new(Proof)
	for range count {
		var raw []byte
		if !s.ReadBytes(&raw, headerSize) {
			return nil, errMalformed
		}
		h, err := ParseHeader(raw)
		if err != nil {
			return nil, err
		}
		p.Above = append(p.Above, h)
	}
	var err error
	p.Certificate, err = ParseCertificate(s)
	return p, err
}

// LeaderOf returns the leader of a view, under a schedule in which each leader serves window views
// in a row. It is 0 for view 0.
func LeaderOf(leaders []ReplicaID, window int, v View) ReplicaID {
	if v == 0 {
		return 0
	}
	return leaders[(v-1)/View(window)%View(len(leaders))]
}
