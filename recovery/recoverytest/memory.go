package recoverytest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/reseal-bft/reseal/bft"
	"github.com/reseal-bft/reseal/bft/store"
	"github.com/reseal-bft/reseal/recovery"
	"github.com/reseal-bft/reseal/threshold"
)

// memory is what a node holds at a moment, secret or not, copied.
type memory struct {
	shares      [][]byte
	parts       []takenPart
	keys        [][32]byte
	epochKeys   []ed25519.PrivateKey
	commitments []*threshold.Commitment
	sharings    []*threshold.Sharing
	records     map[string][]byte // of its disk
}

// readMemory reads a node's memory, under the locks that it has there, and what its store keeps of
// handoffs. What consensus holds are the same shares, by pointer.
func readMemory(node *recovery.Node) (*memory, error) {
	m := &memory{records: make(map[string][]byte)}
	r := reader{memory: m, seen: make(map[unsafe.Pointer]bool)}
	v := reflect.ValueOf(node).Elem()
	for _, room := range []string{"keeper", "party"} {
		field := v.FieldByName(room)
		if !field.IsValid() {
			return nil, errors.New("a node's secrets are not where they were: let readMemory begin where they are now")
		}
		r.read(open(field))
	}
	disk, ok := open(v.FieldByName("store")).Interface().(*store.Store)
	if !ok {
		return nil, errors.New("a node's store is not where it was: let readMemory look where it is now")
	}
	return m, disk.EachMeta("", func(name string, value []byte) error {
		m.records[name] = bytes.Clone(value)
		return nil
	})
}

// takenPart is a receiver's part of a dealing, and the commitment beside which it was found.
type takenPart struct {
	commitment *threshold.Commitment
	secret     []byte
}

// takenPoint is one that its receiver was given, phi(to, from) of a dealing.
type takenPoint struct {
	dealing  bft.Digest
	from, to bft.ReplicaID
	secret   []byte
}

type reader struct {
	*memory
	seen   map[unsafe.Pointer]bool
	beside *threshold.Commitment
}

// open makes an unexported field readable.
func open(field reflect.Value) reflect.Value {
	if !field.CanAddr() {
		return field
	}
	return reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
}

// worthTaking are the types of values that are worth something. Others are not copied: they are
// read field by field, under their lock.
var worthTaking = []reflect.Type{
	reflect.TypeFor[*threshold.Share](), reflect.TypeFor[*threshold.Part](), reflect.TypeFor[*threshold.Dealing](), reflect.TypeFor[*threshold.Commitment](),
	reflect.TypeFor[*threshold.Sharing](), reflect.TypeFor[ed25519.PrivateKey](), reflect.TypeFor[*tls.Certificate](), reflect.TypeFor[[32]byte](),
}

// take copies a value that is worth something.
func (r *reader) take(v reflect.Value) (done bool) {
	if !v.CanInterface() || !slices.Contains(worthTaking, v.Type()) {
		return false
	}
	switch x := v.Interface().(type) {
	case *threshold.Share:
		if x != nil {
			if b := x.SecretBytes(); b != nil {
				r.shares = append(r.shares, b)
			}
		}
	case *threshold.Part:
		r.part(r.beside, x)
	case *threshold.Dealing:
		for i := 1; x != nil && i <= x.Commitment().Params().N; i++ {
			if part, err := x.Part(i); err == nil {
				r.part(x.Commitment(), part)
			}
		}
		if x != nil {
			r.commitments = append(r.commitments, x.Commitment())
		}
	case *threshold.Commitment:
		if x != nil {
			r.commitments = append(r.commitments, x)
		}
	case *threshold.Sharing:
		if x != nil {
			r.sharings = append(r.sharings, x)
		}
	case ed25519.PrivateKey:
		r.epochKey(x)
	case *tls.Certificate:
		if x != nil {
			if key, ok := x.PrivateKey.(ed25519.PrivateKey); ok {
				r.epochKey(key)
			}
		}
	case [32]byte:
		r.keys = append(r.keys, x)
	default:
		return false
	}
	return true
}

func (r *reader) part(c *threshold.Commitment, p *threshold.Part) {
	if p == nil || c == nil {
		return
	}
	if b := p.SecretBytes(); b != nil {
		r.parts = append(r.parts, takenPart{c, b})
	}
}

func (r *reader) epochKey(key ed25519.PrivateKey) {
	if len(key) == ed25519.PrivateKeySize && !bytes.Equal(key, make([]byte, len(key))) {
		r.epochKeys = append(r.epochKeys, slices.Clone(key))
	}
}

// read follows pointers within the rooms that hold secrets.
func (r *reader) read(v reflect.Value) {
	if r.take(v) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			r.read(v.Elem())
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			r.read(it.Value())
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			for i := range v.Len() {
				r.read(v.Index(i))
			}
		}
	case reflect.Struct:
		r.readStruct(v)
	}
}

func (r *reader) readStruct(v reflect.Value) {
	if !strings.HasSuffix(v.Type().PkgPath(), "/recovery/handoff") || !v.CanAddr() {
		return
	}
	at := unsafe.Pointer(v.UnsafeAddr())
	if r.seen[at] {
		return
	}
	r.seen[at] = true
	if lock := v.FieldByName("mu"); lock.IsValid() {
		mu, ok := open(lock).Addr().Interface().(*sync.Mutex)
		if ok {
			mu.Lock()
			defer mu.Unlock()
		}
	}
	before := r.beside
	defer func() { r.beside = before }()
	for i := range v.NumField() {
		if field := v.Field(i); field.Type() == reflect.TypeFor[*threshold.Commitment]() {
			r.beside, _ = open(field).Interface().(*threshold.Commitment)
		}
	}
	for i := range v.NumField() {
		r.read(open(v.Field(i)))
	}
}
