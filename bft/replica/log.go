package replica

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/bft/transport"
)

// methodLog serves the log, piece by piece.
const methodLog = "reseal/log"

// Bounds of one piece of the log: so many bytes of payload (and one block more), so many blocks.
const (
	pieceBytes  = 2 << 20
	pieceBlocks = 1 << 12
)

// errFatal marks errors after which the replica cannot go on.
var errFatal = errors.New("fatal")

// errCut says that a peer has cut its log above what was asked for.
var errCut = errors.New("the log is cut there: fetch a snapshot")

// piece is a part of the log: final blocks of one epoch, in order, and what proves them final.
type piece struct {
	blocks []*bft.Block
	proof  *bft.Proof
}

func (p *piece) bytes() (n int) {
	for _, block := range p.blocks {
		n += len(block.Payload)
	}
	return n
}

func (p *piece) marshal() ([]byte, error) {
	var b cryptobyte.Builder
	if err := appendBlocks(&b, p.blocks); err != nil || len(p.blocks) == 0 {
		return b.BytesOrPanic(), err
	}
	proof, err := p.proof.MarshalBinary()
	b.AddBytes(proof)
	if err != nil {
		return nil, err
	}
	return b.Bytes()
}

func parsePiece(data []byte) (*piece, error) {
	s := cryptobyte.String(data)
	p := new(piece)
	var err error
	if p.blocks, err = readBlocks(&s); err != nil {
		return nil, err
	}
	switch {
	case len(p.blocks) > pieceBlocks:
		return nil, errors.New("a piece of the log has too many blocks")
	case len(p.blocks) > 0:
		p.proof, err = bft.ParseProof(s)
	case !s.Empty():
		err = errors.New("an empty piece of the log has something behind it")
	}
	return p, err
}

// checked is a piece of the log that was found good: nothing else is stored.
type checked struct {
	*piece
	requests [][]*request.Request // by block
	end      bft.Tip              // the certified header
}

// tip is the end of the log as far as it was executed.
func (r *Replica) tip() (bft.Tip, error) {
	s, m := r.ledger.latest.Load(), r.cfg.System.Membership()
	if m.Base.Height == s.height {
		base := m.Base
		base.Root = s.root
		return bft.BaseTip(m.Epoch, base), nil
	}
	block, err := r.cfg.Store.BlockAt(s.height)
	switch {
	case err != nil:
		return bft.Tip{}, err
	case block == nil:
		return bft.Tip{}, fmt.Errorf("%w: block %d, the last executed, is missing on disk: move the store directory away and start again", store.ErrCorrupt, s.height)
	case block.Epoch != m.Epoch || block.EpochEnd:
		return bft.Tip{}, fmt.Errorf("%w: block %d, the last executed, is not one of epoch %d: move the store directory away and start again", store.ErrCorrupt, s.height, m.Epoch)
	}
	return bft.TipOf(&block.Header), nil
}

// check examines a piece of the log that is to continue what this replica has executed.
func (r *Replica) check(p *piece) (*checked, error) {
	tip, err := r.tip()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFatal, err)
	}
	c := &checked{piece: p, requests: make([][]*request.Request, len(p.blocks))}
	headers := make([]*bft.Header, len(p.blocks))
	for i, block := range p.blocks {
		headers[i] = &block.Header
	}
	if c.end, err = p.proof.Prove(tip, headers); err != nil {
		return nil, fmt.Errorf("the log served is no valid chain: %w", err)
	}
	if err := r.verifyCertificate(r.cfg.System.Membership(), p.proof.Certificate); err != nil {
		return nil, err
	}
	for i, block := range p.blocks {
		if err := r.checkProposal(block); err != nil {
			return nil, err
		}
		if c.requests[i], err = request.ParsePayload(block.Payload); err != nil {
			return nil, fmt.Errorf("block %d: %w", block.Height, err)
		}
	}
	return c, nil
}

// checkProposal checks that a block of the present epoch was proposed by its leader. A certificate
// does not cover the leader's signature: without the check a replica could be made to keep blocks
// that it could not serve to others.
func (r *Replica) checkProposal(block *bft.Block) error {
	if broken("log-signature") {
		return nil
	}
	m := r.cfg.System.Membership()
	if len(m.Leaders) == 0 || block.Proposer != bft.LeaderOf(m.Leaders, r.cfg.Window, block.View) {
		return fmt.Errorf("block %d names replica %d as its leader", block.Height, block.Proposer)
	}
	leader := m.Member(block.Proposer)
	if leader == nil || len(leader.EpochKey) != ed25519.PublicKeySize ||
		!ed25519.Verify(leader.EpochKey, bft.ProposalBytes(r.cfg.Cluster, block.Digest()), block.Signature) {
		return fmt.Errorf("block %d does not carry its leader's signature", block.Height)
	}
	return nil
}

// verifyCertificate checks a certificate under what a membership says. It is of that epoch, or of a
// later one: the group key never changes.
func (r *Replica) verifyCertificate(m *Membership, c bft.Certificate) error {
	verifier, err := r.cfg.Verifier(m)
	if err != nil {
		return err
	}
	if m.Epoch == 0 && c.Epoch != 0 {
		return errors.New("a certificate of a later epoch cannot be verified before epoch 0 is complete")
	}
	message := c.Statement.Bytes(r.cfg.Cluster)
	if !verifier.Verify([][]byte{message}, [][]byte{c.Signature})[0] && !broken("log-certificate") {
		return errors.New("what was served is proven by a bad certificate")
	}
	return nil
}

// fetchPiece fetches one piece of the log and executes it. What it returns is empty when the peer
// has no more.
func (r *Replica) fetchPiece(ctx context.Context, peer bft.ReplicaID, patience *patience) (*piece, error) {
	p, err := r.askPiece(ctx, peer, patience)
	if err != nil || len(p.blocks) == 0 {
		return p, err
	}
	c, err := r.check(p)
	if err != nil {
		return nil, err
	}
	return p, r.executePiece(c)
}

func (r *Replica) askPiece(ctx context.Context, peer bft.ReplicaID, patience *patience) (*piece, error) {
	var b cryptobyte.Builder
	b.AddUint64(uint64(r.ledger.latest.Load().height + 1))
	answer, err := patience.call(ctx, r.cfg.Network, peer, methodLog, b.BytesOrPanic())
	if err != nil {
		return nil, err
	}
	return parsePiece(answer)
}

// executePiece stores a checked piece of the log and executes it.
func (r *Replica) executePiece(c *checked) error {
	if err := r.storePiece(c); err != nil {
		return fmt.Errorf("%w: %w", errFatal, err)
	}
	for i, block := range c.blocks {
		if err := r.agrees(&block.Header); err != nil {
			return fmt.Errorf("%w: %w", errFatal, err)
		}
		if _, err := r.executeParsed(block, block.Digest(), c.requests[i], block.EpochEnd); err != nil {
			return fmt.Errorf("%w: %w", errFatal, err)
		}
	}
	if err := r.agrees(&c.end.Header); err != nil {
		return fmt.Errorf("%w: %w", errFatal, err)
	}
	r.certified(c.end.Header, c.proof.Certificate)
	return nil
}

func (r *Replica) storePiece(c *checked) error {
	batch := r.cfg.Store.NewBatch()
	for _, block := range c.blocks {
		err := batch.PutBlock(block)
		if err == nil {
			err = batch.PutFinal(block.Height, block.Digest(), block.View)
		}
		if err != nil {
			return err
		}
	}
	if err := batch.PutCertificate(c.proof.Certificate); err != nil {
		return err
	}
	if last := c.blocks[len(c.blocks)-1]; last.EpochEnd {
		if err := putEnd(batch, last.Epoch, c.proof); err != nil {
			return err
		}
	}
	return commit(batch, true)
}

// agrees compares what a certified header says of a state with the state that this replica came to.
func (r *Replica) agrees(h *bft.Header) error {
	s := r.ledger.stateAt(h.StateHeight)
	if s == nil || s.root == h.StateRoot && (s.handoffReady == h.EpochEnd) || broken("log-state") {
		return nil
	}
	return fmt.Errorf("the state of this replica at height %d contradicts a certified one: move the store directory away and start again; the replica then "+
		"fetches the state from the others", h.StateHeight)
}

// serveLog answers with final blocks from a height on, and with what proves them.
func (r *Replica) serveLog(ctx context.Context, from *transport.Sender, data []byte) ([]byte, error) {
	s := cryptobyte.String(data)
	var height uint64
	if !s.ReadUint64(&height) || !s.Empty() {
		return nil, errMalformedCall
	}
	return r.logShare.serve(ctx, from, func() ([]byte, error) {
		p, err := r.provenLog(bft.Height(height))
		if err != nil {
			return nil, err
		}
		return p.marshal()
	})
}

// provenLog collects final blocks from a height on, as many as fit into a piece and the disk can
// prove final. It ends at an epoch's last block.
func (r *Replica) provenLog(from bft.Height) (*piece, error) {
	var best piece
	var blocks []*bft.Block // that fit
	var above []bft.Header  // of the final blocks that do not fit any more
	bytes, full := 0, false
	for h := from; len(above) < bft.MaxProof; h++ {
		block, err := r.cfg.Store.BlockAt(h)
		if err != nil {
			return nil, err
		}
		if block == nil {
			break
		}
		if len(blocks) > 0 && block.Epoch != blocks[0].Epoch {
			break
		}
		full = full || len(blocks) >= pieceBlocks || len(blocks) > 0 && bytes+len(block.Payload) > pieceBytes
		if full {
			above = append(above, block.Header)
		} else {
			blocks = append(blocks, block)
			bytes += len(block.Payload)
		}
		proven, proof, err := r.provenBy(block, blocks, above)
		if err != nil {
			return nil, err
		}
		if proven > len(best.blocks) {
			best = piece{blocks[:proven], proof}
		}
		if full && len(best.blocks) == len(blocks) || block.EpochEnd {
			break
		}
	}
	if len(blocks) == 0 {
		if last, ok, err := r.cfg.Store.LastFinal(); err != nil || ok && last >= from {
			return nil, errors.Join(errCut, err)
		}
	}
	return &best, nil
}

// provenBy returns how many of the blocks the certificates of the newest final block prove, and the
// proof. The newest is the last of above, or of blocks.
func (r *Replica) provenBy(newest *bft.Block, blocks []*bft.Block, above []bft.Header) (int, *bft.Proof, error) {
	if newest.EpochEnd {
		end, err := r.endProof(newest)
		if err != nil || end == nil || len(above)+len(end.Above) > bft.MaxProof {
			return 0, nil, err
		}
		return len(blocks), &bft.Proof{Above: append(above[:len(above):len(above)], end.Above...), Certificate: end.Certificate}, nil
	}
	c, ok, err := r.certificateOf(newest)
	if err != nil || !ok {
		return 0, nil, err
	}
	proven := len(blocks)
	if c.Kind == bft.Notarize {
		first := blocks[0].Height
		if newest.StateHeight < first {
			return 0, nil, nil
		}
		proven = min(proven, int(newest.StateHeight-first)+1)
	}
	var headers []bft.Header
	for _, block := range blocks[proven:] {
		headers = append(headers, block.Header)
	}
	if len(headers)+len(above) > bft.MaxProof {
		return 0, nil, nil
	}
	return proven, &bft.Proof{Above: append(headers, above...), Certificate: c}, nil
}

// certificateOf returns the finalization of a block if the disk has it, else its notarization.
func (r *Replica) certificateOf(block *bft.Block) (bft.Certificate, bool, error) {
	digest := block.Digest()
	for _, kind := range []bft.VoteKind{bft.Finalize, bft.Notarize} {
		c, ok, err := r.cfg.Store.Certificate(bft.Statement{Epoch: block.Epoch, View: block.View, Kind: kind, Block: digest})
		if ok || err != nil {
			return c, ok, err
		}
	}
	return bft.Certificate{}, false, nil
}

// endKey is under which the proof of an epoch's end is kept: the fillers that it may need are
// forgotten with the epoch.
func endKey(e bft.Epoch) string { return fmt.Sprintf("epoch-end/%d", e) }

func putEnd(batch *store.Batch, e bft.Epoch, p *bft.Proof) error {
	raw, err := p.MarshalBinary()
	if err != nil {
		return err
	}
	return batch.PutMeta(endKey(e), raw)
}

// endProof returns what proves an epoch's last block final; nil when the disk has no proof.
func (r *Replica) endProof(last *bft.Block) (*bft.Proof, error) {
	raw, err := r.cfg.Store.Meta(endKey(last.Epoch))
	if err != nil || raw == nil {
		return nil, err
	}
	return bft.ParseProof(raw)
}

// keepEnd keeps the proof of the end of the epoch before m, so that this replica can lead others
// out of it.
func (r *Replica) keepEnd(m *Membership) error {
	if m.Epoch == 0 {
		return nil
	}
	last, err := r.cfg.Store.BlockAt(m.Base.Height)
	if err != nil || last == nil || last.Digest() != m.Base.Digest {
		return err // the state came from a snapshot
	}
	if known, err := r.endProof(last); err != nil || known != nil {
		return err
	}
	finalizations, err := r.cfg.Store.Finalizations(last.Epoch, last.View)
	if err != nil {
		return err
	}
	for _, c := range finalizations {
		proof := &bft.Proof{Certificate: c}
		digest := c.Block
		for digest != m.Base.Digest && len(proof.Above) < bft.MaxProof {
			filler, err := r.cfg.Store.Block(digest)
			if err != nil {
				return err
			}
			if filler == nil || filler.Height <= last.Height {
				break
			}
			proof.Above = append([]bft.Header{filler.Header}, proof.Above...)
			digest = filler.Parent
		}
		if digest != m.Base.Digest {
			continue
		}
		batch := r.cfg.Store.NewBatch()
		if err := putEnd(batch, last.Epoch, proof); err != nil {
			return err
		}
		return commit(batch, false)
	}
	return nil
}
