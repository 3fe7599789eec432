package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reseal-bft/reseal/bft"
)

const (
	snapshotDir    = "snapshots"
	snapshotSuffix = ".snapshot"
	snapshotMagic  = "reseal/v1/snapshot\x00"
	snapshotHead   = len(snapshotMagic) + 32 + 8 // magic, cluster, height
	keptSnapshots  = 2
	// syncEvery is how much of a snapshot waits for the disk at most, in bytes: votes, which are
	// synced, wait for what is before them.
	syncEvery = 512 << 10
)

// prepareSnapshots makes the directory of snapshots and removes what a crash left half-written.
func (s *Store) prepareSnapshots() error {
	if err := s.makeDir(s.path(snapshotDir)); err != nil {
		return explain(s.dir, err)
	}
	names, err := s.fs.List(s.path(snapshotDir))
	if err != nil {
		return explain(s.dir, err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, tempSuffix) {
			if err := s.fs.Remove(s.path(snapshotDir, name)); err != nil {
				return explain(s.dir, err)
			}
		}
	}
	return nil
}

func snapshotName(h bft.Height) string { return fmt.Sprintf("%020d%s", h, snapshotSuffix) }

// SaveSnapshot writes a snapshot of the state at a height: after a crash it is there in whole or
// not at all. The last two are kept.
func (s *Store) SaveSnapshot(h bft.Height, state io.WriterTo) error {
	w, err := s.NewSnapshot(h, 0)
	if err != nil {
		return err
	}
	defer w.Discard()
	if _, err := state.WriteTo(w); err != nil {
		return fmt.Errorf("write the snapshot of height %d: %w", h, err)
	}
	return w.Commit()
}

// SnapshotWriter writes one snapshot, which is there when it is committed, and not before. It is
// used by one goroutine; others that want to write a snapshot wait for it.
type SnapshotWriter struct {
	s        *Store
	height   bft.Height
	file     vfs.File
	buffered *bufio.Writer
	sum      hash.Hash
	written  int64 // since the disk's free space was looked at
	done     bool
}

// NewSnapshot begins a snapshot of the state at a height, of the given size in bytes, or 0 if that
// is not known. One that would take more than half of the disk's free space is refused with
// [ErrFull]. The writer must be committed or discarded.
func (s *Store) NewSnapshot(h bft.Height, size int64) (*SnapshotWriter, error) {
	s.snapshots.Lock()
	w := &SnapshotWriter{s: s, height: h, sum: sha256.New()}
	err := s.failed()
	if err == nil {
		err = s.checkSpaceFor(size)
	}
	if err == nil {
		w.file, err = s.fs.Create(w.temp(), vfs.WriteCategoryUnspecified)
		err = explain(s.dir, err)
	}
	if err != nil {
		s.snapshots.Unlock()
		return nil, fmt.Errorf("write the snapshot of height %d: %w", h, err)
	}
	w.file = vfs.NewSyncingFile(w.file, vfs.SyncingFileOptions{BytesPerSync: syncEvery})
	w.buffered = bufio.NewWriterSize(w.file, 1<<18)
	if _, err := w.Write(s.snapshotHead(h)); err != nil {
		w.Discard()
		return nil, err
	}
	return w, nil
}

func (w *SnapshotWriter) temp() string {
	return w.s.path(snapshotDir, snapshotName(w.height)+tempSuffix)
}

// Write appends to the snapshot. It fails with [ErrFull] before the disk is.
func (w *SnapshotWriter) Write(p []byte) (int, error) {
	if w.written += int64(len(p)); w.written > checkEvery {
		w.written = 0
		if err := w.s.checkSpace(); err != nil {
			return 0, err
		}
	}
	w.sum.Write(p)
	n, err := w.buffered.Write(p)
	return n, explain(w.s.dir, err)
}

// Commit makes the snapshot durable, and removes all but the last two.
func (w *SnapshotWriter) Commit() error {
	defer w.Discard()
	_, err := w.buffered.Write(w.sum.Sum(nil))
	if err == nil {
		err = w.buffered.Flush()
	}
	if err == nil {
		err = w.file.Sync()
	}
	if err == nil {
		err = w.file.Close()
		w.file = nil
	}
	if err == nil {
		err = w.s.fs.Rename(w.temp(), w.s.path(snapshotDir, snapshotName(w.height)))
	}
	if err == nil {
		err = w.s.syncDir(w.s.path(snapshotDir))
	}
	if err != nil {
		return fmt.Errorf("write the snapshot of height %d: %w", w.height, explain(w.s.dir, err))
	}
	return w.s.dropSnapshots(w.height)
}

// Discard drops what was not committed.
func (w *SnapshotWriter) Discard() {
	if w.done {
		return
	}
	w.done = true
	if w.file != nil {
		_ = w.file.Close()
	}
	_ = w.s.fs.Remove(w.temp()) // gone already when it was committed
	w.s.snapshots.Unlock()
}

func (s *Store) snapshotHead(h bft.Height) []byte {
	head := append([]byte(snapshotMagic), s.cluster[:]...)
	return binary.BigEndian.AppendUint64(head, uint64(h))
}

// Snapshots returns the heights of the snapshots, the newest first.
func (s *Store) Snapshots() ([]bft.Height, error) {
	names, err := s.fs.List(s.path(snapshotDir))
	if err != nil {
		return nil, explain(s.dir, err)
	}
	var heights []bft.Height
	for _, name := range names {
		h, err := strconv.ParseUint(strings.TrimSuffix(name, snapshotSuffix), 10, 64)
		if err == nil && name == snapshotName(bft.Height(h)) {
			heights = append(heights, bft.Height(h))
		}
	}
	slices.Sort(heights)
	slices.Reverse(heights)
	return heights, nil
}

// OldestSnapshot returns the height of the oldest snapshot, from which a start may have to go on,
// and the size of the newest in bytes; both are 0 without two of them.
func (s *Store) OldestSnapshot() (oldest bft.Height, size int64, err error) {
	heights, err := s.Snapshots()
	if err != nil || len(heights) < keptSnapshots {
		return 0, 0, err
	}
	info, err := s.fs.Stat(s.path(snapshotDir, snapshotName(heights[0])))
	if err != nil {
		return 0, 0, explain(s.dir, err)
	}
	return heights[len(heights)-1], info.Size(), nil
}

// dropSnapshots removes all but the newest snapshots, of which the last is of the given height: one
// above it is of another life of this disk, or somebody put it there, and would take the place of
// one that is good.
func (s *Store) dropSnapshots(last bft.Height) error {
	heights, err := s.Snapshots()
	if err != nil {
		return err
	}
	kept := 0
	for _, h := range heights {
		if h <= last && kept < keptSnapshots {
			kept++
			continue
		}
		if err := s.fs.Remove(s.path(snapshotDir, snapshotName(h))); err != nil {
			return explain(s.dir, err)
		}
	}
	return nil
}

// LatestSnapshot opens the newest snapshot that is whole; the reader is nil when there is none. A
// damaged one is passed over.
func (s *Store) LatestSnapshot() (bft.Height, io.ReadCloser, error) {
	heights, err := s.Snapshots()
	if err != nil {
		return 0, nil, err
	}
	for _, h := range heights {
		r, err := s.openSnapshot(h)
		if errors.Is(err, ErrCorrupt) {
			s.opts.Log.Error("a snapshot is damaged; the one before it will do", "height", h, "dir", s.dir)
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since it was listed
		}
		return h, r, err
	}
	return 0, nil, nil
}

// openSnapshot checks a snapshot's sum and opens its content.
func (s *Store) openSnapshot(h bft.Height) (io.ReadCloser, error) { return s.readSnapshot(h, true) }

// OpenSnapshot opens the content of a snapshot, unchecked, for who has proof of what is read.
func (s *Store) OpenSnapshot(h bft.Height) (io.ReadCloser, error) { return s.readSnapshot(h, false) }

func (s *Store) readSnapshot(h bft.Height, check bool) (io.ReadCloser, error) {
	path := s.path(snapshotDir, snapshotName(h))
	info, err := s.fs.Stat(path)
	if err != nil {
		return nil, err
	}
	size := info.Size() - int64(snapshotHead) - sha256.Size
	f, err := s.fs.Open(path)
	if err != nil {
		return nil, explain(s.dir, err)
	}
	if check {
		if err := s.checkSum(f, h, size); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, int64(snapshotHead), size), f}, nil
}

// ReadSnapshot reads a part of the content of a snapshot, for a replica that fetches it, and
// returns the size of the whole. Height 0 stands for the newest one; found is the one read, 0 when
// there is none. The sum is checked by who has fetched it all.
func (s *Store) ReadSnapshot(h bft.Height, offset int64, part []byte) (found bft.Height, size int64, n int, err error) {
	if h == 0 {
		heights, err := s.Snapshots()
		if err != nil || len(heights) == 0 {
			return 0, 0, 0, err
		}
		h = heights[0]
	}
	path := s.path(snapshotDir, snapshotName(h))
	info, err := s.fs.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, 0, nil
	}
	if err != nil {
		return 0, 0, 0, explain(s.dir, err)
	}
	f, err := s.fs.Open(path)
	if err != nil {
		return 0, 0, 0, explain(s.dir, err)
	}
	defer f.Close()
	size = max(0, info.Size()-int64(snapshotHead)-sha256.Size)
	n, err = io.NewSectionReader(f, int64(snapshotHead), size).ReadAt(part, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return h, size, n, err
}

// DropSnapshot removes a snapshot that turned out not to be what it claims.
func (s *Store) DropSnapshot(h bft.Height) error {
	s.snapshots.Lock()
	defer s.snapshots.Unlock()
	if err := s.fs.Remove(s.path(snapshotDir, snapshotName(h))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explain(s.dir, err)
	}
	return nil
}

// checkSum reads a snapshot whose content has the given size and checks its head and its sum.
func (s *Store) checkSum(f io.Reader, h bft.Height, size int64) error {
	damaged := s.corrupt("snapshot " + snapshotName(h))
	if size < 0 {
		return damaged
	}
	var sum hash.Hash = sha256.New()
	head := make([]byte, snapshotHead)
	if _, err := io.ReadFull(f, head); err != nil || !bytes.Equal(head, s.snapshotHead(h)) {
		return damaged
	}
	sum.Write(head)
	if _, err := io.CopyN(sum, f, size); err != nil {
		return damaged
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, want); err != nil || !bytes.Equal(want, sum.Sum(nil)) {
		return damaged
	}
	return nil
}
