package curve

// #include "shim.h"
// #cgo noescape rs_g1_combine
// #cgo nocallback rs_g1_combine
// #cgo noescape rs_g2_combine
// #cgo nocallback rs_g2_combine
import "C"

import (
	"math/bits"
	"unsafe"
)

// maxIntegerPoints is the number of points up to which Prepare tries integer coefficients: beyond,
// they are about as long as field elements.
const maxIntegerPoints = 64

// maxIndex bounds the indices whose differences are factored: they are below it.
const maxIndex = 1024

// factor is one prime power in the factorization of a small number.
type factor struct{ prime, exponent uint8 }

var (
	smallPrimes []uint16               // below maxIndex, in order: 172 of them
	factors     [maxIndex + 1][]factor // of every number from 1 to maxIndex, by position in smallPrimes
)

func init() {
	var rest [maxIndex + 1]uint16
	for i := range rest {
		rest[i] = uint16(i)
	}
	for p := 2; p <= maxIndex; p++ {
		if rest[p] == 1 {
			continue // composite: earlier primes have divided it away
		}
		position := uint8(len(smallPrimes))
		smallPrimes = append(smallPrimes, uint16(p))
		for m := p; m <= maxIndex; m += p {
			f := factor{prime: position}
			for ; rest[m]%uint16(p) == 0; rest[m] /= uint16(p) {
				f.exponent++
			}
			factors[m] = append(factors[m], f)
		}
	}
}

// Interpolation has the Lagrange coefficients at zero for a set of indices, and interpolates with them
// in the exponent. It is working memory, reused from Prepare to Prepare; not safe for concurrent use.
//
// The coefficients of small indices are rational numbers with small numerators over a small common
// denominator: about 20 bits at 11 of 16 indices and 100 at 43 of 64, where a field element has 255.
// Interpolating with these integers and dividing once by the denominator is faster.
type Interpolation struct {
	scalars  []byte // little-endian, (length+7)/8 bytes each
	length   int    // in bits
	negative []bool // with integer coefficients; else empty
	factor   Fr     // with integer coefficients: the inverse of the denominator

	exponents []int16     // of every small prime in every coefficient
	integers  [][4]uint64 // numerators
	field     []Fr        // coefficients that are not integers
	words     []uint64    // for the multi-scalar multiplication
}

// Prepare sets the indices: distinct, from 1 to maxIndex.
func (c *Interpolation) Prepare(xs []uint16) {
	if c.integerCoefficients(xs) {
		stride := (c.length + 7) / 8
		c.scalars = grow(c.scalars, stride*len(xs))
		for i := range xs {
			limbs := &c.integers[i] // little-endian, as the limbs of every platform that shim.h accepts
			copy(c.scalars[i*stride:(i+1)*stride], unsafe.Slice((*byte)(unsafe.Pointer(limbs)), ScalarLen))
		}
		return
	}
	c.negative, c.length = c.negative[:0], scalarBits
	c.field = grow(c.field, 2*len(xs))
	lagrange(c.field, xs, 0)
	c.scalars = grow(c.scalars, ScalarLen*len(xs))
	putScalars(c.scalars, c.field[:len(xs)])
}

// At0 returns the value at zero of the polynomial in the exponent whose values at the indices are the
// points. It may change the points' signs.
func (c *Interpolation) At0(points []G1) (out G1) {
	n := C.size_t(len(points))
	c.words = grow(c.words, int(C.rs_g1_msm_scratch(n))/8+1)
	negative, factor := c.integerForm()
	C.rs_g1_combine(c1(&out), c1(&points[0]), bytePtr(c.scalars), negative, n, C.size_t(c.length), factor, (*C.uint64_t)(&c.words[0]))
	return out
}

// At0G2 is At0 for points of G2.
func (c *Interpolation) At0G2(points []G2) (out G2) {
	n := C.size_t(len(points))
	c.words = grow(c.words, int(C.rs_g2_msm_scratch(n))/8+1)
	negative, factor := c.integerForm()
	C.rs_g2_combine(c2(&out), c2(&points[0]), bytePtr(c.scalars), negative, n, C.size_t(c.length), factor, (*C.uint64_t)(&c.words[0]))
	return out
}

func (c *Interpolation) integerForm() (*C.bool, *C.rs_fr) {
	if len(c.negative) == 0 {
		return nil, nil
	}
	return (*C.bool)(unsafe.Pointer(&c.negative[0])), c.factor.c()
}

// integerCoefficients sets integers, negative, length and factor so that the i-th coefficient is
// ±integers[i] * factor. It fails if an integer has more than 255 bits, or if there are many indices.
func (c *Interpolation) integerCoefficients(xs []uint16) bool {
	n := len(xs)
	if n > maxIntegerPoints {
		return false
	}
	c.integers, c.negative = grow(c.integers, n), grow(c.negative, n)
	c.factorCoefficients(xs)
	primes := len(smallPrimes)
	var common [256]int16 // exponents of the common denominator
	for i := range xs {
		for p, e := range c.exponents[i*primes : (i+1)*primes] {
			common[p] = max(common[p], -e)
		}
	}
	c.length = 0
	for i := range xs {
		x := &c.integers[i]
		*x = [4]uint64{1}
		for p, e := range c.exponents[i*primes : (i+1)*primes] {
			if !mulPower(x, uint64(smallPrimes[p]), int(e+common[p])) {
				return false
			}
		}
		c.length = max(c.length, bitLen(x))
	}
	denominator := [4]uint64{1}
	for p, e := range common[:primes] {
		if !mulPower(&denominator, uint64(smallPrimes[p]), int(e)) {
			return false
		}
	}
	if c.length > scalarBits || bitLen(&denominator) >= scalarBits {
		return false
	}
	c.factor.setLimbs(&denominator)
	c.factor.Inverse(&c.factor)
	return true
}

// factorCoefficients writes, for every i, the exponents of the primes and the sign of the product
// over j != i of xs[j]/(xs[j]-xs[i]).
func (c *Interpolation) factorCoefficients(xs []uint16) {
	primes := len(smallPrimes)
	c.exponents = grow(c.exponents, len(xs)*primes)
	clear(c.exponents)
	clear(c.negative)
	for i, x := range xs {
		mine := c.exponents[i*primes : (i+1)*primes]
		for j, y := range xs[:i] {
			theirs := c.exponents[j*primes : (j+1)*primes]
			difference := max(x, y) - min(x, y)
			for _, f := range factors[difference] {
				mine[f.prime] -= int16(f.exponent)
				theirs[f.prime] -= int16(f.exponent)
			}
			for _, f := range factors[y] {
				mine[f.prime] += int16(f.exponent)
			}
			for _, f := range factors[x] {
				theirs[f.prime] += int16(f.exponent)
			}
			if y < x {
				c.negative[i] = !c.negative[i]
			} else {
				c.negative[j] = !c.negative[j]
			}
		}
	}
}

// mulPower multiplies x by p^e and reports whether the product fits in 256 bits.
func mulPower(x *[4]uint64, p uint64, e int) bool {
	for e > 0 {
		word := p
		for e--; e > 0 && word < 1<<(64-10); e-- { // p has at most 10 bits
			word *= p
		}
		var carry uint64
		for i := range x {
			hi, lo := bits.Mul64(x[i], word)
			var c uint64
			x[i], c = bits.Add64(lo, carry, 0)
			carry = hi + c
		}
		if carry != 0 {
			return false
		}
	}
	return true
}

func bitLen(x *[4]uint64) int {
	for i := len(x) - 1; i >= 0; i-- {
		if x[i] != 0 {
			return 64*i + bits.Len64(x[i])
		}
	}
	return 0
}
