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

// WriteTo writes a snapshot: the number of keys (8 bytes), then key, length (4 bytes) and value of
// each, in the order of the keys. Equal maps give equal bytes.
func (m Map) WriteTo(w io.Writer) (int64, error) {
	return writeSnapshot(w, m.size, func(yield func(bft.Digest, []byte) error) error {
		for key, value := range m.All() {
			if err := yield(key, value); err != nil {
				return err
			}
		}
		return nil
	})
}

func writeSnapshot(w io.Writer, size int, each func(yield func(bft.Digest, []byte) error) error) (int64, error) {
	out := bufio.NewWriterSize(w, 1<<16)
	counted := &countingWriter{w: out}
	head := binary.BigEndian.AppendUint64([]byte(snapshotMagic), uint64(size))
	_, err := counted.Write(head)
	if err != nil {
		return counted.n, err
	}
	err = each(func(key bft.Digest, value []byte) error {
		entry := binary.BigEndian.AppendUint32(append(head[:0], key[:]...), uint32(len(value)))
		if _, err := counted.Write(entry); err != nil {
			return err
		}
		_, err := counted.Write(value)
		return err
	})
	if err != nil {
		return counted.n, err
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

// Read reads what [Map.WriteTo] wrote, and nothing beyond it. Whether it is the right content, the
// root of the result tells.
func Read(r io.Reader) (Map, error) {
	var entries []*Change
	err := ReadEach(r, func(entry Change) error {
		entries = append(entries, &entry)
		return nil
	})
	if err != nil {
		return Map{}, err
	}
	var u updater
	root := u.build(ref{}, 0, entries)
	return Map{root: root, size: u.size}, nil
}

// ReadEach reads what [Map.WriteTo] wrote, and nothing beyond it, and calls each for every key and
// its value, in the order of the keys, until that fails.
func ReadEach(r io.Reader, each func(entry Change) error) error {
	var head [len(snapshotMagic) + 8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("%w: %w", errSnapshot, err)
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return errSnapshot
	}
	count := binary.BigEndian.Uint64(head[len(snapshotMagic):])
	var last bft.Digest
	for i := range count {
		entry, err := readEntry(r)
		if err != nil {
			return fmt.Errorf("%w: entry %d: %w", errSnapshot, i, err)
		}
		if i > 0 && bytes.Compare(last[:], entry.Key[:]) >= 0 {
			return fmt.Errorf("%w: keys out of order", errSnapshot)
		}
		last = entry.Key
		if err := each(entry); err != nil {
			return err
		}
	}
	return nil
}

func readEntry(r io.Reader) (Change, error) {
	var head [36]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Change{}, err
	}
	n := binary.BigEndian.Uint32(head[32:])
	if n > MaxValue {
		return Change{}, errors.New("value too large")
	}
	entry := Change{Key: bft.Digest(head[:32]), Value: make([]byte, n)}
	_, err := io.ReadFull(r, entry.Value)
	return entry, err
}
