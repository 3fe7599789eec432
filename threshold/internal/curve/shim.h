// What Go calls: the functions of blst that its Go binding does not export, and loops over them that
// would cost a cgo call per step in Go.

#ifndef RESEAL_CURVE_SHIM_H
#define RESEAL_CURVE_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

_Static_assert(sizeof(size_t) == 8, "blst is laid out for 64-bit limbs here");

typedef struct { uint8_t b[32]; } rs_scalar;   // little-endian, < r
typedef struct { uint64_t l[4]; } rs_fr;       // Montgomery form
typedef struct { uint64_t l[6]; } rs_fp;
typedef struct { rs_fp c[2]; } rs_fp2;
typedef struct { rs_fp2 c[3]; } rs_fp6;
typedef struct { rs_fp6 c[2]; } rs_fp12;
typedef struct { rs_fp x, y, z; } rs_p1;
typedef struct { rs_fp x, y; } rs_p1_affine;
typedef struct { rs_fp2 x, y, z; } rs_p2;
typedef struct { rs_fp2 x, y; } rs_p2_affine;

#define RS_LINES 68                            // line functions of one fixed G2 point
typedef struct { rs_fp6 l[RS_LINES]; } rs_lines;

#define RS_WINDOWS 64                          // of 4 bits
typedef struct { rs_p1_affine p[RS_WINDOWS][8]; } rs_base_table; // p[w][d-1] = d * 16^w * generator

// Scalars.
bool rs_fr_from_be(rs_fr *out, const uint8_t in[32]);
void rs_fr_to_be(uint8_t out[32], const rs_fr *in);
void rs_fr_reduce_be(rs_fr *out, const uint8_t *in, size_t len);
void rs_fr_from_limbs(rs_fr *out, const uint64_t limbs[4]);
void rs_fr_from_small(rs_fr *out, uint64_t x);
void rs_fr_add(rs_fr *out, const rs_fr *a, const rs_fr *b);
void rs_fr_sub(rs_fr *out, const rs_fr *a, const rs_fr *b);
void rs_fr_mul(rs_fr *out, const rs_fr *a, const rs_fr *b);
void rs_fr_neg(rs_fr *out, const rs_fr *a);
void rs_fr_inverse(rs_fr *out, const rs_fr *a);
void rs_frs_to_scalars(rs_scalar *out, const rs_fr *in, size_t n);
void rs_poly_eval(rs_fr *out, const rs_fr *coef, size_t n, size_t stride, uint64_t x);
void rs_lagrange(rs_fr *out, const uint16_t *xs, size_t n, uint64_t at, rs_fr *scratch);
void rs_inner(rs_fr *out, const rs_fr *a, const rs_fr *b, size_t n);
void rs_outer_add(rs_fr *acc, const rs_fr *a, size_t na, const rs_fr *b, size_t nb);
void rs_powers(rs_fr *out, size_t n, uint64_t x);

// Groups. A NULL base of G2 means the generator.
void rs_g1_mult(rs_p1_affine *out, const rs_p1_affine *base, const rs_fr *k);
void rs_g2_mult(rs_p2_affine *out, const rs_p2_affine *base, const rs_fr *k);
void rs_g1_commit(rs_p1_affine *out, rs_p1 *scratch, const rs_fr *k, size_t n, const rs_base_table *table);
void rs_base_prepare(rs_base_table *out);
void rs_g2_commit(rs_p2_affine *out, rs_p2 *scratch, const rs_fr *k, size_t n);
size_t rs_g1_msm_scratch(size_t n);
size_t rs_g2_msm_scratch(size_t n);
void rs_g1_msm(rs_p1_affine *out, const rs_p1_affine *points, const uint8_t *scalars,
               size_t n, size_t nbits, uint64_t *scratch);
void rs_g1_combine(rs_p1_affine *out, rs_p1_affine *points, const uint8_t *scalars, const bool *negative,
                   size_t n, size_t nbits, const rs_fr *factor, uint64_t *scratch);
void rs_g2_combine(rs_p2_affine *out, rs_p2_affine *points, const uint8_t *scalars, const bool *negative,
                   size_t n, size_t nbits, const rs_fr *factor, uint64_t *scratch);
void rs_g2_msm(rs_p2_affine *out, const rs_p2_affine *points, const uint8_t *scalars,
               size_t n, size_t nbits, uint64_t *scratch);
void rs_g1_clear_cofactor(rs_p1_affine *out, const rs_p1_affine *in);
void rs_g1_add(rs_p1_affine *out, const rs_p1_affine *a, const rs_p1_affine *b, bool negate_b);
void rs_g2_add(rs_p2_affine *out, const rs_p2_affine *a, const rs_p2_affine *b, bool negate_b);
void rs_g2_horner(rs_p2_affine *out, const rs_p2_affine *coef, size_t n, uint64_t x);
void rs_g1_hash(rs_p1_affine *out, const uint8_t *msg, size_t len, const uint8_t *dst, size_t dst_len);
void rs_sign(uint8_t out[48], const uint8_t *msg, size_t len, const uint8_t *dst, size_t dst_len,
             const rs_fr *k);

// Pairings: the product of e(P[i], Q[i]) is one.
void rs_lines_prepare(rs_lines *out, const rs_p2_affine *q);
bool rs_pairing_check_lines(const rs_p1_affine *p0, const rs_lines *q0,
                            const rs_p1_affine *p1, const rs_lines *q1);
bool rs_pairing_check(const rs_p1_affine *ps, const rs_p2_affine *qs, size_t n);

// The target group. Encoded: its 12 coordinates in blst's order in memory, 48 bytes each, big-endian.
void rs_gt_pair(rs_fp12 *out, const rs_p1_affine *p, const rs_p2_affine *q);
void rs_gt_mul(rs_fp12 *out, const rs_fp12 *a, const rs_fp12 *b);
void rs_gt_invert(rs_fp12 *a);
void rs_gt_exp(rs_fp12 *out, const rs_fp12 *base, const rs_fr *k);
void rs_gt_encode(uint8_t out[576], const rs_fp12 *in);
bool rs_gt_decode(rs_fp12 *out, const uint8_t in[576]);

#endif
