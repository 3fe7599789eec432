package recovery

import (
	"bytes"
	"errors"
	"math"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
)

// errMalformed says that bytes are not the one encoding of anything.
var errMalformed = errors.New("malformed encoding")

// reader reads the canonical encodings of this package. The first failure sticks; what is read after it is zero. Numbers are big-endian
// and of fixed size, booleans are 0 or 1, byte strings carry their length in two bytes.
type reader struct {
	rest cryptobyte.String
	bad  bool
}

func newReader(b []byte) *reader { return &reader{rest: b} }

// done reports errMalformed unless everything was read and nothing is left.
func (r *reader) done() error {
	if r.bad || !r.rest.Empty() {
		return errMalformed
	}
	return nil
}

// check makes the reader fail unless ok.
func (r *reader) check(ok bool) { r.bad = r.bad || !ok }

func (r *reader) u8() (v uint8) {
	r.check(!r.bad && r.rest.ReadUint8(&v))
	return v
}

func (r *reader) u16() (v uint16) {
	r.check(!r.bad && r.rest.ReadUint16(&v))
	return v
}

func (r *reader) u32() (v uint32) {
	r.check(!r.bad && r.rest.ReadUint32(&v))
	return v
}

func (r *reader) u64() (v uint64) {
	r.check(!r.bad && r.rest.ReadUint64(&v))
	return v
}

// time reads a time or duration in milliseconds: not negative.
func (r *reader) time() int64 {
	v := r.u64()
	r.check(v <= math.MaxInt64)
	return int64(v & math.MaxInt64)
}

func (r *reader) bool() bool {
	v := r.u8()
	r.check(v <= 1)
	return v == 1
}

// into fills out, whose length is known to both sides.
func (r *reader) into(out []byte) { r.check(!r.bad && r.rest.CopyBytes(out)) }

func (r *reader) digest() (d bft.Digest) {
	r.into(d[:])
	return d
}

// bytes reads a byte string of at most limit bytes; an empty one is nil.
func (r *reader) bytes(limit int) []byte {
	var s cryptobyte.String
	r.check(!r.bad && r.rest.ReadUint16LengthPrefixed(&s) && len(s) <= limit)
	if r.bad || len(s) == 0 {
		return nil
	}
	return bytes.Clone(s)
}

// count reads the length of a list of at most limit elements.
func (r *reader) count(limit int) int {
	n := int(r.u16())
	r.check(n <= limit)
	if r.bad {
		return 0
	}
	return n
}

// replica reads an ID that a cluster can have.
func (r *reader) replica() bft.ReplicaID {
	id := r.u16()
	r.check(id >= 1 && id <= bft.MaxReplicas)
	return bft.ReplicaID(id)
}

// replicas reads a list of IDs without repetitions.
func (r *reader) replicas() []bft.ReplicaID {
	n := r.count(bft.MaxReplicas)
	var out []bft.ReplicaID
	var seen [bft.MaxReplicas + 1]bool
	for range n {
		id := r.replica()
		if r.bad {
			return nil
		}
		r.check(!seen[id])
		seen[id] = true
		out = append(out, id)
	}
	return out
}

// writer writes what reader reads. It fails for a byte string whose length does not fit in two bytes; narrower limits are for the one who
// validates, or parses again.
type writer struct{ b cryptobyte.Builder }

func (w *writer) u8(v uint8)   { w.b.AddUint8(v) }
func (w *writer) u16(v uint16) { w.b.AddUint16(v) }
func (w *writer) u32(v uint32) { w.b.AddUint32(v) }
func (w *writer) u64(v uint64) { w.b.AddUint64(v) }
func (w *writer) time(v int64) { w.b.AddUint64(uint64(v)) }

func (w *writer) bool(v bool) {
	if v {
		w.b.AddUint8(1)
	} else {
		w.b.AddUint8(0)
	}
}

// raw writes bytes whose length both sides know.
func (w *writer) raw(v []byte) { w.b.AddBytes(v) }

func (w *writer) bytes(v []byte) {
	w.b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(v) })
}

func (w *writer) replica(id bft.ReplicaID) { w.u16(uint16(id)) }

func (w *writer) replicas(ids []bft.ReplicaID) {
	w.u16(uint16(len(ids)))
	for _, id := range ids {
		w.replica(id)
	}
}

func (w *writer) result() ([]byte, error) { return w.b.Bytes() }
