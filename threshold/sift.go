package threshold

import (
	"encoding/binary"
	"slices"

	"github.com/reseal-bft/reseal/threshold/internal/curve"
)

// sieve separates good partial signatures on one message from bad ones. It verifies random linear
// combinations of many at once, with one pairing equation, and halves those that fail: a single bad one
// among n costs about 2*log2(n) equations.
type sieve struct {
	hash         curve.G1
	partials     []PartialSignature
	points       []curve.G1 // of the partials
	keys         []curve.G2 // of their shares
	coefficients []byte

	good []PartialSignature
	bad  []int
}

// sift verifies all partial signatures, equal ones once. bad is ascending and without repetition.
func (s *Sharing) sift(msg []byte, ps []PartialSignature) (good []PartialSignature, bad []int) {
	v := &sieve{hash: curve.HashToG1(msg, ciphersuite)}
	var transcript []byte
	seen := make(map[PartialSignature]bool, len(ps))
	for _, p := range ps {
		if seen[p] {
			continue
		}
		seen[p] = true
		var point curve.G1
		key := s.ShareKey(p.Index)
		if key == nil || p.Signature.decode(&point) != nil {
			v.bad = append(v.bad, p.Index)
			continue
		}
		v.partials, v.points, v.keys = append(v.partials, p), append(v.points, point), append(v.keys, key.point)
		transcript = binary.BigEndian.AppendUint16(transcript, uint16(p.Index))
		transcript = append(transcript, key.encoded[:]...)
		transcript = append(transcript, p.Signature[:]...)
	}
	v.coefficients = challenge("partial signatures", len(v.points), msg, transcript)
	v.divide(0, len(v.points), len(v.bad) == 0) // Combine has failed: if not for these, for one of those
	slices.Sort(v.bad)
	return v.good, slices.Compact(v.bad)
}

// few are verified one by one: that is cheaper than to halve them further.
const few = 4

// divide judges the partials from..to-1; knownBad says that one of them is already known to be bad.
func (v *sieve) divide(from, to int, knownBad bool) {
	if to-from > few && !knownBad && v.holds(from, to) {
		v.good = append(v.good, v.partials[from:to]...)
		return
	}
	if to-from <= few {
		for i := from; i < to; i++ {
			if v.holds(i, i+1) {
				v.good = append(v.good, v.partials[i])
			} else {
				v.bad = append(v.bad, v.partials[i].Index)
			}
		}
		return
	}
	middle := (from + to) / 2
	before := len(v.bad)
	v.divide(from, middle, false)
	v.divide(middle, to, len(v.bad) == before)
}

// holds checks e(sum c_i sig_i, g2) = e(H(m), sum c_i key_i).
func (v *sieve) holds(from, to int) bool {
	if to-from == 1 {
		return curve.CheckPairing(&v.points[from], &v.hash, curve.PrepareLines(&v.keys[from]))
	}
	coefficients := v.coefficients[from*coefficientLen : to*coefficientLen]
	sig := curve.MSM1(v.points[from:to], coefficients, 8*coefficientLen)
	key := curve.MSM2(v.keys[from:to], coefficients, 8*coefficientLen)
	if curve.IsZero2(&key) {
		return false // has no lines; one in 2^128, and halving goes on
	}
	return curve.CheckPairing(&sig, &v.hash, curve.PrepareLines(&key))
}
