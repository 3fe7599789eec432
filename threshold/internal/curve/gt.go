package curve

// #include "shim.h"
// #cgo noescape rs_gt_pair
// #cgo nocallback rs_gt_pair
// #cgo noescape rs_gt_mul
// #cgo nocallback rs_gt_mul
// #cgo noescape rs_gt_invert
// #cgo nocallback rs_gt_invert
// #cgo noescape rs_gt_exp
// #cgo nocallback rs_gt_exp
// #cgo noescape rs_gt_encode
// #cgo nocallback rs_gt_encode
// #cgo noescape rs_gt_decode
// #cgo nocallback rs_gt_decode
import "C"

import (
	"unsafe"

	blst "github.com/supranational/blst/bindings/go"
)

// GTLen is the size in bytes of an encoded element of the target group.
const GTLen = 576

// GT is an element of the pairing's target group. The zero value is no element: start from GTOne.
type GT struct{ fp12 blst.Fp12 }

func (x *GT) c() *C.rs_fp12 { return (*C.rs_fp12)(unsafe.Pointer(x)) }

// GTOne returns the neutral element.
func GTOne() GT { return GT{blst.Fp12One()} }

// Pair returns e(p, q).
func Pair(p *G1, q *G2) (out GT) {
	if IsZero1(p) || IsZero2(q) {
		return GTOne()
	}
	C.rs_gt_pair(out.c(), c1(p), c2(q))
	return out
}

// Mul sets x to a*b.
func (x *GT) Mul(a, b *GT) { C.rs_gt_mul(x.c(), a.c(), b.c()) }

// Invert sets x to 1/a.
func (x *GT) Invert(a *GT) {
	*x = *a
	C.rs_gt_invert(x.c())
}

// Exp sets x to base^k, in constant time.
func (x *GT) Exp(base *GT, k *Fr) { C.rs_gt_exp(x.c(), base.c(), k.c()) }

// Equal reports whether two elements are the same.
func (x *GT) Equal(y *GT) bool { return x.fp12.Equals(&y.fp12) }

// Bytes encodes x in GTLen bytes.
func (x *GT) Bytes() []byte {
	b := make([]byte, GTLen)
	C.rs_gt_encode(bytePtr(b), x.c())
	return b
}

// SetBytes decodes an element of the group.
func (x *GT) SetBytes(b []byte) error {
	if len(b) != GTLen || !bool(C.rs_gt_decode(x.c(), bytePtr(b))) {
		return ErrPoint
	}
	return nil
}
