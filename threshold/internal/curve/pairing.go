package curve

// #include "shim.h"
// #cgo noescape rs_lines_prepare
// #cgo nocallback rs_lines_prepare
// #cgo noescape rs_pairing_check_lines
// #cgo nocallback rs_pairing_check_lines
// #cgo noescape rs_pairing_check
// #cgo nocallback rs_pairing_check
import "C"

import (
	"unsafe"

	blst "github.com/supranational/blst/bindings/go"
)

// Lines are the line functions of a fixed point of G2, about 20 kB. Immutable once prepared.
type Lines struct{ fp6 [68][36]uint64 }

// PrepareLines computes the line functions of q, which is not infinity.
func PrepareLines(q *G2) *Lines {
	l := new(Lines)
	C.rs_lines_prepare(l.c(), c2(q))
	return l
}

func (l *Lines) c() *C.rs_lines { return (*C.rs_lines)(unsafe.Pointer(l)) }

var (
	generator1         G1
	clearedGenerator1  G1 // h*generator1, see SameLogCleared
	generator2         G2
	negGenerator2Lines *Lines
)

func init() {
	generator1 = *blst.P1Generator().ToAffine()
	generator2 = *blst.P2Generator().ToAffine()
	var zero2 G2
	clearedGenerator1 = ClearCofactor(&generator1)
	neg := Sub2(&zero2, &generator2)
	negGenerator2Lines = PrepareLines(&neg)
}

// Generator1 and Generator2 return the standard generators.
func Generator1() G1 { return generator1 }
func Generator2() G2 { return generator2 }

// CheckPairing reports whether e(sig, generator2) = e(hash, key), the key given by its lines and so not
// infinity. Points outside the subgroup are no valid input.
func CheckPairing(sig, hash *G1, key *Lines) bool {
	if IsZero1(sig) || IsZero1(hash) { // Miller's loop has no lines through infinity
		return IsZero1(sig) && IsZero1(hash)
	}
	return bool(C.rs_pairing_check_lines(c1(sig), negGenerator2Lines.c(), c1(hash), key.c()))
}

// ProductIsOne reports whether the product of e(ps[i], qs[i]) is one. Pairs with a point at
// infinity count as one.
func ProductIsOne(ps []G1, qs []G2) bool {
	if len(ps) != len(qs) {
		panic("curve: as many points of G1 as of G2 are needed")
	}
	p, q := make([]G1, 0, len(ps)), make([]G2, 0, len(qs))
	for i := range ps {
		if !IsZero1(&ps[i]) && !IsZero2(&qs[i]) {
			p, q = append(p, ps[i]), append(q, qs[i])
		}
	}
	if len(p) == 0 {
		return true
	}
	return bool(C.rs_pairing_check(c1(&p[0]), c2(&q[0]), C.size_t(len(p))))
}

// SameLogCleared reports whether b and the part of a in the subgroup are the same multiple of the
// generators: e(h*a, g2) = e(h*g1, b), where h is the cofactor that clears a.
func SameLogCleared(a *G1, b *G2) bool {
	cleared := ClearCofactor(a)
	if IsZero2(b) {
		return IsZero1(&cleared)
	}
	return CheckPairing(&cleared, &clearedGenerator1, PrepareLines(b))
}
