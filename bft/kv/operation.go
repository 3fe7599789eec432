package kv

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"github.com/reseal-bft/reseal/bft"
)

// Limits, in bytes.
const (
	MaxKey   = 1 << 10
	MaxValue = bft.MaxOperation - 1<<12
)

type kind uint8

const (
	kindPut kind = 1 + iota
	kindGet
	kindDelete
	kindSwap
)

// operation is a parsed operation. Its slices are those of the encoding.
type operation struct {
	kind       kind
	key        []byte
	value      []byte // of a put or a swap
	old        []byte // of a swap
	oldPresent bool
}

// Put makes the operation that sets a key's value. Its result is [OK].
func Put(key, value []byte) ([]byte, error) {
	return encode(operation{kind: kindPut, key: key, value: value})
}

// Get makes the operation that reads a key in order. Its result is [OK] with the value, or [NotFound].
func Get(key []byte) ([]byte, error) { return encode(operation{kind: kindGet, key: key}) }

// Delete makes the operation that deletes a key. Its result is [OK], or [NotFound].
func Delete(key []byte) ([]byte, error) { return encode(operation{kind: kindDelete, key: key}) }

// CompareAndSwap makes the operation that sets a key's value if it is old, or if there is none and
// old is nil. Its result is [OK], or [Mismatch].
func CompareAndSwap(key, old, value []byte) ([]byte, error) {
	return encode(operation{kind: kindSwap, key: key, value: value, old: old, oldPresent: old != nil})
}

func encode(op operation) ([]byte, error) {
	if err := op.check(); err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, 8+len(op.key)+len(op.old)+len(op.value)))
	b.AddUint8(uint8(op.kind))
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(op.key) })
	if op.kind == kindSwap {
		b.AddUint8(flag(op.oldPresent))
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(op.old) })
	}
	b.AddBytes(op.value)
	data, err := b.Bytes()
	if err == nil && len(data) > bft.MaxOperation {
		err = fmt.Errorf("the operation has %d bytes: the limit is %d", len(data), bft.MaxOperation)
	}
	return data, err
}

func flag(set bool) uint8 {
	if set {
		return 1
	}
	return 0
}

func (op *operation) check() error {
	switch {
	case len(op.key) == 0 || len(op.key) > MaxKey:
		return fmt.Errorf("the key has %d bytes: need 1 to %d", len(op.key), MaxKey)
	case len(op.value) > MaxValue || len(op.old) > MaxValue:
		return fmt.Errorf("the value has %d bytes: the limit is %d", max(len(op.value), len(op.old)), MaxValue)
	}
	return nil
}

var errMalformed = errors.New("malformed")

// decode parses an operation, whoever made it.
func decode(data []byte) (op operation, err error) {
	s := cryptobyte.String(data)
	ok := s.ReadUint8((*uint8)(&op.kind)) && s.ReadUint16LengthPrefixed((*cryptobyte.String)(&op.key))
	switch op.kind {
	case kindPut:
		op.value = s
	case kindGet, kindDelete:
		ok = ok && s.Empty()
	case kindSwap:
		var present uint8
		ok = ok && s.ReadUint8(&present) && s.ReadUint24LengthPrefixed((*cryptobyte.String)(&op.old)) &&
			present <= 1 && (present == 1 || len(op.old) == 0)
		op.oldPresent = present == 1
		op.value = s
	default:
		ok = false
	}
	if !ok {
		return operation{}, errMalformed
	}
	return op, op.check()
}

// Status says what became of an operation.
type Status uint8

// The statuses.
const (
	OK       Status = 1 + iota
	NotFound        // there is no such key
	Mismatch        // the key's value was not the expected one
	Invalid         // the operation is malformed or exceeds a limit
	// Dropped is never encoded: the result was left out because the results of its request, or of
	// all requests of its block, were too large together. The operation was executed all the same.
	Dropped
)

func (s Status) String() string {
	switch s {
	case OK:
		return "ok"
	case NotFound:
		return "not found"
	case Mismatch:
		return "mismatch"
	case Invalid:
		return "invalid operation"
	case Dropped:
		return "result dropped, as too many large ones were asked for at once: read again, fewer values in one request"
	}
	return "unknown status"
}

// Result is what became of an operation.
type Result struct {
	Status Status
	// Value is the value that a get found.
	Value []byte
}

// encodeResult encodes a result: one byte and the value.
func encodeResult(status Status, value []byte) []byte {
	return append(append(make([]byte, 0, 1+len(value)), byte(status)), value...)
}

// ParseResult parses the result of an operation. The value is a slice of data.
func ParseResult(data []byte) (Result, error) {
	if len(data) == 0 {
		return Result{Status: Dropped}, nil
	}
	r := Result{Status: Status(data[0]), Value: data[1:]}
	if r.Status < OK || r.Status > Invalid || r.Status != OK && len(r.Value) > 0 {
		return Result{}, fmt.Errorf("%w result of an operation: the service is no key-value store, or a newer one", errMalformed)
	}
	return r, nil
}
