package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/transport"
)

// Methods by which replicas serve each other.
const (
	methodAncestors = "reseal/ancestors"
	methodLog       = "reseal/log"
)

// Bounds of what one call fetches.
const (
	chunkBytes  = 4 << 20
	callTimeout = 2 * time.Second
)

// fetch answers a Fetch effect: it asks those who should have the block, then the others, and tries again while the view lasts.
func (e *epochRun) fetch(f bft.Fetch) {
	for _, peer := range e.r.askOrder(f.Hint) {
		blocks, err := e.fetchFrom(peer, f)
		if e.ctx.Err() != nil {
			return
		}
		if err == nil && len(blocks) > 0 {
			e.events.put(bft.Fetched{Blocks: blocks})
			return
		}
		if err != nil && !transport.Unavailable(err) {
			e.r.log.Warn("fetching a block failed", "replica", peer, "error", err)
		}
	}
}

// askOrder returns the other members: the hinted ones first, the rest in random order.
func (r *Replica) askOrder(hint []bft.ReplicaID) []bft.ReplicaID {
	order := append([]bft.ReplicaID(nil), hint...)
	members := r.Membership().Members
	for _, i := range rand.Perm(len(members)) {
		order = append(order, members[i].ID)
	}
	seen := map[bft.ReplicaID]bool{r.cfg.Self: true}
	distinct := order[:0]
	for _, id := range order {
		if !seen[id] {
			seen[id] = true
			distinct = append(distinct, id)
		}
	}
	return distinct
}

func (e *epochRun) fetchFrom(peer bft.ReplicaID, f bft.Fetch) ([]*bft.Block, error) {
	var b cryptobyte.Builder
	b.AddBytes(f.Block[:])
	b.AddUint64(uint64(f.Above))
	ctx, cancel := context.WithTimeout(e.ctx, callTimeout)
	defer cancel()
	answer, err := e.r.cfg.Network.Call(ctx, peer, methodAncestors, b.BytesOrPanic())
	if err != nil {
		return nil, err
	}
	blocks, err := parseBlocks(answer)
	if err != nil {
		return nil, err
	}
	if len(blocks) == 0 {
		return nil, nil
	}
	if blocks[len(blocks)-1].Digest() != f.Block {
		return nil, errors.New("the answer does not end with the block asked for")
	}
	if err := linked(blocks); err != nil {
		return nil, err
	}
	for _, block := range blocks {
		if block.Epoch != e.config.Epoch {
			return nil, errors.New("the answer holds a block of another epoch")
		}
		if err := e.validateBlock(block); err != nil {
			return nil, err
		}
	}
	return blocks, nil
}

// linked checks that each block is the parent of the next.
func linked(blocks []*bft.Block) error {
	for i := 1; i < len(blocks); i++ {
		if blocks[i].Parent != blocks[i-1].Digest() || blocks[i].Height != blocks[i-1].Height+1 {
			return errors.New("the blocks of the answer do not link up")
		}
	}
	return nil
}

func appendBlocks(b *cryptobyte.Builder, blocks []*bft.Block) error {
	b.AddUint16(uint16(len(blocks)))
	for _, block := range blocks {
		raw, err := block.MarshalBinary()
		if err != nil {
			return err
		}
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(raw) })
	}
	return nil
}

func readBlocks(s *cryptobyte.String) ([]*bft.Block, error) {
	var count uint16
	if !s.ReadUint16(&count) {
		return nil, errors.New("a list of blocks is cut short")
	}
	var blocks []*bft.Block
	for range count {
		var raw cryptobyte.String
		if !s.ReadUint24LengthPrefixed(&raw) {
			return nil, errors.New("a list of blocks is cut short")
		}
		block, err := bft.ParseBlock(raw)
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, block)
	}
	return blocks, nil
}

func parseBlocks(data []byte) ([]*bft.Block, error) {
	s := cryptobyte.String(data)
	blocks, err := readBlocks(&s)
	if err == nil && !s.Empty() {
		err = errors.New("a list of blocks has something behind it")
	}
	return blocks, err
}

// serveAncestors answers with a block and its ancestors above a height, oldest first; with fewer, the nearest ones, when they are many.
func (r *Replica) serveAncestors(_ context.Context, _ *transport.Sender, data []byte) ([]byte, error) {
	s := cryptobyte.String(data)
	var digest bft.Digest
	var above uint64
	if !s.CopyBytes(digest[:]) || !s.ReadUint64(&above) || !s.Empty() {
		return nil, errors.New("malformed call")
	}
	var blocks []*bft.Block
	for bytes := 0; bytes < chunkBytes && len(blocks) < farBehind; {
		block, err := r.cfg.Store.Block(digest)
		if err != nil {
			return nil, err
		}
		if block == nil || block.Height <= bft.Height(above) {
			break
		}
		blocks = append([]*bft.Block{block}, blocks...)
		bytes += len(block.Payload)
		digest = block.Parent
	}
	var b cryptobyte.Builder
	if err := appendBlocks(&b, blocks); err != nil {
		return nil, err
	}
	return b.Bytes()
}

// catchUp fetches and executes the log from where the replica stands until f + 1 others, so a correct one, have little to add: the core takes it from
// there, since the log grows meanwhile. It needs no peer: alone, it returns at once.
func (r *Replica) catchUp(ctx context.Context) error {
	agree := 0
	for _, peer := range r.askOrder(nil) {
		err := r.catchUpFrom(ctx, peer)
		switch {
		case errors.Is(err, errFatal):
			return err
		case err == nil:
			agree++
		case !transport.Unavailable(err) && ctx.Err() == nil:
			r.log.Warn("catching up failed", "replica", peer, "error", err)
		}
		if agree > r.Membership().Size.F {
			break
		}
	}
	return ctx.Err()
}

// errFatal marks errors after which the replica cannot go on.
var errFatal = errors.New("fatal")

// littleBehind is a distance that the core makes good by itself.
const littleBehind = 32

// catchUpFrom executes what one peer can prove to be final above this replica's height, until that is little.
func (r *Replica) catchUpFrom(ctx context.Context, peer bft.ReplicaID) error {
	if err := r.leap(ctx, peer); err != nil {
		return err
	}
	for {
		epoch := r.cfg.System.Membership().Epoch
		n, err := r.fetchLog(ctx, peer)
		if err != nil || n < littleBehind && epoch == r.cfg.System.Membership().Epoch {
			return err
		}
	}
}

// leap fetches a peer's snapshot if the peer is so far ahead that this is less work than the log, or has cut its log.
func (r *Replica) leap(ctx context.Context, peer bft.ReplicaID) error {
	latest := r.ledger.latest.Load().height
	q, err := r.askSnapshot(ctx, peer)
	if err != nil || q == nil || q.height < latest+leapBlocks {
		return err
	}
	return r.fetchSnapshot(q)
}

// leapBlocks is the distance from which a snapshot is fetched rather than the log. It is less than keptBlocks.
const leapBlocks = 1 << 13

// fetchLog executes one piece of the log and returns the number of its blocks.
func (r *Replica) fetchLog(ctx context.Context, peer bft.ReplicaID) (int, error) {
	from := r.ledger.latest.Load().height + 1
	blocks, proof, err := r.askLog(ctx, peer, from)
	if err != nil || len(blocks) == 0 {
		return 0, err
	}
	final, err := r.checkLog(from, blocks, proof)
	if err != nil {
		return 0, err
	}
	return r.executeLog(blocks, proof, final)
}

func (r *Replica) askLog(ctx context.Context, peer bft.ReplicaID, from bft.Height) ([]*bft.Block, bft.Certificate, error) {
	var b cryptobyte.Builder
	b.AddUint64(uint64(from))
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := r.cfg.Network.Call(ctx, peer, methodLog, b.BytesOrPanic())
	if err != nil {
		return nil, bft.Certificate{}, err
	}
	return parseLog(answer)
}

// isAhead reports whether a peer can prove that it is in a later epoch, or far ahead in this one. A claim alone does not stop the core.
func (r *Replica) isAhead(ctx context.Context, peer bft.ReplicaID) bool {
	from := r.ledger.latest.Load().height + 1
	blocks, proof, err := r.askLog(ctx, peer, from)
	if err != nil || len(blocks) == 0 || r.verifyCertificate(proof) != nil || proof.Block != blocks[len(blocks)-1].Digest() {
		return false
	}
	return proof.Epoch > r.Membership().Epoch || blocks[len(blocks)-1].EpochEnd || len(blocks) >= farBehind/2
}

// checkLog verifies a piece of the log and returns the number of its blocks that are proven final. The blocks must link up with this
// replica's last one, and the certificate must be for the last of them. A finalization proves them all. A notarization proves what its
// header says of the state: at least one correct replica first-voted for it, and had executed its StateHeight as final.
func (r *Replica) checkLog(from bft.Height, blocks []*bft.Block, proof bft.Certificate) (int, error) {
	tip, err := r.tip()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errFatal, err)
	}
	last := blocks[len(blocks)-1]
	if blocks[0].Height != from || blocks[0].Parent != tip {
		return 0, errors.New("the log served does not continue this replica's")
	}
	if err := linked(blocks); err != nil {
		return 0, err
	}
	if proof.Epoch != last.Epoch || proof.View != last.View || proof.Block != last.Digest() {
		return 0, errors.New("the log served is proven by a certificate of another block")
	}
	if err := r.verifyCertificate(proof); err != nil {
		return 0, err
	}
	switch proof.Kind {
	case bft.Finalize:
		return len(blocks), nil
	case bft.Notarize:
		return int(max(last.StateHeight+1, from) - from), nil
	}
	return 0, errors.New("the log served is proven by a nullification")
}

// verifyCertificate checks a certificate of this or any later epoch: the group key never changes.
func (r *Replica) verifyCertificate(c bft.Certificate) error {
	m := r.cfg.System.Membership()
	verifier, err := r.cfg.Verifier(m)
	if err != nil {
		return err
	}
	if m.Epoch == 0 && c.Epoch != 0 {
		return errors.New("a certificate of a later epoch cannot be verified before epoch 0 is complete")
	}
	message := c.Statement.Bytes(r.cfg.Cluster)
	if !verifier.Verify([][]byte{message}, [][]byte{c.Signature})[0] {
		return errors.New("the log served is proven by a bad certificate")
	}
	return nil
}

// tip returns the digest of the last block executed, or the base of epoch 0.
func (r *Replica) tip() (bft.Digest, error) {
	height := r.ledger.latest.Load().height
	if m := r.cfg.System.Membership(); m.Base.Height == height {
		return m.Base.Digest, nil
	}
	block, err := r.cfg.Store.BlockAt(height)
	if err != nil {
		return bft.Digest{}, err
	}
	if block == nil {
		return bft.Digest{}, fmt.Errorf("block %d, the last executed, is missing on disk: move the store directory away and start again", height)
	}
	return block.Digest(), nil
}

// executeLog stores a checked piece of the log and executes the part of it that is final.
func (r *Replica) executeLog(blocks []*bft.Block, proof bft.Certificate, final int) (int, error) {
	batch := r.cfg.Store.NewBatch()
	for i, block := range blocks {
		err := batch.PutBlock(block)
		if err == nil && i < final {
			err = batch.PutFinal(block.Height, block.Digest(), block.View)
		}
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errFatal, err)
		}
	}
	if err := batch.PutCertificate(proof); err != nil {
		return 0, fmt.Errorf("%w: %w", errFatal, err)
	}
	if err := commit(batch, true); err != nil {
		return 0, fmt.Errorf("%w: %w", errFatal, err)
	}
	for i, block := range blocks[:final] {
		if _, err := r.execute(block, block.EpochEnd); err != nil {
			return i, fmt.Errorf("%w: %w", errFatal, err)
		}
	}
	r.certified(blocks[len(blocks)-1].Header, proof)
	return final, nil
}

// serveLog answers with final blocks from a height on, and with a certificate for the last of them.
func (r *Replica) serveLog(_ context.Context, _ *transport.Sender, data []byte) ([]byte, error) {
	s := cryptobyte.String(data)
	var from uint64
	if !s.ReadUint64(&from) || !s.Empty() {
		return nil, errors.New("malformed call")
	}
	blocks, proof, err := r.provenLog(bft.Height(from))
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	if err := appendBlocks(&b, blocks); err != nil {
		return nil, err
	}
	if len(blocks) > 0 {
		b.AddBytes(bft.MarshalMessage(proof))
	}
	return b.Bytes()
}

func parseLog(data []byte) (blocks []*bft.Block, proof bft.Certificate, err error) {
	s := cryptobyte.String(data)
	if blocks, err = readBlocks(&s); err != nil || len(blocks) == 0 {
		return nil, proof, err
	}
	message, err := bft.ParseMessage(s)
	if err != nil {
		return nil, proof, err
	}
	proof, ok := message.(bft.Certificate)
	if !ok {
		return nil, proof, errors.New("the log served ends without a certificate")
	}
	return blocks, proof, nil
}

// provenLog collects final blocks from a height on, up to the last one that a certificate on disk proves. It ends at an epoch's last block if that one
// has a finalization, so that a replica without the group key can follow out of epoch 0.
func (r *Replica) provenLog(from bft.Height) (blocks []*bft.Block, proof bft.Certificate, err error) {
	bytes, proven := 0, 0
	for h := from; bytes < chunkBytes && len(blocks) < 1<<12; h++ {
		block, err := r.cfg.Store.BlockAt(h)
		if err != nil {
			return nil, proof, err
		}
		if block == nil {
			break
		}
		blocks = append(blocks, block)
		bytes += len(block.Payload)
		c, ok, err := r.certificateOf(block)
		if err != nil {
			return nil, proof, err
		}
		if ok && (c.Kind == bft.Finalize || !block.EpochEnd) {
			proof, proven = c, len(blocks)
		}
		if ok && c.Kind == bft.Finalize && block.EpochEnd {
			break
		}
	}
	return blocks[:proven], proof, nil
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
