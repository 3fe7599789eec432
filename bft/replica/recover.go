package replica

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/merkle"
)

// recover brings the state to the last final block on disk. A snapshot must have the root that its certificate proves, and blocks must link
// up with it. Where a block is damaged or missing, the replica stops there and fetches the rest from others.
func (r *Replica) recover() error {
	r.snapshots.replica = r
	if err := r.loadSnapshot(); err != nil {
		return err
	}
	if err := r.noteBaseRoot(r.cfg.System.Membership()); err != nil {
		return err
	}
	return r.replayAll()
}

// replayAll executes the final blocks on disk that are not executed yet.
func (r *Replica) replayAll() error {
	last, ok, err := r.cfg.Store.LastFinal()
	if err != nil || !ok {
		return err
	}
	for r.ledger.latest.Load().height < last {
		if err := r.replay(); err != nil {
			r.log.Error("the log on disk is damaged; the rest comes from other replicas", "height", r.ledger.latest.Load().height+1, "error", err)
			return nil
		}
	}
	return nil
}

// replay executes the next block from disk.
func (r *Replica) replay() error {
	tip, err := r.tip()
	if err != nil {
		return err
	}
	block, err := r.cfg.Store.BlockAt(r.ledger.latest.Load().height + 1)
	switch {
	case err != nil:
		return err
	case block == nil:
		return errors.New("the block is missing")
	case block.Parent != tip:
		return errors.New("the block is not the one that follows")
	}
	_, err = r.execute(block, block.EpochEnd)
	return err
}

// noteBaseRoot keeps the state root of the block below an epoch, if that is where the ledger stands: a core that is started again later in
// the epoch needs it.
func (r *Replica) noteBaseRoot(m *Membership) error {
	s := r.ledger.latest.Load()
	if s.height != m.Base.Height {
		return nil
	}
	batch := r.cfg.Store.NewBatch()
	if err := batch.PutMeta(baseRootKey(m.Epoch), s.root[:]); err != nil {
		return err
	}
	return commit(batch, false)
}

// baseRoot returns what noteBaseRoot kept.
func (r *Replica) baseRoot(m *Membership) (bft.Digest, error) {
	value, err := r.cfg.Store.Meta(baseRootKey(m.Epoch))
	if err != nil {
		return bft.Digest{}, err
	}
	if len(value) != len(bft.Digest{}) {
		return bft.Digest{}, fmt.Errorf("the disk has no state root for the start of epoch %d: move the store directory away and start again", m.Epoch)
	}
	return bft.Digest(value), nil
}

func baseRootKey(e bft.Epoch) string { return fmt.Sprintf("base-root/%d", e) }

// Distance between snapshots: what a restart has to execute again.
const (
	snapshotBlocks = 4096
	snapshotPause  = 10 * time.Second
)

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
		if err := s.replica.cfg.Store.SaveSnapshot(c.height, snapshotOf{c}); err != nil {
			s.replica.log.Error("writing a snapshot failed; a restart will take longer", "error", err)
		}
		below := c.header.View - min(c.header.View, guardedViews)
		if err := s.replica.cfg.Store.PruneViews(c.header.Epoch, below); err != nil {
			s.replica.log.Error("forgetting old votes failed; the disk keeps more than it needs", "error", err)
		}
	}()
}

// snapshotOf encodes a certified state: the certificate and header that prove it, the system state, the sessions, the application.
type snapshotOf struct{ *certifiedState }

// Bounds of the parts of a snapshot file.
const (
	maxHeader         = 1 << 10
	maxSystemSnapshot = 64 << 20
)

func (s snapshotOf) WriteTo(w io.Writer) (int64, error) {
	buffered := bufio.NewWriterSize(w, 1<<16)
	proof := bft.MarshalMessage(s.certificate)
	header := s.header.AppendBinary(nil)
	head := binary.BigEndian.AppendUint32(nil, uint32(len(header)))
	head = append(head, header...)
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

// loadSnapshot restores the newest snapshot, if there is one that proves right.
func (r *Replica) loadSnapshot() error {
	height, file, err := r.cfg.Store.LatestSnapshot()
	if err != nil || file == nil {
		return err
	}
	defer file.Close()
	if err := r.restore(height, bufio.NewReaderSize(file, 1<<16)); err != nil {
		return fmt.Errorf("the snapshot of height %d is not to be trusted (%w): move the store directory away and start again; "+
			"the replica then fetches the state from the others", height, err)
	}
	r.snapshots.height, r.snapshots.at = height, time.Now()
	return nil
}

func (r *Replica) restore(height bft.Height, file io.Reader) error {
	head, err := readPart(file, maxHeader)
	if err != nil {
		return err
	}
	header, err := bft.ParseHeader(head)
	if err != nil {
		return err
	}
	proof, err := readPart(file, bft.MaxMessage)
	if err != nil {
		return err
	}
	message, err := bft.ParseMessage(proof)
	if err != nil {
		return err
	}
	certificate, ok := message.(bft.Certificate)
	if !ok || certificate.Kind != bft.Notarize || certificate.Block != header.Digest() || certificate.View != header.View ||
		certificate.Epoch != header.Epoch || header.StateHeight != height {
		return errors.New("its certificate is of another state")
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
	s := r.ledger.adopt(height, sessions)
	if s.root != header.StateRoot {
		return errors.New("its root is not the certified one")
	}
	if err := r.verifyCertificate(certificate); err != nil {
		return err
	}
	r.ledger.certify(header, certificate)
	return nil
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
	part := make([]byte, n)
	_, err := io.ReadFull(r, part)
	return part, err
}
