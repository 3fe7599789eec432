package replica

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/merkle"
	"github.com/reseal-bft/reseal/bft/transport"
)

// Distance between snapshots: what a restart has to execute again.
const (
	snapshotBlocks = 4096
	snapshotPause  = 10 * time.Second
)

// keptBlocks is the length of the log that is kept below the last snapshot. A replica that is further behind fetches a snapshot.
const keptBlocks = 1 << 16

// snapshots writes a certified state to disk now and then, beside everything else.
type snapshots struct {
	replica *Replica
	busy    atomic.Bool
	height  bft.Height
	at      time.Time
}

// consider writes a snapshot of a certified state if the last one is far behind. It is called by one goroutine at a time.
func (s *snapshots) consider(c *certifiedState) {
	if c.height < s.height+snapshotBlocks && (time.Since(s.at) < snapshotPause || c.height < s.height+64) || !s.busy.CompareAndSwap(false, true) {
		return
	}
	s.height, s.at = c.height, time.Now()
	go func() {
		defer s.busy.Store(false)
		if err := s.replica.saveSnapshot(c); err != nil {
			s.replica.log.Error("writing a snapshot failed; a restart will take longer", "error", err)
			return
		}
		below := c.header.View - min(c.header.View, guardedViews)
		if err := s.replica.cfg.Store.PruneViews(c.header.Epoch, below); err != nil {
			s.replica.log.Error("forgetting old votes failed; the disk keeps more than it needs", "error", err)
		}
		if c.height > keptBlocks {
			if err := s.replica.cfg.Store.PruneBelow(c.height - keptBlocks); err != nil {
				s.replica.log.Error("cutting the log failed; the disk keeps more than it needs", "error", err)
			}
		}
	}()
}

// saveSnapshot writes a certified state to disk.
func (r *Replica) saveSnapshot(c *certifiedState) error {
	chain, err := r.chainTo(c.certificate.Block, c.height)
	if err != nil {
		return err
	}
	return r.cfg.Store.SaveSnapshot(c.height, snapshotOf{c, chain})
}

// chainTo returns the blocks from a height to the one with the given digest.
func (r *Replica) chainTo(digest bft.Digest, from bft.Height) ([]*bft.Block, error) {
	var chain []*bft.Block
	for len(chain) <= bft.MaxStateLag {
		block, err := r.cfg.Store.Block(digest)
		if err != nil {
			return nil, err
		}
		if block == nil || block.Height < from {
			break
		}
		chain = append([]*bft.Block{block}, chain...)
		if block.Height == from {
			return chain, nil
		}
		digest = block.Parent
	}
	return nil, fmt.Errorf("the blocks between height %d and the one that certifies its state are not all on disk", from)
}

// snapshotOf encodes a certified state: the blocks from its own to the one whose header names its root, the certificate of that one, the system
// state, the sessions, the application.
type snapshotOf struct {
	*certifiedState
	chain []*bft.Block
}

// Bounds of the parts of a snapshot file.
const (
	maxChain          = 1 << 30
	maxSystemSnapshot = 64 << 20
)

func (s snapshotOf) WriteTo(w io.Writer) (int64, error) {
	buffered := bufio.NewWriterSize(w, 1<<16)
	proof := bft.MarshalMessage(s.certificate)
	var blocks cryptobyte.Builder
	if err := appendBlocks(&blocks, s.chain); err != nil {
		return 0, err
	}
	chain, err := blocks.Bytes()
	if err != nil {
		return 0, err
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(chain)))
	head = append(head, chain...)
	head = binary.BigEndian.AppendUint32(head, uint32(len(proof)))
	head = append(head, proof...)
	head = binary.BigEndian.AppendUint32(head, uint32(len(s.systemSnapshot)))
	head = append(head, s.systemSnapshot...)
	if _, err := buffered.Write(head); err != nil {
		return 0, err
	}
	if _, err := s.sessions.WriteTo(buffered); err != nil {
		return 0, err
	}
	if _, err := s.app.WriteTo(buffered); err != nil {
		return 0, err
	}
	return 0, buffered.Flush()
}

// loadSnapshot restores the newest snapshot on disk, if there is one, and returns its height.
func (r *Replica) loadSnapshot() (bft.Height, error) {
	height, file, err := r.cfg.Store.LatestSnapshot()
	if err != nil || file == nil {
		return 0, err
	}
	defer file.Close()
	if err := r.restore(height, bufio.NewReaderSize(file, 1<<16)); err != nil {
		return height, fmt.Errorf("the snapshot of height %d is not to be trusted (%w): move the store directory away and start again; "+
			"the replica then fetches the state from the others", height, err)
	}
	r.snapshots.height, r.snapshots.at = height, time.Now()
	return height, nil
}

// restore makes the state that a snapshot describes this replica's, and believes it only if its certificate proves its root.
func (r *Replica) restore(height bft.Height, file io.Reader) error {
	chain, certificate, err := readSnapshotProof(height, file)
	if err != nil {
		return err
	}
	system, err := readPart(file, maxSystemSnapshot)
	if err != nil {
		return err
	}
	if err := r.cfg.System.Restore(system); err != nil {
		return err
	}
	sessions, err := merkle.Read(file)
	if err != nil {
		return err
	}
	if err := r.cfg.Application.Restore(file); err != nil {
		return err
	}
	header := chain[len(chain)-1].Header
	if s := r.ledger.adopt(height, sessions); s.root != header.StateRoot {
		return errors.New("its root is not the certified one")
	}
	if err := r.verifyCertificate(certificate); err != nil {
		return err
	}
	if err := r.storeChain(chain, certificate); err != nil {
		return err
	}
	r.ledger.certify(header, certificate)
	return nil
}

// readSnapshotProof reads what proves a snapshot: blocks that link up from its height to one whose header names its root, and the certificate of
// that one.
func readSnapshotProof(height bft.Height, file io.Reader) ([]*bft.Block, bft.Certificate, error) {
	raw, err := readPart(file, maxChain)
	if err != nil {
		return nil, bft.Certificate{}, err
	}
	chain, err := parseBlocks(raw)
	if err != nil {
		return nil, bft.Certificate{}, err
	}
	if raw, err = readPart(file, bft.MaxMessage); err != nil {
		return nil, bft.Certificate{}, err
	}
	message, err := bft.ParseMessage(raw)
	if err != nil {
		return nil, bft.Certificate{}, err
	}
	certificate, ok := message.(bft.Certificate)
	if !ok || len(chain) == 0 || linked(chain) != nil {
		return nil, certificate, errors.New("its proof is malformed")
	}
	last := chain[len(chain)-1]
	if certificate.Kind == bft.Nullify || certificate.Block != last.Digest() || certificate.View != last.View ||
		certificate.Epoch != last.Epoch || last.StateHeight != height || chain[0].Height != height {
		return nil, certificate, errors.New("its certificate is of another state")
	}
	return chain, certificate, nil
}

// storeChain keeps the blocks that came with a snapshot; the first one is final.
func (r *Replica) storeChain(chain []*bft.Block, certificate bft.Certificate) error {
	batch := r.cfg.Store.NewBatch()
	for _, block := range chain {
		if err := batch.PutBlock(block); err != nil {
			return err
		}
	}
	if err := batch.PutFinal(chain[0].Height, chain[0].Digest(), chain[0].View); err != nil {
		return err
	}
	if err := batch.PutCertificate(certificate); err != nil {
		return err
	}
	return commit(batch, true)
}

func readPart(r io.Reader, limit uint32) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > limit {
		return nil, errors.New("a part is too large")
	}
	return io.ReadAll(io.LimitReader(r, int64(n)))
}

// methodSnapshot serves snapshots, part by part.
const methodSnapshot = "reseal/snapshot"

// snapshotPart is the size of one part, in bytes.
const snapshotPart = 4 << 20

// serveSnapshot answers with a part of the newest snapshot, or of the one of a given height: height, size of the whole, part.
func (r *Replica) serveSnapshot(_ context.Context, _ *transport.Sender, data []byte) ([]byte, error) {
	s := cryptobyte.String(data)
	var height, offset uint64
	if !s.ReadUint64(&height) || !s.ReadUint64(&offset) || !s.Empty() || offset > math.MaxInt64 {
		return nil, errors.New("malformed call")
	}
	part := make([]byte, snapshotPart)
	found, size, n, err := r.cfg.Store.ReadSnapshot(bft.Height(height), int64(offset), part)
	if err != nil {
		return nil, err
	}
	answer := binary.BigEndian.AppendUint64(nil, uint64(found))
	answer = binary.BigEndian.AppendUint64(answer, uint64(size))
	return append(answer, part[:n]...), nil
}

// remoteSnapshot reads a peer's snapshot part by part; as an io.WriterTo it goes straight to this replica's disk.
type remoteSnapshot struct {
	ctx    context.Context
	r      *Replica
	peer   bft.ReplicaID
	height bft.Height
	size   uint64
}

// pastTheEnd is an offset at which only height and size of a snapshot are answered.
const pastTheEnd = math.MaxInt64

// askSnapshot asks for a peer's newest snapshot; it is nil when the peer has none.
func (r *Replica) askSnapshot(ctx context.Context, peer bft.ReplicaID) (*remoteSnapshot, error) {
	q := &remoteSnapshot{ctx: ctx, r: r, peer: peer}
	height, size, _, err := q.part(pastTheEnd)
	if err != nil || height == 0 {
		return nil, err
	}
	q.height, q.size = height, size
	return q, nil
}

func (q *remoteSnapshot) part(offset uint64) (bft.Height, uint64, []byte, error) {
	call := binary.BigEndian.AppendUint64(nil, uint64(q.height))
	call = binary.BigEndian.AppendUint64(call, offset)
	ctx, cancel := context.WithTimeout(q.ctx, 5*callTimeout)
	defer cancel()
	answer, err := q.r.cfg.Network.Call(ctx, q.peer, methodSnapshot, call)
	if err != nil {
		return 0, 0, nil, err
	}
	s := cryptobyte.String(answer)
	var height, size uint64
	if !s.ReadUint64(&height) || !s.ReadUint64(&size) {
		return 0, 0, nil, errors.New("malformed answer")
	}
	return bft.Height(height), size, s, nil
}

// WriteTo writes the whole snapshot.
func (q *remoteSnapshot) WriteTo(w io.Writer) (written int64, err error) {
	for uint64(written) < q.size {
		height, size, part, err := q.part(uint64(written))
		if err != nil {
			return written, err
		}
		if height != q.height || size != q.size || len(part) == 0 || uint64(written)+uint64(len(part)) > size {
			return written, errors.New("the peer has replaced its snapshot meanwhile")
		}
		n, err := w.Write(part)
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// fetchSnapshot makes a peer's snapshot this replica's state if it proves right. One that does not leaves the replica without a state: it ends, and fetches
// another when it is started again.
func (r *Replica) fetchSnapshot(q *remoteSnapshot) error {
	r.log.Info("fetching a snapshot", "replica", q.peer, "height", q.height, "bytes", q.size)
	if err := r.cfg.Store.SaveSnapshot(q.height, q); err != nil {
		return err
	}
	height, err := r.loadSnapshot()
	if err == nil {
		return nil
	}
	if dropped := r.cfg.Store.DropSnapshot(height); dropped != nil {
		return fmt.Errorf("%w: %w", errFatal, dropped)
	}
	return fmt.Errorf("%w: replica %d served a bad snapshot, start again to fetch from another: %w", errFatal, q.peer, err)
}
