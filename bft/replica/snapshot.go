package replica

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/request"
	"github.com/reseal-bft/reseal/bft/store"
)

// Distance between snapshots: what a restart has to execute again. A large state is written when
// the log has grown by half its size, so that the disk has no more to write for snapshots than
// twice what it has for the log; but after farthestSnapshot blocks in any case.
const (
	snapshotBlocks   = 4096
	snapshotPause    = 10 * time.Second
	farthestSnapshot = 1 << 16
)

// mostMissed is how often a state is kept in vain, because certificates pass over its height, as
// they do while the replica catches up, before a snapshot of any other is written: a start then
// restores that.
const mostMissed = 3

// Retention says how much of the log a replica keeps, and from where on it fetches a snapshot
// rather than the log, in blocks. The zero value stands for what is in use; a simulator has less of
// both, so that minutes show what otherwise takes days.
type Retention struct {
	Kept bft.Height // at most, below the older one of the two snapshots on disk. A replica that is further behind needs a snapshot
	Leap bft.Height // the distance from which a snapshot is fetched; less than Kept. Where the log is cut, a nearer one is
}

// The retention in use. Of the log below the older snapshot keptBytes are kept, but not fewer
// blocks than others may want one by one.
const (
	keptBlocks = 1 << 16
	leapBlocks = 1 << 13
	keptBytes  = 256 << 20
	keptLeast  = farBehind + littleBehind
)

// snapshots writes a certified state to disk now and then, beside everything else.
type snapshots struct {
	phase  time.Duration        // of the beat at which this replica writes them
	wanted chan *certifiedState // holds one at most: the next to be written
	height bft.Height           // of the last one
	at     time.Time            // the beat before it
	bytes  int64                // of the log, since the last one

	keep    atomic.Bool   // the application is to keep a state, of which a snapshot is then written
	keeping atomic.Uint64 // the height of the state that it has begun to keep; 0 while there is none
	missed  int           // of those, since the last snapshot, of how many no certificate was

	again  atomic.Bool  // the last one could not be written yet
	logged atomic.Int64 // bytes of the log since the start
	size   atomic.Int64 // of the last one
}

// consider has a snapshot of a certified state written if the last one is far behind, or was to be
// written and could not be. If the application keeps states, it is of one that it keeps: that is
// asked for here, and the certificate of one awaited. It is called by one goroutine at a time.
func (s *snapshots) consider(c *certifiedState, keeps bool) {
	s.bytes += s.logged.Swap(0)
	again := s.again.Swap(false)
	if !again && !s.due(c.height, time.Now()) {
		return
	}
	if keeping := bft.Height(s.keeping.Load()); keeps && keeping != c.height && s.missed < mostMissed {
		if keeping < c.height { // none is kept, or no certificate was of its height
			if keeping > 0 {
				s.missed++
			}
			s.keeping.Store(0)
			s.keep.Store(true)
		}
		s.again.CompareAndSwap(false, again)
		return
	}
	select {
	case s.wanted <- c:
		s.took(c.height)
		s.bytes, s.missed = 0, 0
		s.keeping.Store(0)
	default: // the one before is still being written
		s.again.CompareAndSwap(false, again)
	}
}

// executed has the state after a block kept if one is to be.
func (s *snapshots) executed(height bft.Height, keeper bft.Keeper) {
	if s.keep.Load() && keeper.Keep() {
		s.keep.Store(false)
		s.keeping.Store(uint64(height))
	}
}

// took takes note that the last snapshot is of a height.
func (s *snapshots) took(height bft.Height) {
	now := time.Now()
	since := (time.Duration(now.UnixNano()) - s.phase) % snapshotPause
	s.height, s.at = height, now.Add(-since) // which has a reading of the monotonic clock, as a rounded time has not
}

// phaseOf is when in each snapshotPause a replica begins its snapshots. The others do at other
// times: a replica that writes a state to disk is slow meanwhile, and if all were at once, there
// would be no quorum of fast ones.
func phaseOf(self bft.ReplicaID, n int) time.Duration {
	return snapshotPause * time.Duration(int(self)%n) / time.Duration(n)
}

func (s *snapshots) due(height bft.Height, now time.Time) bool {
	if height >= s.height+farthestSnapshot {
		return true
	}
	some := height >= s.height+snapshotBlocks || now.Sub(s.at) >= snapshotPause && height >= s.height+64
	return some && s.bytes >= s.size.Load()/2
}

// snapshotLoop writes the snapshots that are wanted. It ends with ctx, a write under way included:
// nothing of it outlives [Replica.Run].
func (r *Replica) snapshotLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-r.snapshots.wanted:
			switch err := r.saveSnapshot(ctx, c); {
			case err == nil:
				r.forget(c)
			case errors.Is(err, errNotStored):
				r.snapshots.again.Store(true)
			case ctx.Err() == nil:
				r.log.Error("writing a snapshot failed; a restart will take longer", "error", err)
			}
		}
	}
}

// forget deletes from the disk what a snapshot has made unnecessary.
func (r *Replica) forget(c *certifiedState) {
	block, err := r.cfg.Store.BlockAt(c.height)
	if err == nil && block != nil && block.Epoch == c.header.Epoch {
		// Of the final block's view, not of the certifying one: that may be far above what is
		// final, where votes still bind.
		err = r.cfg.Store.PruneViews(block.Epoch, block.View-min(block.View, guardedViews))
	}
	if err != nil {
		r.log.Error("forgetting old votes failed; the disk keeps more than it needs", "error", err)
	}
	oldest, size, err := r.cfg.Store.OldestSnapshot()
	if err == nil && oldest > 0 {
		r.snapshots.size.Store(size)
		kept := r.cfg.Retention.Kept
		err = r.cfg.Store.CutLog(store.Cut{Below: oldest, Bytes: keptBytes, Least: min(keptLeast, kept), Most: kept})
	}
	if err != nil {
		r.log.Error("cutting the log failed; the disk keeps more than it needs", "error", err)
	}
}

// errNotStored says that a state was certified by a block that is not on disk, as while this replica
// catches up: the proof of a piece of the log goes beyond it. A later state will do.
var errNotStored = errors.New("the block of a certified state, or one up to that which certifies it, is not on disk")

// saveSnapshot writes a certified state to disk.
func (r *Replica) saveSnapshot(ctx context.Context, c *certifiedState) error {
	head, err := r.headOf(c)
	if err != nil {
		return err
	}
	block, err := r.cfg.Store.BlockAt(c.height)
	if err != nil {
		return err
	}
	if block == nil {
		return fmt.Errorf("%w: height %d", errNotStored, c.height)
	}
	return r.cfg.Store.SaveSnapshot(c.height, snapshotOf{ctx, c.state, head, block})
}

// head is the first part of a snapshot, which proves the rest. It is small, and comes before
// anything that is large.
type head struct {
	// block is the header of the block after which the state is, and proof leads from it to a
	// certified header that names the state's root.
	block bft.Header
	proof bft.Proof
	// The root is made of these.
	app, sessions, system bft.Digest
	groupKey              []byte // of the state; it is believed when f + 1 replicas name it, or this replica knows it
}

// maxHead bounds the encoding of a head, in bytes.
const maxHead = 512 << 10

// headOf makes the head of a certified state's snapshot.
func (r *Replica) headOf(c *certifiedState) (*head, error) {
	h := &head{app: c.appRoot, sessions: bft.Digest(c.sessions.Root()), system: c.systemRoot, groupKey: c.groupKey}
	h.proof.Certificate = c.certificate
	header := c.header
	for header.Height > c.height && len(h.proof.Above) < bft.MaxProof {
		h.proof.Above = append([]bft.Header{header}, h.proof.Above...)
		block, err := r.cfg.Store.Block(header.Parent)
		if err != nil {
			return nil, err
		}
		if block == nil {
			break
		}
		header = block.Header
	}
	if header.Height != c.height {
		return nil, fmt.Errorf("%w: height %d", errNotStored, c.height)
	}
	h.block = header
	return h, nil
}

// root is the state's root.
func (h *head) root() bft.Digest {
	return request.StateRoot(h.block.Height, h.app, h.sessions, h.system)
}

// verify checks that a good certificate proves the head, under what a membership says of the group key.
func (h *head) verify(r *Replica, m *Membership) error {
	tip := bft.TipOf(&h.block)
	if h.block.EpochEnd { // the state is the one below the next epoch
		tip = bft.BaseTip(h.block.Epoch+1, bft.Base{Height: h.block.Height, Digest: tip.Digest, Time: h.block.Time, Root: h.root()})
	}
	end, err := h.proof.Prove(tip, nil)
	if err != nil {
		return fmt.Errorf("its proof is no valid chain: %w", err)
	}
	if (end.Header.StateHeight != h.block.Height || end.Header.StateRoot != h.root()) && !broken("head-root") {
		return errors.New("its root is not the certified one")
	}
	if h.proof.Certificate.Epoch == 0 {
		return errors.New("it is certified in epoch 0, under no group key")
	}
	return r.verifyCertificate(m, h.proof.Certificate)
}

func (h *head) marshal() ([]byte, error) {
	proof, err := h.proof.MarshalBinary()
	if err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(h.block.AppendBinary(nil))
	for _, root := range []bft.Digest{h.app, h.sessions, h.system} {
		b.AddBytes(root[:])
	}
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(h.groupKey) })
	b.AddBytes(proof)
	return b.Bytes()
}

// headerSize is the size of an encoded header.
const headerSize = 147

func parseHead(data []byte) (*head, error) {
	s := cryptobyte.String(data)
	h := new(head)
	var block []byte
	var key cryptobyte.String
	if len(data) > maxHead || !s.ReadBytes(&block, headerSize) || !s.CopyBytes(h.app[:]) || !s.CopyBytes(h.sessions[:]) || !s.CopyBytes(h.system[:]) ||
		!s.ReadUint16LengthPrefixed(&key) {
		return nil, errors.New("the head of a snapshot is malformed")
	}
	var err error
	if h.block, err = bft.ParseHeader(block); err != nil {
		return nil, err
	}
	proof, err := bft.ParseProof(s)
	if err != nil {
		return nil, err
	}
	h.proof, h.groupKey = *proof, key
	return h, nil
}

// snapshotOf encodes a certified state: its head, its block, the system state, the sessions, the
// application.
type snapshotOf struct {
	ctx context.Context
	*state
	head  *head
	block *bft.Block
}

// maxSystemSnapshot bounds the system state in a snapshot.
const maxSystemSnapshot = 64 << 20

func (s snapshotOf) WriteTo(w io.Writer) (int64, error) {
	buffered := bufio.NewWriterSize(untilDone{s.ctx, w}, 1<<16)
	head, err := s.head.marshal()
	if err != nil {
		return 0, err
	}
	block, err := s.block.MarshalBinary()
	if err != nil {
		return 0, err
	}
	for _, part := range [][]byte{head, block, s.systemSnapshot} {
		if err := writePart(buffered, part); err != nil {
			return 0, err
		}
	}
	if _, err := s.sessions.WriteTo(buffered); err != nil {
		return 0, err
	}
	if _, err := s.app.WriteTo(buffered); err != nil {
		return 0, err
	}
	return 0, buffered.Flush()
}

// untilDone fails when its context has ended.
type untilDone struct {
	ctx context.Context
	w   io.Writer
}

func (u untilDone) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.w.Write(p)
}

func writePart(w io.Writer, part []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(part))), part...))
	return err
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
	part, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && uint32(len(part)) != n {
		err = io.ErrUnexpectedEOF
	}
	return part, err
}
