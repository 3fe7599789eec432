package replica

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/merkle"
)

// loadSnapshot goes on from the newest snapshot on disk, if there is one. It is believed no more than
// another replica's, but for the group key, which is the one that it names: [Config].Verifier knows
// better if anybody does. An application that has kept its state is not restored: then the snapshot
// is not read to its end, nor its sum checked, since roots prove what is read of it.
func (r *Replica) loadSnapshot() error {
	if r.keeper != nil {
		if resumed, err := r.resume(); resumed || err != nil {
			return err
		}
	}
	height, file, err := r.cfg.Store.LatestSnapshot()
	if err != nil || file == nil {
		return err
	}
	defer file.Close()
	began := time.Now()
	r.log.Info("restoring the state from a snapshot", "height", height)
	if err := r.restore(height, bufio.NewReaderSize(&progress{Reader: file, log: r.log}, 1<<16), r.restoreApplication); err != nil {
		return fmt.Errorf("the snapshot of height %d is not to be trusted (%w): move the store directory away (not the .mark file beside it) and start again; "+
			"the replica then fetches the state from the others", height, err)
	}
	r.log.Info("restored the state from a snapshot", "height", height, "seconds", time.Since(began).Seconds())
	r.snapshots.took(height)
	return nil
}

// resume goes on from the newest snapshot whose state the application has kept, and reports whether
// there is one.
func (r *Replica) resume() (bool, error) {
	snapshots, err := r.cfg.Store.Snapshots()
	if err != nil {
		return false, err
	}
	for _, height := range snapshots {
		file, err := r.cfg.Store.OpenSnapshot(height)
		if err != nil {
			return false, err
		}
		err = r.restore(height, bufio.NewReaderSize(file, 1<<16), r.resumeApplication)
		file.Close()
		switch {
		case err == nil:
			r.log.Info("going on from the state that was kept on disk", "height", height)
			r.snapshots.took(height)
			return true, nil
		case errors.Is(err, errFatal):
			return false, err
		case !errors.Is(err, errNotKept):
			r.log.Error("the snapshot of the state that was kept is damaged", "height", height, "error", err)
		}
	}
	return false, nil
}

// errNotKept says that the application has not kept the state of a snapshot.
var errNotKept = errors.New("the application has not kept this state")

// progress tells the log how far a restoration has come.
type progress struct {
	io.Reader
	log  *slog.Logger
	read int64
	told time.Time
}

func (p *progress) Read(b []byte) (int, error) {
	if now := time.Now(); p.told.IsZero() {
		p.told = now
	} else if now.Sub(p.told) >= 5*time.Second {
		p.told = now
		p.log.Info("still restoring the state from a snapshot", "mib", p.read>>20)
	}
	n, err := p.Reader.Read(b)
	p.read += int64(n)
	return n, err
}

// restore adopts a snapshot from disk.
func (r *Replica) restore(height bft.Height, file io.Reader, application func(*head, io.Reader) error) error {
	raw, err := readPart(file, maxHead)
	if err != nil {
		return err
	}
	h, err := parseHead(raw)
	if err != nil {
		return err
	}
	if h.block.Height != height {
		return errors.New("it is of another height")
	}
	if err := h.verify(r, withGroupKey(r.Membership(), h.groupKey)); err != nil {
		return err
	}
	return r.adopt(h, file, application)
}

// withGroupKey is a membership under a group key of which this replica has only heard.
func withGroupKey(m *Membership, key []byte) *Membership {
	told := *m
	told.Epoch, told.GroupKey = max(1, m.Epoch), key
	return &told
}

// adopt makes the state of a snapshot, whose head is verified, this replica's. Nothing is stored
// before everything was found to be what the head says; a state that is not is taken back. The
// function brings the application to its state, and reads what is left of the snapshot if it must.
func (r *Replica) adopt(h *head, file io.Reader, application func(*head, io.Reader) error) error {
	raw, err := readPart(file, bft.MaxMessage)
	if err != nil {
		return err
	}
	block, err := bft.ParseBlock(raw)
	if err != nil {
		return err
	}
	if block.Header != h.block {
		return errors.New("its block is another one")
	}
	system, err := readPart(file, maxSystemSnapshot)
	if err != nil {
		return err
	}
	if s, ok := r.cfg.System.(snapshotRooter); ok && s.SnapshotRoot(system) != h.system {
		return errors.New("its root is not the certified one")
	}
	sessions, err := merkle.Read(file)
	if err != nil {
		return err
	}
	if bft.Digest(sessions.Root()) != h.sessions {
		return errors.New("its root is not the certified one")
	}
	before := r.ledger.latest.Load()
	if err := application(h, file); errors.Is(err, errNotKept) {
		return err
	} else if err != nil {
		return errors.Join(err, r.takeBack(before))
	}
	if err := r.exchange(h, system); err != nil {
		return errors.Join(err, r.takeBack(before))
	}
	if err := r.storeBase(block, h.proof.Certificate); err != nil {
		return fmt.Errorf("%w: %w", errFatal, err)
	}
	r.ledger.adopt(block.Height, sessions)
	r.ledger.certify(h.proof.Above[len(h.proof.Above)-1], h.proof.Certificate)
	return nil
}

// restoreApplication restores the application's state from the rest of a snapshot, and has it keep
// that.
func (r *Replica) restoreApplication(h *head, file io.Reader) error {
	if err := r.cfg.Application.Restore(file); err != nil {
		return err
	}
	if r.cfg.Application.State().Root() != h.app && !broken("snapshot-app-root") {
		return errors.New("its root is not the certified one")
	}
	if n, err := io.ReadFull(file, make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return errors.New("something is behind its end")
	}
	if r.keeper != nil {
		r.keeper.Keep()
	}
	return nil
}

// resumeApplication has the application go on from what it has kept.
func (r *Replica) resumeApplication(h *head, _ io.Reader) error {
	if !r.keeper.Resume(h.app) {
		return errNotKept
	}
	if r.cfg.Application.State().Root() != h.app {
		return fmt.Errorf("%w: the application has resumed another state than it was asked for", errFatal)
	}
	return nil
}

// snapshotRooter is a [System] that can tell the root of a snapshot before it is restored: then
// nobody ever sees a state that was not certified.
type snapshotRooter interface {
	SnapshotRoot(snapshot []byte) bft.Digest
}

// exchange replaces the system's state.
func (r *Replica) exchange(h *head, system []byte) error {
	if err := r.cfg.System.Restore(system); err != nil {
		return err
	}
	m := r.cfg.System.Membership()
	switch {
	case r.cfg.System.Root() != h.system:
		return errors.New("its root is not the certified one")
	case m.Epoch != h.proof.Certificate.Epoch, h.block.EpochEnd && (m.Base.Height != h.block.Height || m.Base.Digest != h.block.Digest()):
		return errors.New("its system state is of another epoch than its certificate")
	case !bytes.Equal(m.GroupKey, h.groupKey):
		return errors.New("its system state names another group key than its head")
	}
	return nil
}

// takeBack gives application and system the state that they had before a snapshot that was no good.
func (r *Replica) takeBack(s *state) error {
	read, write := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := s.app.WriteTo(write)
		write.CloseWithError(err)
	}()
	err := r.cfg.Application.Restore(read)
	read.Close()
	<-done
	if err = errors.Join(err, r.cfg.System.Restore(s.systemSnapshot)); err != nil {
		return fmt.Errorf("%w: the state before the snapshot could not be restored: start again: %w", errFatal, err)
	}
	return nil
}

// storeBase keeps the final block on which the log goes on after a snapshot.
func (r *Replica) storeBase(block *bft.Block, certificate bft.Certificate) error {
	batch := r.cfg.Store.NewBatch()
	err := batch.PutBlock(block)
	if err == nil {
		err = batch.PutFinal(block.Height, block.Digest(), block.View)
	}
	if err == nil {
		err = batch.PutCertificate(certificate)
	}
	if err != nil {
		return err
	}
	return commit(batch, true)
}
