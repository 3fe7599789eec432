// The functions of blst (C symbols of supranational/blst v0.3) that this package calls. They are
// compiled by blst's Go binding and resolved when the program is linked; declared weak, they do not stop
// the intermediate link that cgo makes of this package alone.

#ifndef RESEAL_CURVE_BLST_H
#define RESEAL_CURVE_BLST_H

#include <string.h>

#include "shim.h"

#define BLST(ret, name, ...) extern ret name(__VA_ARGS__) __attribute__((weak))

BLST(bool, blst_scalar_fr_check, const rs_scalar *);
BLST(void, blst_scalar_from_bendian, rs_scalar *, const uint8_t *);
BLST(void, blst_bendian_from_scalar, uint8_t *, const rs_scalar *);
BLST(bool, blst_scalar_from_be_bytes, rs_scalar *, const uint8_t *, size_t);
BLST(void, blst_fr_from_scalar, rs_fr *, const rs_scalar *);
BLST(void, blst_scalar_from_fr, rs_scalar *, const rs_fr *);
BLST(void, blst_fr_from_uint64, rs_fr *, const uint64_t *);
BLST(void, blst_uint64_from_fr, uint64_t *, const rs_fr *);
BLST(void, blst_fr_add, rs_fr *, const rs_fr *, const rs_fr *);
BLST(void, blst_fr_sub, rs_fr *, const rs_fr *, const rs_fr *);
BLST(void, blst_fr_mul, rs_fr *, const rs_fr *, const rs_fr *);
BLST(void, blst_fr_cneg, rs_fr *, const rs_fr *, bool);
BLST(void, blst_fr_inverse, rs_fr *, const rs_fr *);

BLST(const rs_p1 *, blst_p1_generator, void);
BLST(void, blst_p1_from_affine, rs_p1 *, const rs_p1_affine *);
BLST(void, blst_p1_to_affine, rs_p1_affine *, const rs_p1 *);
BLST(void, blst_p1_mult, rs_p1 *, const rs_p1 *, const uint8_t *, size_t);
BLST(void, blst_p1_cneg, rs_p1 *, bool);
BLST(void, blst_p1_double, rs_p1 *, const rs_p1 *);
BLST(void, blst_p1_add_or_double_affine, rs_p1 *, const rs_p1 *, const rs_p1_affine *);
BLST(void, blst_p1_add_or_double, rs_p1 *, const rs_p1 *, const rs_p1 *);
BLST(void, blst_p1_compress, uint8_t *, const rs_p1 *);
BLST(void, blst_p1s_to_affine, rs_p1_affine *, const rs_p1 *const *, size_t);
BLST(size_t, blst_p1s_mult_pippenger_scratch_sizeof, size_t);
BLST(void, blst_p1s_mult_pippenger, rs_p1 *, const rs_p1_affine *const *, size_t,
     const uint8_t *const *, size_t, uint64_t *);
BLST(void, blst_hash_to_g1, rs_p1 *, const uint8_t *, size_t, const uint8_t *, size_t,
     const uint8_t *, size_t);

BLST(const rs_p2 *, blst_p2_generator, void);
BLST(void, blst_p2_from_affine, rs_p2 *, const rs_p2_affine *);
BLST(void, blst_p2_to_affine, rs_p2_affine *, const rs_p2 *);
BLST(void, blst_p2_mult, rs_p2 *, const rs_p2 *, const uint8_t *, size_t);
BLST(void, blst_p2_cneg, rs_p2 *, bool);
BLST(void, blst_p2_double, rs_p2 *, const rs_p2 *);
BLST(void, blst_p2_add_or_double, rs_p2 *, const rs_p2 *, const rs_p2 *);
BLST(void, blst_p2s_to_affine, rs_p2_affine *, const rs_p2 *const *, size_t);
BLST(size_t, blst_p2s_mult_pippenger_scratch_sizeof, size_t);
BLST(void, blst_p2s_mult_pippenger, rs_p2 *, const rs_p2_affine *const *, size_t,
     const uint8_t *const *, size_t, uint64_t *);

BLST(void, blst_fp_add, rs_fp *, const rs_fp *, const rs_fp *);
BLST(void, blst_fp_cneg, rs_fp *, const rs_fp *, bool);
BLST(void, blst_fp_mul, rs_fp *, const rs_fp *, const rs_fp *);
BLST(void, blst_fp12_sqr, rs_fp12 *, const rs_fp12 *);
BLST(void, blst_fp12_mul, rs_fp12 *, const rs_fp12 *, const rs_fp12 *);
BLST(void, blst_fp12_mul_by_xy00z0, rs_fp12 *, const rs_fp12 *, const rs_fp6 *);
BLST(void, blst_fp12_conjugate, rs_fp12 *);
BLST(void, blst_fp12_cyclotomic_sqr, rs_fp12 *, const rs_fp12 *);
BLST(bool, blst_fp12_in_group, const rs_fp12 *);
BLST(void, blst_fp_from_bendian, rs_fp *, const uint8_t *);
BLST(void, blst_bendian_from_fp, uint8_t *, const rs_fp *);
BLST(void, blst_miller_loop, rs_fp12 *, const rs_p2_affine *, const rs_p1_affine *);
BLST(bool, blst_fp12_is_one, const rs_fp12 *);
BLST(const rs_fp12 *, blst_fp12_one, void);
BLST(void, blst_precompute_lines, rs_fp6 *, const rs_p2_affine *);
BLST(void, blst_miller_loop_n, rs_fp12 *, const rs_p2_affine *const *, const rs_p1_affine *const *,
     size_t);
BLST(void, blst_final_exp, rs_fp12 *, const rs_fp12 *);

// wipe clears secrets in a way that the compiler may not drop.
static inline void wipe(void *p, size_t n)
{
    volatile uint8_t *b = p;
    while (n--)
        *b++ = 0;
}

// wipe_stack clears what calls that have returned left below on the stack: blst's tables of multiples of
// a secret, the largest 18 kB for a multiplication in G2, and copies of the scalar.
static __attribute__((noinline, unused)) void wipe_stack(void)
{
    uint8_t below[32768];
    memset(below, 0, sizeof below);
    __asm__ volatile("" : : "r"(below) : "memory"); // may not be dropped
}

#endif
