package merkle

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/reseal-bft/reseal/bft"
)

// MaxValue bounds a value in a snapshot, in bytes.
const MaxValue = 4 << 20

const snapshotMagic = "reseal/v1/map\x00"

// WriteTo writes a snapshot: the number of keys (8 bytes), then key, length (4 bytes) and value of each, in the order of the keys.
// Equal maps give equal bytes.
func (m Map) WriteTo(w io.Writer) (int64, error) {
	out := bufio.NewWriterSize(w, 1<<16)
	counted := &countingWriter{w: out}
	head := binary.BigEndian.AppendUint64([]byte(snapshotMagic), uint64(m.size))
	_, err := counted.Write(head)
	if err != nil {
		return counted.n, err
	}
	for key, value := range m.All() {
		entry := binary.BigEndian.AppendUint32(append(head[:0], key[:]...), uint32(len(value)))
		if _, err := counted.Write(entry); err != nil {
			return counted.n, err
		}
		if _, err := counted.Write(value); err != nil {
			return counted.n, err
		}
	}
	return counted.n, out.Flush()
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

var errSnapshot = errors.New("malformed snapshot of a map: fetch it again from another replica")

// Read reads what [Map.WriteTo] wrote, and nothing beyond it. Whether it is the right content, the root of the result tells.
func Read(r io.Reader) (Map, error) {
	var head [len(snapshotMagic) + 8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Map{}, fmt.Errorf("%w: %w", errSnapshot, err)
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return Map{}, errSnapshot
	}
	count := binary.BigEndian.Uint64(head[len(snapshotMagic):])
	var entries []*Change
	for i := range count {
		entry, err := readEntry(r)
		if err != nil {
			return Map{}, fmt.Errorf("%w: entry %d: %w", errSnapshot, i, err)
		}
		if i > 0 && bytes.Compare(entries[i-1].Key[:], entry.Key[:]) >= 0 {
			return Map{}, fmt.Errorf("%w: keys out of order", errSnapshot)
		}
		entries = append(entries, entry)
	}
	var u updater
	root := u.build(ref{}, 0, entries)
	return Map{root: root, size: u.size}, nil
}

func readEntry(r io.Reader) (*Change, error) {
	var head [36]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[32:])
	if n > MaxValue {
		return nil, errors.New("value too large")
	}
	entry := &Change{Key: bft.Digest(head[:32]), Value: make([]byte, n)}
	_, err := io.ReadFull(r, entry.Value)
	return entry, err
}
