package wire

import (
	"bytes"
	"errors"
	"math"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
)

// ErrMalformed says that bytes are not the one encoding of anything.
var ErrMalformed = errors.New("malformed encoding")

// Reader reads the canonical encodings of this package. The first failure sticks; what is read
// after it is zero. Numbers are big-endian and of fixed size, booleans are 0 or 1, byte strings
// carry their length in two bytes.
type Reader struct {
	rest cryptobyte.String
	bad  bool
}

func NewReader(b []byte) *Reader { return &Reader{rest: b} }

// Done reports ErrMalformed unless everything was read and nothing is left.
func (r *Reader) Done() error {
	if r.bad || !r.rest.Empty() {
		return ErrMalformed
	}
	return nil
}

// Failed reports whether a read has failed.
func (r *Reader) Failed() bool { return r.bad }

// Check makes the reader fail unless ok.
func (r *Reader) Check(ok bool) { r.bad = r.bad || !ok }

func (r *Reader) U8() (v uint8) {
	r.Check(!r.bad && r.rest.ReadUint8(&v))
	return v
}

func (r *Reader) U16() (v uint16) {
	r.Check(!r.bad && r.rest.ReadUint16(&v))
	return v
}

func (r *Reader) U32() (v uint32) {
	r.Check(!r.bad && r.rest.ReadUint32(&v))
	return v
}

func (r *Reader) U64() (v uint64) {
	r.Check(!r.bad && r.rest.ReadUint64(&v))
	return v
}

// Time reads a time or duration in milliseconds: not negative.
func (r *Reader) Time() int64 {
	v := r.U64()
	r.Check(v <= math.MaxInt64)
	return int64(v & math.MaxInt64)
}

func (r *Reader) Bool() bool {
	v := r.U8()
	r.Check(v <= 1)
	return v == 1
}

// Into fills out, whose length is known to both sides.
func (r *Reader) Into(out []byte) { r.Check(!r.bad && r.rest.CopyBytes(out)) }

func (r *Reader) Digest() (d bft.Digest) {
	r.Into(d[:])
	return d
}

// Bytes reads a byte string of at most limit bytes; an empty one is nil.
func (r *Reader) Bytes(limit int) []byte {
	var s cryptobyte.String
	r.Check(!r.bad && r.rest.ReadUint16LengthPrefixed(&s) && len(s) <= limit)
	if r.bad || len(s) == 0 {
		return nil
	}
	return bytes.Clone(s)
}

// Count reads the length of a list of at most limit elements.
func (r *Reader) Count(limit int) int {
	n := int(r.U16())
	r.Check(n <= limit)
	if r.bad {
		return 0
	}
	return n
}

// Replica reads an ID that a cluster can have.
func (r *Reader) Replica() bft.ReplicaID {
	id := r.U16()
	r.Check(id >= 1 && id <= bft.MaxReplicas)
	return bft.ReplicaID(id)
}

// Replicas reads a list of IDs without repetitions.
func (r *Reader) Replicas() []bft.ReplicaID {
	n := r.Count(bft.MaxReplicas)
	var out []bft.ReplicaID
	var seen [bft.MaxReplicas + 1]bool
	for range n {
		id := r.Replica()
		if r.bad {
			return nil
		}
		r.Check(!seen[id])
		seen[id] = true
		out = append(out, id)
	}
	return out
}

// Writer writes what [Reader] reads. It fails for a byte string whose length does not fit in two
// bytes; narrower limits are for the one who validates, or parses again.
type Writer struct{ b cryptobyte.Builder }

func (w *Writer) U8(v uint8)   { w.b.AddUint8(v) }
func (w *Writer) U16(v uint16) { w.b.AddUint16(v) }
func (w *Writer) U32(v uint32) { w.b.AddUint32(v) }
func (w *Writer) U64(v uint64) { w.b.AddUint64(v) }
func (w *Writer) Time(v int64) { w.b.AddUint64(uint64(v)) }

func (w *Writer) Bool(v bool) {
	if v {
		w.b.AddUint8(1)
	} else {
		w.b.AddUint8(0)
	}
}

// Fail makes the writer fail.
func (w *Writer) Fail(err error) { w.b.SetError(err) }

// Raw writes bytes whose length both sides know.
func (w *Writer) Raw(v []byte) { w.b.AddBytes(v) }

func (w *Writer) Bytes(v []byte) {
	w.b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(v) })
}

func (w *Writer) Replica(id bft.ReplicaID) { w.U16(uint16(id)) }

func (w *Writer) Replicas(ids []bft.ReplicaID) {
	w.U16(uint16(len(ids)))
	for _, id := range ids {
		w.Replica(id)
	}
}

func (w *Writer) Result() ([]byte, error) { return w.b.Bytes() }
