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

	"github.com/reseal-bft/reseal/bft"
)

const (
	snapshotDir    = "snapshots"
	snapshotSuffix = ".snapshot"
	snapshotMagic  = "reseal/v1/snapshot\x00"
	snapshotHead   = len(snapshotMagic) + 32 + 8 // magic, cluster, height
	keptSnapshots  = 2
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

// SaveSnapshot writes a snapshot of the state at a height: after a crash it is there in whole or not at all. The last two are kept.
func (s *Store) SaveSnapshot(h bft.Height, state io.WriterTo) error {
	s.snapshots.Lock()
	defer s.snapshots.Unlock()
	if err := s.failed(); err != nil {
		return err
	}
	if err := s.checkSpace(); err != nil {
		return err
	}
	err := s.writeFile(s.fs.PathJoin(snapshotDir, snapshotName(h)), func(w io.Writer) error {
		buffered := bufio.NewWriterSize(w, 1<<18)
		sum := sha256.New()
		both := io.MultiWriter(buffered, sum)
		if _, err := both.Write(s.snapshotHead(h)); err != nil {
			return err
		}
		if _, err := state.WriteTo(both); err != nil {
			return err
		}
		if _, err := buffered.Write(sum.Sum(nil)); err != nil {
			return err
		}
		return buffered.Flush()
	})
	if err != nil {
		return fmt.Errorf("write the snapshot of height %d: %w", h, err)
	}
	return s.dropSnapshots()
}

func (s *Store) snapshotHead(h bft.Height) []byte {
	head := append([]byte(snapshotMagic), s.cluster[:]...)
	return binary.BigEndian.AppendUint64(head, uint64(h))
}

// heights returns the heights of the snapshots, the newest first.
func (s *Store) heights() ([]bft.Height, error) {
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

// dropSnapshots removes all but the newest snapshots.
func (s *Store) dropSnapshots() error {
	heights, err := s.heights()
	if err != nil {
		return err
	}
	for _, h := range heights[min(keptSnapshots, len(heights)):] {
		if err := s.fs.Remove(s.path(snapshotDir, snapshotName(h))); err != nil {
			return explain(s.dir, err)
		}
	}
	return nil
}

// LatestSnapshot opens the newest snapshot that is whole; the reader is nil when there is none. A damaged one is passed over.
func (s *Store) LatestSnapshot() (bft.Height, io.ReadCloser, error) {
	heights, err := s.heights()
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
func (s *Store) openSnapshot(h bft.Height) (io.ReadCloser, error) {
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
	if err := s.checkSum(f, h, size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, int64(snapshotHead), size), f}, nil
}

// ReadSnapshot reads a part of the content of a snapshot, for a replica that fetches it, and returns the size of the whole. Height 0 stands for the
// newest one; found is the one read, 0 when there is none. The sum is checked by who has fetched it all.
func (s *Store) ReadSnapshot(h bft.Height, offset int64, part []byte) (found bft.Height, size int64, n int, err error) {
	if h == 0 {
		heights, err := s.heights()
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
