package curve

// #include "shim.h"
// #cgo noescape rs_g1_mult
// #cgo nocallback rs_g1_mult
// #cgo noescape rs_g2_mult
// #cgo nocallback rs_g2_mult
// #cgo noescape rs_g1_commit
// #cgo nocallback rs_g1_commit
// #cgo noescape rs_g2_commit
// #cgo nocallback rs_g2_commit
// #cgo noescape rs_g1_msm
// #cgo nocallback rs_g1_msm
// #cgo noescape rs_g2_msm
// #cgo nocallback rs_g2_msm
// #cgo noescape rs_g1_clear_cofactor
// #cgo nocallback rs_g1_clear_cofactor
// #cgo noescape rs_g1_add
// #cgo nocallback rs_g1_add
// #cgo noescape rs_g2_add
// #cgo nocallback rs_g2_add
// #cgo noescape rs_g2_horner
// #cgo nocallback rs_g2_horner
// #cgo noescape rs_g1_hash
// #cgo nocallback rs_g1_hash
// #cgo noescape rs_sign
// #cgo nocallback rs_sign
import "C"

import (
	"errors"
	"math/bits"
	"sync"
	"unsafe"

	blst "github.com/supranational/blst/bindings/go"
)

// G1 and G2 are points in affine coordinates; the zero value is the point at infinity.
type (
	G1 = blst.P1Affine
	G2 = blst.P2Affine
)

// The layouts that shim.h declares are blst's, or this does not compile.
const (
	_ = -(unsafe.Sizeof(G1{}) ^ C.sizeof_rs_p1_affine)
	_ = -(unsafe.Sizeof(G2{}) ^ C.sizeof_rs_p2_affine)
	_ = -(unsafe.Sizeof(blst.P1{}) ^ C.sizeof_rs_p1)
	_ = -(unsafe.Sizeof(blst.P2{}) ^ C.sizeof_rs_p2)
	_ = -(unsafe.Sizeof(blst.Fp12{}) ^ C.sizeof_rs_fp12)
	_ = -(unsafe.Sizeof(Lines{}) ^ C.sizeof_rs_lines)
)

// Sizes of encoded points in bytes, compressed and not.
const (
	G1Len     = 48
	G2Len     = 96
	G1FullLen = 96
	G2FullLen = 192
)

// ErrPoint says that bytes are no acceptable point.
var ErrPoint = errors.New("not a canonical BLS12-381 point")

func c1(p *G1) *C.rs_p1_affine { return (*C.rs_p1_affine)(unsafe.Pointer(p)) }
func c2(p *G2) *C.rs_p2_affine { return (*C.rs_p2_affine)(unsafe.Pointer(p)) }

// DecodeG1 decodes 48 compressed bytes; the point is on the curve, but not yet known to be in the
// subgroup: see [blst.P1Affine.InG1].
func DecodeG1(p *G1, b []byte) error {
	if len(b) != G1Len || b[0]&0x80 == 0 || p.Uncompress(b) == nil {
		return ErrPoint
	}
	return nil
}

// DecodeG1Full decodes 96 uncompressed bytes, without a check of the subgroup.
func DecodeG1Full(p *G1, b []byte) error {
	if len(b) != G1FullLen || b[0]&0x80 != 0 || p.Deserialize(b) == nil {
		return ErrPoint
	}
	return nil
}

// DecodeG2 decodes 96 compressed bytes of a point in the subgroup.
func DecodeG2(p *G2, b []byte) error {
	if len(b) != G2Len || b[0]&0x80 == 0 || p.Uncompress(b) == nil || !p.InG2() {
		return ErrPoint
	}
	return nil
}

// DecodeG2Full decodes 192 uncompressed bytes of a point in the subgroup.
func DecodeG2Full(p *G2, b []byte) error {
	if len(b) != G2FullLen || b[0]&0x80 != 0 || p.Deserialize(b) == nil || !p.InG2() {
		return ErrPoint
	}
	return nil
}

// IsZero1 and IsZero2 report the point at infinity.
func IsZero1(p *G1) bool { return *p == G1{} }
func IsZero2(p *G2) bool { return *p == G2{} }

// Mult1 returns k*base in constant time; a nil base is the generator. The base is in the subgroup.
func Mult1(base *G1, k *Fr) (out G1) {
	if base == nil {
		return Commit1(unsafe.Slice(k, 1))[0]
	}
	C.rs_g1_mult(c1(&out), c1(base), k.c())
	return out
}

// Mult2 is Mult1 in G2.
func Mult2(base *G2, k *Fr) (out G2) {
	C.rs_g2_mult(c2(&out), c2(base), k.c())
	return out
}

// baseTable holds multiples of the generator of G1, 49 kB, made at the first use.
var baseTable = sync.OnceValue(func() *C.rs_base_table {
	table := new(C.rs_base_table)
	C.rs_base_prepare(table)
	return table
})

// Commit1 returns the multiples of the generator of G1 by secret scalars.
func Commit1(ks []Fr) []G1 { return commit1(ks, make([]blst.P1, len(ks))) }

// commit1 is given its working memory, one point for each scalar, and wipes it: which multiple of Z
// a point has there depends on the secret scalar, not only on the point.
func commit1(ks []Fr, scratch []blst.P1) []G1 {
	out := make([]G1, len(ks))
	if len(ks) > 0 {
		C.rs_g1_commit(c1(&out[0]), (*C.rs_p1)(unsafe.Pointer(&scratch[0])), ks[0].c(), C.size_t(len(ks)), baseTable())
	}
	return out
}

// Commit2 returns the multiples of the generator of G2 by secret scalars.
func Commit2(ks []Fr) []G2 { return commit2(ks, make([]blst.P2, len(ks))) }

func commit2(ks []Fr, scratch []blst.P2) []G2 {
	out := make([]G2, len(ks))
	if len(ks) > 0 {
		C.rs_g2_commit(c2(&out[0]), (*C.rs_p2)(unsafe.Pointer(&scratch[0])), ks[0].c(), C.size_t(len(ks)))
	}
	return out
}

// scratchPool holds working memory of multi-scalar multiplications: *[]uint64.
var scratchPool = sync.Pool{New: func() any { return new([]uint64) }}

// MSM1 returns the sum of scalars[i]*points[i] in variable time. Each scalar has length bits, in
// (length+7)/8 bytes, little-endian. The points may lie outside the subgroup; the sum then is right
// up to a point of order three.
func MSM1(points []G1, scalars []byte, length int) (out G1) {
	n := len(points)
	if len(scalars) != n*((length+7)/8) {
		panic("curve: as many scalars as points are needed")
	}
	if n == 0 {
		return out
	}
	words := scratchPool.Get().(*[]uint64)
	*words = grow(*words, int(C.rs_g1_msm_scratch(C.size_t(n)))/8+1)
	C.rs_g1_msm(c1(&out), c1(&points[0]), bytePtr(scalars), C.size_t(n), C.size_t(length), (*C.uint64_t)(&(*words)[0]))
	scratchPool.Put(words)
	return out
}

// MSM2 is MSM1 in G2.
func MSM2(points []G2, scalars []byte, length int) (out G2) {
	n := len(points)
	if len(scalars) != n*((length+7)/8) {
		panic("curve: as many scalars as points are needed")
	}
	if n == 0 {
		return out
	}
	words := scratchPool.Get().(*[]uint64)
	*words = grow(*words, int(C.rs_g2_msm_scratch(C.size_t(n)))/8+1)
	C.rs_g2_msm(c2(&out), c2(&points[0]), bytePtr(scalars), C.size_t(n), C.size_t(length), (*C.uint64_t)(&(*words)[0]))
	scratchPool.Put(words)
	return out
}

// Sum1 returns the sum of coefficients[i]*points[i] in variable time, the faster the smaller the
// largest coefficient is.
func Sum1(points []G1, coefficients []Fr) G1 {
	scalars, bits := shortest(coefficients)
	return MSM1(points, scalars, bits)
}

// Sum2 is Sum1 in G2.
func Sum2(points []G2, coefficients []Fr) G2 {
	scalars, bits := shortest(coefficients)
	return MSM2(points, scalars, bits)
}

// shortest packs scalars into as many bytes each as the largest of them takes.
func shortest(xs []Fr) (packed []byte, length int) {
	scalars := Scalars(xs)
	for i := range scalars {
		for at := ScalarLen - 1; at >= length/8; at-- {
			if b := scalars[i][at]; b != 0 {
				length = max(length, 8*at+bits.Len8(b))
				break
			}
		}
	}
	length = max(length, 1)
	stride := (length + 7) / 8
	packed = make([]byte, 0, stride*len(scalars))
	for i := range scalars {
		packed = append(packed, scalars[i][:stride]...)
	}
	return packed, length
}

// ScalarBytes views scalars as the bytes that MSM1 and MSM2 read, 255 bits each.
func ScalarBytes(s []Scalar) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice(&s[0][0], len(s)*ScalarLen)
}

// ClearCofactor maps any point of the curve E(Fp) into G1, with nothing but points that have no
// part in G1 going to infinity.
func ClearCofactor(p *G1) (out G1) {
	C.rs_g1_clear_cofactor(c1(&out), c1(p))
	return out
}

// Add1 returns a+b.
func Add1(a, b *G1) (out G1) {
	C.rs_g1_add(c1(&out), c1(a), c1(b), false)
	return out
}

// Sub1 returns a-b.
func Sub1(a, b *G1) (out G1) {
	C.rs_g1_add(c1(&out), c1(a), c1(b), true)
	return out
}

// Add2 returns a+b.
func Add2(a, b *G2) (out G2) {
	C.rs_g2_add(c2(&out), c2(a), c2(b), false)
	return out
}

// Sub2 returns a-b.
func Sub2(a, b *G2) (out G2) {
	C.rs_g2_add(c2(&out), c2(a), c2(b), true)
	return out
}

// EvalG2 evaluates a polynomial with public coefficients in G2 at the small x.
func EvalG2(coef []G2, x uint64) (out G2) {
	if x == 0 {
		return coef[0]
	}
	C.rs_g2_horner(c2(&out), c2(&coef[0]), C.size_t(len(coef)), C.uint64_t(x))
	return out
}

// HashToG1 hashes msg to G1 (RFC 9380, BLS12381G1_XMD:SHA-256_SSWU_RO_).
func HashToG1(msg, dst []byte) (out G1) {
	C.rs_g1_hash(c1(&out), bytePtr(msg), C.size_t(len(msg)), bytePtr(dst), C.size_t(len(dst)))
	return out
}

// Sign returns the compressed k*H(msg), in constant time with respect to k.
func Sign(k *Fr, msg, dst []byte) (out [G1Len]byte) {
	C.rs_sign((*C.uint8_t)(unsafe.Pointer(&out)), bytePtr(msg), C.size_t(len(msg)), bytePtr(dst), C.size_t(len(dst)), k.c())
	return out
}
