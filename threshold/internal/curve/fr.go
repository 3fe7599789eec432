package curve

// #include "shim.h"
// #cgo noescape rs_fr_from_be
// #cgo nocallback rs_fr_from_be
// #cgo noescape rs_fr_to_be
// #cgo nocallback rs_fr_to_be
// #cgo noescape rs_fr_reduce_be
// #cgo nocallback rs_fr_reduce_be
// #cgo noescape rs_fr_from_limbs
// #cgo nocallback rs_fr_from_limbs
// #cgo noescape rs_fr_from_small
// #cgo nocallback rs_fr_from_small
// #cgo noescape rs_fr_add
// #cgo nocallback rs_fr_add
// #cgo noescape rs_fr_sub
// #cgo nocallback rs_fr_sub
// #cgo noescape rs_fr_mul
// #cgo nocallback rs_fr_mul
// #cgo noescape rs_fr_neg
// #cgo nocallback rs_fr_neg
// #cgo noescape rs_fr_inverse
// #cgo nocallback rs_fr_inverse
// #cgo noescape rs_frs_to_scalars
// #cgo nocallback rs_frs_to_scalars
// #cgo noescape rs_poly_eval
// #cgo nocallback rs_poly_eval
// #cgo noescape rs_lagrange
// #cgo nocallback rs_lagrange
// #cgo noescape rs_inner
// #cgo nocallback rs_inner
// #cgo noescape rs_outer_add
// #cgo nocallback rs_outer_add
// #cgo noescape rs_powers
// #cgo nocallback rs_powers
import "C"

import (
	"crypto/subtle"
	"errors"
	"io"
	"unsafe"
)

// ScalarLen is the size in bytes of an encoded scalar, scalarBits that of the group order in bits.
const (
	ScalarLen  = 32
	scalarBits = 255
)

// Fr is a scalar: an integer modulo the group order r, in Montgomery form. The zero value is zero.
type Fr [4]uint64

// Scalar is a scalar as multi-scalar multiplication reads it: 32 bytes, little-endian. Public.
type Scalar [ScalarLen]byte

// ErrScalar says that 32 bytes are no canonical scalar.
var ErrScalar = errors.New("not a canonical BLS12-381 scalar (32 bytes, big-endian, below the group order)")

func (x *Fr) c() *C.rs_fr { return (*C.rs_fr)(unsafe.Pointer(x)) }

func bytePtr(b []byte) *C.uint8_t { return (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(b))) }

// SetBytes decodes 32 big-endian bytes below r; zero is accepted.
func (x *Fr) SetBytes(b []byte) error {
	if len(b) != ScalarLen || !bool(C.rs_fr_from_be(x.c(), bytePtr(b))) {
		return ErrScalar
	}
	return nil
}

// Bytes encodes x as 32 big-endian bytes.
func (x *Fr) Bytes() (out [ScalarLen]byte) {
	C.rs_fr_to_be((*C.uint8_t)(unsafe.Pointer(&out)), x.c())
	return out
}

// AppendBytes appends the 32 big-endian bytes of x.
func (x *Fr) AppendBytes(b []byte) []byte {
	n := len(b)
	b = append(b, make([]byte, ScalarLen)...)
	C.rs_fr_to_be(bytePtr(b[n:]), x.c())
	return b
}

// SetWide reduces a big-endian number of any length modulo r.
func (x *Fr) SetWide(b []byte) {
	C.rs_fr_reduce_be(x.c(), bytePtr(b), C.size_t(len(b)))
}

// SetSmall sets x to a small integer.
func (x *Fr) SetSmall(v uint64) { C.rs_fr_from_small(x.c(), C.uint64_t(v)) }

// setSigned sets x to a small integer of either sign.
func (x *Fr) setSigned(v int) {
	if v < 0 {
		x.SetSmall(uint64(-v))
		x.Neg(x)
		return
	}
	x.SetSmall(uint64(v))
}

// setLimbs sets x to a number of four little-endian limbs, below the group order.
func (x *Fr) setLimbs(l *[4]uint64) { C.rs_fr_from_limbs(x.c(), (*C.uint64_t)(&l[0])) }

// SetRandom draws x uniformly (within 2^-128) from 48 bytes of rand.
func (x *Fr) SetRandom(rand io.Reader) error {
	var wide [48]byte
	defer clear(wide[:])
	if _, err := io.ReadFull(rand, wide[:]); err != nil {
		return err
	}
	x.SetWide(wide[:])
	return nil
}

// Add sets x to a+b.
func (x *Fr) Add(a, b *Fr) { C.rs_fr_add(x.c(), a.c(), b.c()) }

// Sub sets x to a-b.
func (x *Fr) Sub(a, b *Fr) { C.rs_fr_sub(x.c(), a.c(), b.c()) }

// Mul sets x to a*b.
func (x *Fr) Mul(a, b *Fr) { C.rs_fr_mul(x.c(), a.c(), b.c()) }

// Neg sets x to -a.
func (x *Fr) Neg(a *Fr) { C.rs_fr_neg(x.c(), a.c()) }

// Inverse sets x to 1/a, and to zero if a is zero.
func (x *Fr) Inverse(a *Fr) { C.rs_fr_inverse(x.c(), a.c()) }

// Equal compares in constant time. Montgomery form is unique, so words can be compared.
func (x *Fr) Equal(y *Fr) bool {
	return subtle.ConstantTimeCompare(x.raw(), y.raw()) == 1
}

// IsZero reports whether x is zero, in constant time.
func (x *Fr) IsZero() bool {
	var zero Fr
	return x.Equal(&zero)
}

func (x *Fr) raw() []byte { return unsafe.Slice((*byte)(unsafe.Pointer(x)), len(x)*8) }

// Wipe overwrites x with zero. It is not inlined, so that the write is not dropped as dead.
//
//go:noinline
func (x *Fr) Wipe() { clear(x[:]) }

// Wipe overwrites scalars with zero.
//
//go:noinline
func Wipe(xs []Fr) { clear(xs) }

// Scalars converts public scalars for a multi-scalar multiplication.
func Scalars(xs []Fr) []Scalar {
	out := make([]Scalar, len(xs))
	putScalars(ScalarBytes(out), xs)
	return out
}

// putScalars writes scalars one after the other, ScalarLen bytes each.
func putScalars(out []byte, xs []Fr) {
	if len(xs) > 0 {
		C.rs_frs_to_scalars((*C.rs_scalar)(unsafe.Pointer(&out[0])), xs[0].c(), C.size_t(len(xs)))
	}
}

// grow returns a slice of length n, reusing s if it is large enough.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// Eval sets x to the value at the given point of the polynomial with the coefficients coef[0],
// coef[stride], ..., n of them, lowest first.
func (x *Fr) Eval(coef []Fr, n, stride int, at uint64) {
	_ = coef[(n-1)*stride]
	C.rs_poly_eval(x.c(), coef[0].c(), C.size_t(n), C.size_t(stride), C.uint64_t(at))
}

// Lagrange returns the coefficients that interpolate, at the point at, a polynomial known at the
// distinct points xs; at is none of them.
func Lagrange(xs []uint16, at uint64) []Fr {
	n := len(xs)
	both := make([]Fr, 2*n)
	if n > 0 {
		lagrange(both, xs, at)
	}
	return both[:n:n]
}

// lagrange writes the coefficients to the first half of both; the second is working memory.
func lagrange(both []Fr, xs []uint16, at uint64) {
	n := len(xs)
	C.rs_lagrange(both[0].c(), (*C.uint16_t)(unsafe.Pointer(&xs[0])), C.size_t(n), C.uint64_t(at), both[n].c())
}

// Inner sets x to the inner product of a and b.
func (x *Fr) Inner(a, b []Fr) {
	if len(a) != len(b) {
		panic("curve: inner product of unequal lengths")
	}
	*x = Fr{}
	if len(a) > 0 {
		C.rs_inner(x.c(), a[0].c(), b[0].c(), C.size_t(len(a)))
	}
}

// AddOuter adds a[i]*b[j] to acc[i*len(b)+j].
func AddOuter(acc, a, b []Fr) {
	if len(acc) != len(a)*len(b) {
		panic("curve: outer product of the wrong size")
	}
	if len(acc) > 0 {
		C.rs_outer_add(acc[0].c(), a[0].c(), C.size_t(len(a)), b[0].c(), C.size_t(len(b)))
	}
}

// Powers returns 1, x, x^2, ..., n of them (n > 0).
func Powers(x uint64, n int) []Fr {
	out := make([]Fr, n)
	C.rs_powers(out[0].c(), C.size_t(n), C.uint64_t(x))
	return out
}

// Interpolate returns the coefficients, lowest first, of the polynomial of degree len(xs)-1 with the
// values ys at the distinct points xs (Newton's divided differences).
func Interpolate(xs []uint16, ys []Fr) []Fr {
	n := len(xs)
	d := append([]Fr(nil), ys...)
	defer Wipe(d)
	inverse := make(map[int]Fr) // of differences of points
	var a, t Fr
	for level := 1; level < n; level++ {
		for i := n - 1; i >= level; i-- {
			difference := int(xs[i]) - int(xs[i-level])
			a, known := inverse[difference]
			if !known {
				a.setSigned(difference)
				a.Inverse(&a)
				inverse[difference] = a
			}
			d[i].Sub(&d[i], &d[i-1])
			d[i].Mul(&d[i], &a)
		}
	}
	out := make([]Fr, n)
	for i := n - 1; i >= 0; i-- { // out = out*(x - xs[i]) + d[i]
		a.SetSmall(uint64(xs[i]))
		for k := n - 1; k > 0; k-- {
			t.Mul(&out[k], &a)
			out[k].Sub(&out[k-1], &t)
		}
		t.Mul(&out[0], &a)
		out[0].Sub(&d[i], &t)
	}
	t.Wipe()
	return out
}
