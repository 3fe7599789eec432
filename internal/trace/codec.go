package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"

	"github.com/reseal-bft/reseal/bft"
)

// concrete are the types that stand in interfaces, by the number that stands for them in a file.
// New ones are added at the end.
var concrete = []reflect.Type{
	reflect.TypeFor[bft.Receive](), reflect.TypeFor[bft.Signed](), reflect.TypeFor[bft.Combined](), reflect.TypeFor[bft.Verified](),
	reflect.TypeFor[bft.Proposed](), reflect.TypeFor[bft.Executed](), reflect.TypeFor[bft.Fetched](), reflect.TypeFor[bft.Expired](),

	reflect.TypeFor[bft.Sign](), reflect.TypeFor[bft.Broadcast](), reflect.TypeFor[bft.Send](), reflect.TypeFor[bft.Combine](), reflect.TypeFor[bft.Verify](),
	reflect.TypeFor[bft.Propose](), reflect.TypeFor[bft.StoreBlock](), reflect.TypeFor[bft.StoreCertificate](), reflect.TypeFor[bft.Finalized](),
	reflect.TypeFor[bft.Fetch](), reflect.TypeFor[bft.SetTimer](), reflect.TypeFor[bft.Accuse](), reflect.TypeFor[bft.Diverged](), reflect.TypeFor[bft.ClockOff](),

	reflect.TypeFor[*bft.Block](), reflect.TypeFor[bft.Vote](), reflect.TypeFor[bft.Certificate](), reflect.TypeFor[bft.SignedHeader](),
	reflect.TypeFor[bft.Evidence](), reflect.TypeFor[bft.Status](),

	reflect.TypeFor[refused](),

	reflect.TypeFor[bft.Lost](),
}

// refused is an error of a file: its words.
type refused string

func (r refused) Error() string { return string(r) }

// appendValue writes a value, the fields of a struct in their order. Nil, where there may be one,
// is not the same as empty.
func appendValue(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return append(b, 1)
		}
		return append(b, 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return binary.AppendVarint(b, v.Int())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.AppendUvarint(b, v.Uint())
	case reflect.String:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		return append(b, v.String()...)
	case reflect.Array, reflect.Struct:
		return appendParts(b, v)
	case reflect.Slice:
		if v.IsNil() {
			return append(b, 0)
		}
		return appendParts(binary.AppendUvarint(b, uint64(v.Len())+1), v)
	case reflect.Map:
		if v.IsNil() {
			return append(b, 0)
		}
		b = binary.AppendUvarint(b, uint64(v.Len())+1)
		for entry := v.MapRange(); entry.Next(); {
			b = appendValue(appendValue(b, entry.Key()), entry.Value())
		}
		return b
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0)
		}
		return appendValue(append(b, 1), v.Elem())
	case reflect.Interface:
		if v.IsNil() {
			return append(b, 0)
		}
		for i, t := range concrete {
			if v.Elem().Type() == t {
				return appendValue(append(b, byte(i+1)), v.Elem())
			}
		}
	}
	panic(fmt.Sprintf("trace: no place for a %v", v.Type()))
}

func appendParts(b []byte, v reflect.Value) []byte {
	if v.Kind() == reflect.Struct {
		for i := range v.NumField() {
			b = appendValue(b, v.Field(i))
		}
		return b
	}
	if v.Type().Elem().Kind() == reflect.Uint8 && v.Kind() == reflect.Slice {
		return append(b, v.Bytes()...)
	}
	for i := range v.Len() {
		b = appendValue(b, v.Index(i))
	}
	return b
}

var errDamaged = errors.New("the trace is damaged")

// reader reads what appendValue wrote. After the first failure it reads zeros.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) fail() {
	r.b, r.failed = nil, true
}

func (r *reader) uvarint() uint64 {
	x, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return x
}

func (r *reader) varint() int64 {
	x, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return x
}

// count reads how many parts follow: no more than there are bytes.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.fail()
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// value reads into v, which is zero before.
func (r *reader) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(r.uvarint() == 1)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(r.varint())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.uvarint())
	case reflect.String:
		v.SetString(string(r.bytes(r.count())))
	case reflect.Struct:
		for i := range v.NumField() {
			r.value(v.Field(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			r.value(v.Index(i))
		}
	case reflect.Slice:
		r.slice(v)
	case reflect.Map:
		r.entries(v)
	case reflect.Pointer:
		if r.uvarint() == 1 {
			v.Set(reflect.New(v.Type().Elem()))
			r.value(v.Elem())
		}
	case reflect.Interface:
		r.within(v)
	}
}

// length reads that of a slice or map; there is none if it is nil.
func (r *reader) length() (n int, there bool) {
	if n = int(r.uvarint()); n == 0 {
		return 0, false
	}
	if n--; n < 0 || n > len(r.b) {
		r.fail()
		return 0, false
	}
	return n, true
}

func (r *reader) slice(v reflect.Value) {
	n, there := r.length()
	switch {
	case !there:
	case v.Type().Elem().Kind() == reflect.Uint8:
		v.SetBytes(r.bytes(n))
	default:
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			r.value(v.Index(i))
		}
	}
}

func (r *reader) entries(v reflect.Value) {
	n, there := r.length()
	if !there {
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), n))
	for range n {
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		r.value(key)
		r.value(value)
		v.SetMapIndex(key, value)
	}
}

// within reads what stands in an interface.
func (r *reader) within(v reflect.Value) {
	i := r.uvarint()
	if i == 0 {
		return
	}
	if i > uint64(len(concrete)) || !concrete[i-1].AssignableTo(v.Type()) {
		r.fail()
		return
	}
	x := reflect.New(concrete[i-1]).Elem()
	r.value(x)
	v.Set(x)
}
