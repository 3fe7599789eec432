#include "shim.h"

// Interfaces of blst (C symbols of supranational/blst v0.3).

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
BLST(void, blst_p1_add_affine, rs_p1 *, const rs_p1 *, const rs_p1_affine *);
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
static void wipe(void *p, size_t n)
{
    volatile uint8_t *b = p;
    while (n--)
        *b++ = 0;
}

// ---- scalars ----

bool rs_fr_from_be(rs_fr *out, const uint8_t in[32])
{
    rs_scalar s;
    blst_scalar_from_bendian(&s, in);
    bool ok = blst_scalar_fr_check(&s);
    if (ok)
        blst_fr_from_scalar(out, &s);
    wipe(&s, sizeof s);
    return ok;
}

void rs_fr_to_be(uint8_t out[32], const rs_fr *in)
{
    rs_scalar s;
    blst_scalar_from_fr(&s, in);
    blst_bendian_from_scalar(out, &s);
    wipe(&s, sizeof s);
}

void rs_fr_reduce_be(rs_fr *out, const uint8_t *in, size_t len)
{
    rs_scalar s;
    (void)blst_scalar_from_be_bytes(&s, in, len); // false only says that the result is zero
    blst_fr_from_scalar(out, &s);
    wipe(&s, sizeof s);
}

void rs_fr_from_limbs(rs_fr *out, const uint64_t limbs[4]) { blst_fr_from_uint64(out, limbs); }

void rs_fr_from_small(rs_fr *out, uint64_t x)
{
    const uint64_t a[4] = { x, 0, 0, 0 };
    blst_fr_from_uint64(out, a);
}

void rs_fr_add(rs_fr *out, const rs_fr *a, const rs_fr *b) { blst_fr_add(out, a, b); }
void rs_fr_sub(rs_fr *out, const rs_fr *a, const rs_fr *b) { blst_fr_sub(out, a, b); }
void rs_fr_mul(rs_fr *out, const rs_fr *a, const rs_fr *b) { blst_fr_mul(out, a, b); }
void rs_fr_neg(rs_fr *out, const rs_fr *a) { blst_fr_cneg(out, a, 1); }
void rs_fr_inverse(rs_fr *out, const rs_fr *a) { blst_fr_inverse(out, a); }

void rs_frs_to_scalars(rs_scalar *out, const rs_fr *in, size_t n)
{
    for (size_t i = 0; i < n; i++)
        blst_scalar_from_fr(&out[i], &in[i]);
}

// rs_poly_eval evaluates, at the small public x, the polynomial whose coefficients, lowest first,
// are coef[0], coef[stride], ... (Horner).
void rs_poly_eval(rs_fr *out, const rs_fr *coef, size_t n, size_t stride, uint64_t x)
{
    rs_fr acc = coef[(n - 1) * stride], at;
    rs_fr_from_small(&at, x);
    for (size_t i = n - 1; i-- > 0;) {
        blst_fr_mul(&acc, &acc, &at);
        blst_fr_add(&acc, &acc, &coef[i * stride]);
    }
    *out = acc;
    wipe(&acc, sizeof acc);
}

// rs_inner is the inner product of a and b.
void rs_inner(rs_fr *out, const rs_fr *a, const rs_fr *b, size_t n)
{
    rs_fr acc = { { 0 } }, t;
    for (size_t i = 0; i < n; i++) {
        blst_fr_mul(&t, &a[i], &b[i]);
        blst_fr_add(&acc, &acc, &t);
    }
    *out = acc;
    wipe(&acc, sizeof acc);
    wipe(&t, sizeof t);
}

// rs_outer_add adds a[i]*b[j] to acc[i*nb+j].
void rs_outer_add(rs_fr *acc, const rs_fr *a, size_t na, const rs_fr *b, size_t nb)
{
    rs_fr t;
    for (size_t i = 0; i < na; i++)
        for (size_t j = 0; j < nb; j++, acc++) {
            blst_fr_mul(&t, &a[i], &b[j]);
            blst_fr_add(acc, acc, &t);
        }
}

// rs_powers writes 1, x, x^2, ...
void rs_powers(rs_fr *out, size_t n, uint64_t x)
{
    rs_fr at;
    rs_fr_from_small(&at, x);
    rs_fr_from_small(&out[0], 1);
    for (size_t i = 1; i < n; i++)
        blst_fr_mul(&out[i], &out[i - 1], &at);
}

// mul_signed multiplies acc by the product of at most a few small signed numbers.
static void mul_small(rs_fr *acc, uint64_t magnitude, bool negative)
{
    rs_fr t;
    rs_fr_from_small(&t, magnitude);
    blst_fr_cneg(&t, &t, negative);
    blst_fr_mul(acc, acc, &t);
}

// product_of_differences is the product over j != skip of (xs[j] - at), gathered in 64-bit words
// first: six differences of at most 10 bits fit.
static void product_of_differences(rs_fr *out, const uint16_t *xs, size_t n, size_t skip, int64_t at)
{
    uint64_t word = 1;
    bool negative = false;
    rs_fr_from_small(out, 1);
    for (size_t j = 0, gathered = 0; j < n; j++) {
        if (j == skip)
            continue;
        int64_t d = (int64_t)xs[j] - at;
        negative ^= d < 0;
        word *= (uint64_t)(d < 0 ? -d : d);
        if (++gathered == 6) {
            mul_small(out, word, negative);
            word = 1, negative = false, gathered = 0;
        }
    }
    mul_small(out, word, negative);
}

// rs_lagrange writes the coefficients that interpolate at the point `at`, which is none of xs:
// out[i] = prod over j != i of (xs[j]-at)/(xs[j]-xs[i]). One inversion serves all (Montgomery).
// The scratch holds n elements.
void rs_lagrange(rs_fr *out, const uint16_t *xs, size_t n, uint64_t at, rs_fr *scratch)
{
    rs_fr run, t;
    rs_fr_from_small(&run, 1);
    for (size_t i = 0; i < n; i++) {
        product_of_differences(&out[i], xs, n, i, xs[i]);
        mul_small(&out[i], (uint64_t)(xs[i] > at ? xs[i] - at : at - xs[i]), xs[i] < at);
        scratch[i] = run;
        blst_fr_mul(&run, &run, &out[i]);
    }
    blst_fr_inverse(&run, &run);
    product_of_differences(&t, xs, n, n, (int64_t)at);
    blst_fr_mul(&run, &run, &t); // (the whole numerator) / (all denominators)
    rs_fr_from_small(&t, 1);
    for (size_t i = n; i-- > 0;) {
        rs_fr den = out[i];
        blst_fr_mul(&out[i], &run, &scratch[i]);
        blst_fr_mul(&out[i], &out[i], &t);
        blst_fr_mul(&t, &t, &den);
    }
}

// ---- groups ----

void rs_g1_mult(rs_p1_affine *out, const rs_p1_affine *base, const rs_fr *k)
{
    rs_scalar s;
    rs_p1 p;
    blst_scalar_from_fr(&s, k);
    if (base)
        blst_p1_from_affine(&p, base);
    else
        p = *blst_p1_generator();
    blst_p1_mult(&p, &p, s.b, 255);
    blst_p1_to_affine(out, &p);
    wipe(&s, sizeof s);
}

void rs_g2_mult(rs_p2_affine *out, const rs_p2_affine *base, const rs_fr *k)
{
    rs_scalar s;
    rs_p2 p;
    blst_scalar_from_fr(&s, k);
    if (base)
        blst_p2_from_affine(&p, base);
    else
        p = *blst_p2_generator();
    blst_p2_mult(&p, &p, s.b, 255);
    blst_p2_to_affine(out, &p);
    wipe(&s, sizeof s);
}

void rs_base_prepare(rs_base_table *out)
{
    rs_p1 multiples[8], base = *blst_p1_generator();
    const rs_p1 *all[2] = { multiples, NULL };

    for (int w = 0; w < RS_WINDOWS; w++) {
        multiples[0] = base;
        for (int d = 1; d < 8; d++)
            blst_p1_add_or_double(&multiples[d], &multiples[d - 1], &base);
        blst_p1s_to_affine(out->p[w], all, 8);
        blst_p1_double(&base, &multiples[7]);
    }
}

// select_multiple reads row[digit-1] (infinity for 0) without an access or a branch that depends on it.
static void select_multiple(rs_p1_affine *out, const rs_p1_affine row[8], uint64_t digit)
{
    uint64_t *o = (uint64_t *)out;
    for (size_t i = 0; i < sizeof *out / sizeof *o; i++)
        o[i] = 0;
    for (uint64_t d = 1; d <= 8; d++) {
        const uint64_t *r = (const uint64_t *)&row[d - 1];
        uint64_t keep = ((d ^ digit) - 1) >> 63; // 1 if equal
        keep = 0 - keep;
        for (size_t i = 0; i < sizeof *out / sizeof *o; i++)
            o[i] |= keep & r[i];
    }
}

// base_mult multiplies the generator in constant time: k = sum of digits from -8 to 7 times powers of
// 16, one addition from the table for each. The addition formula would fail on equal operands; the sum
// so far is less than the power that follows, so that takes one of a handful of scalars out of 2^255.
static void base_mult(rs_p1 *out, const rs_fr *k, const rs_base_table *table)
{
    uint64_t limbs[4], carry = 0;
    rs_p1_affine multiple;

    blst_uint64_from_fr(limbs, k);
    for (int i = 0; i < 4; i++) { // add 8 to every digit
        uint64_t eights = 0x8888888888888888u, sum = limbs[i] + eights;
        uint64_t overflow = sum < eights;
        limbs[i] = sum + carry;
        carry = overflow | (limbs[i] < carry);
    }
    for (size_t i = 0; i < sizeof *out; i++)
        ((uint8_t *)out)[i] = 0;
    for (int w = 0; w < RS_WINDOWS; w++) {
        int64_t digit = (int64_t)(limbs[w / 16] >> (w % 16 * 4) & 15) - 8;
        int64_t negative = digit >> 63;
        select_multiple(&multiple, table->p[w], (uint64_t)((digit ^ negative) - negative));
        blst_fp_cneg(&multiple.y, &multiple.y, negative & 1);
        blst_p1_add_affine(out, out, &multiple);
    }
    wipe(limbs, sizeof limbs);
    wipe(&multiple, sizeof multiple);
}

void rs_g1_commit(rs_p1_affine *out, rs_p1 *scratch, const rs_fr *k, size_t n, const rs_base_table *table)
{
    const rs_p1 *all[2] = { scratch, NULL };
    for (size_t i = 0; i < n; i++)
        base_mult(&scratch[i], &k[i], table);
    blst_p1s_to_affine(out, all, n);
}

void rs_g2_commit(rs_p2_affine *out, rs_p2 *scratch, const rs_fr *k, size_t n)
{
    rs_scalar s;
    for (size_t i = 0; i < n; i++) {
        blst_scalar_from_fr(&s, &k[i]);
        blst_p2_mult(&scratch[i], blst_p2_generator(), s.b, 255);
    }
    wipe(&s, sizeof s);
    const rs_p2 *all[2] = { scratch, NULL };
    blst_p2s_to_affine(out, all, n);
}

size_t rs_g1_msm_scratch(size_t n) { return blst_p1s_mult_pippenger_scratch_sizeof(n); }
size_t rs_g2_msm_scratch(size_t n) { return blst_p2s_mult_pippenger_scratch_sizeof(n); }

void rs_g1_msm(rs_p1_affine *out, const rs_p1_affine *points, const uint8_t *scalars,
               size_t n, size_t nbits, uint64_t *scratch)
{
    const rs_p1_affine *p[2] = { points, NULL };
    const uint8_t *s[2] = { scalars, NULL };
    rs_p1 sum;
    blst_p1s_mult_pippenger(&sum, p, n, s, nbits, scratch);
    blst_p1_to_affine(out, &sum);
}

// rs_g1_combine is rs_g1_msm with signs (NULL: none is negative) and a common factor (NULL: one).
void rs_g1_combine(rs_p1_affine *out, rs_p1_affine *points, const uint8_t *scalars, const bool *negative,
                   size_t n, size_t nbits, const rs_fr *factor, uint64_t *scratch)
{
    if (negative)
        for (size_t i = 0; i < n; i++)
            blst_fp_cneg(&points[i].y, &points[i].y, negative[i]);
    rs_g1_msm(out, points, scalars, n, nbits, scratch);
    if (factor)
        rs_g1_mult(out, out, factor);
}

void rs_g2_msm(rs_p2_affine *out, const rs_p2_affine *points, const uint8_t *scalars,
               size_t n, size_t nbits, uint64_t *scratch)
{
    const rs_p2_affine *p[2] = { points, NULL };
    const uint8_t *s[2] = { scalars, NULL };
    rs_p2 sum;
    blst_p2s_mult_pippenger(&sum, p, n, s, nbits, scratch);
    blst_p2_to_affine(out, &sum);
}

// rs_g1_clear_cofactor multiplies by 1-x = 0xd201000000010001 (RFC 9380, section 8.8.1), which maps
// every point of the curve into the subgroup and no point but those without a subgroup part to zero.
void rs_g1_clear_cofactor(rs_p1_affine *out, const rs_p1_affine *in)
{
    const uint64_t h = 0xd201000000010001u;
    rs_p1 p, acc;
    blst_p1_from_affine(&p, in);
    acc = p;
    for (int bit = 62; bit >= 0; bit--) {
        blst_p1_double(&acc, &acc);
        if (h >> bit & 1)
            blst_p1_add_or_double(&acc, &acc, &p);
    }
    blst_p1_to_affine(out, &acc);
}

void rs_g1_add(rs_p1_affine *out, const rs_p1_affine *a, const rs_p1_affine *b, bool negate_b)
{
    rs_p1 p, q;
    blst_p1_from_affine(&p, a);
    blst_p1_from_affine(&q, b);
    blst_p1_cneg(&q, negate_b);
    blst_p1_add_or_double(&p, &p, &q);
    blst_p1_to_affine(out, &p);
}

void rs_g2_add(rs_p2_affine *out, const rs_p2_affine *a, const rs_p2_affine *b, bool negate_b)
{
    rs_p2 p, q;
    blst_p2_from_affine(&p, a);
    blst_p2_from_affine(&q, b);
    blst_p2_cneg(&q, negate_b);
    blst_p2_add_or_double(&p, &p, &q);
    blst_p2_to_affine(out, &p);
}

// rs_g2_horner evaluates a public polynomial with coefficients in G2 at the small x > 0.
void rs_g2_horner(rs_p2_affine *out, const rs_p2_affine *coef, size_t n, uint64_t x)
{
    rs_p2 acc, c;
    int top = 63 - __builtin_clzll(x);
    blst_p2_from_affine(&acc, &coef[n - 1]);
    for (size_t i = n - 1; i-- > 0;) {
        rs_p2 base = acc;
        for (int bit = top - 1; bit >= 0; bit--) {
            blst_p2_double(&acc, &acc);
            if (x >> bit & 1)
                blst_p2_add_or_double(&acc, &acc, &base);
        }
        blst_p2_from_affine(&c, &coef[i]);
        blst_p2_add_or_double(&acc, &acc, &c);
    }
    blst_p2_to_affine(out, &acc);
}

void rs_g1_hash(rs_p1_affine *out, const uint8_t *msg, size_t len, const uint8_t *dst, size_t dst_len)
{
    rs_p1 p;
    blst_hash_to_g1(&p, msg, len, dst, dst_len, NULL, 0);
    blst_p1_to_affine(out, &p);
}

void rs_sign(uint8_t out[48], const uint8_t *msg, size_t len, const uint8_t *dst, size_t dst_len,
             const rs_fr *k)
{
    rs_scalar s;
    rs_p1 p;
    blst_hash_to_g1(&p, msg, len, dst, dst_len, NULL, 0);
    blst_scalar_from_fr(&s, k);
    blst_p1_mult(&p, &p, s.b, 255);
    blst_p1_compress(out, &p);
    wipe(&s, sizeof s);
}

// ---- pairings ----

void rs_lines_prepare(rs_lines *out, const rs_p2_affine *q) { blst_precompute_lines(out->l, q); }

static bool product_is_one(const rs_fp12 *f)
{
    rs_fp12 e;
    blst_final_exp(&e, f);
    return blst_fp12_is_one(&e);
}

// line_at evaluates a prepared line at p, given as (-2x, 2y).
static void line_at(rs_fp6 *out, const rs_fp6 *line, const rs_p1_affine *p)
{
    out->c[0] = line->c[0];
    for (int i = 0; i < 2; i++) {
        blst_fp_mul(&out->c[1].c[i], &line->c[1].c[i], &p->x);
        blst_fp_mul(&out->c[2].c[i], &line->c[2].c[i], &p->y);
    }
}

// rs_pairing_check_lines runs both Miller loops over one accumulator, so that its squarings are
// shared (blst's own blst_miller_loop_lines takes one pair). The runs are those of the bits of
// |z| = 0xd201000000010000 after the first: each begins with the lines of an addition and goes on with
// doublings. Conjugating for the sign of z changes nothing about being one.
bool rs_pairing_check_lines(const rs_p1_affine *p0, const rs_lines *q0,
                            const rs_p1_affine *p1, const rs_lines *q1)
{
    static const int runs[] = { 2, 3, 9, 32, 16 };
    const rs_fp6 *lines[2] = { q0->l, q1->l };
    rs_p1_affine at[2] = { *p0, *p1 };
    rs_fp12 f = *blst_fp12_one();
    rs_fp6 line;

    for (int i = 0; i < 2; i++) {
        blst_fp_add(&at[i].x, &at[i].x, &at[i].x);
        blst_fp_cneg(&at[i].x, &at[i].x, 1);
        blst_fp_add(&at[i].y, &at[i].y, &at[i].y);
    }
#define MULTIPLY_NEXT_LINES                              \
    for (int i = 0; i < 2; i++) {                        \
        line_at(&line, lines[i]++, &at[i]);              \
        blst_fp12_mul_by_xy00z0(&f, &f, &line);          \
    }
    MULTIPLY_NEXT_LINES
    for (size_t run = 0; run < sizeof runs / sizeof *runs; run++) {
        MULTIPLY_NEXT_LINES
        for (int n = runs[run]; n > 0; n--) {
            blst_fp12_sqr(&f, &f);
            MULTIPLY_NEXT_LINES
        }
    }
#undef MULTIPLY_NEXT_LINES
    return product_is_one(&f);
}

bool rs_pairing_check(const rs_p1_affine *ps, const rs_p2_affine *qs, size_t n)
{
    const rs_p1_affine *p[2] = { ps, NULL };
    const rs_p2_affine *q[2] = { qs, NULL };
    rs_fp12 f;
    blst_miller_loop_n(&f, q, p, n);
    return product_is_one(&f);
}

// ---- the target group ----

void rs_gt_pair(rs_fp12 *out, const rs_p1_affine *p, const rs_p2_affine *q)
{
    blst_miller_loop(out, q, p);
    blst_final_exp(out, out);
}

void rs_gt_mul(rs_fp12 *out, const rs_fp12 *a, const rs_fp12 *b) { blst_fp12_mul(out, a, b); }

void rs_gt_invert(rs_fp12 *a) { blst_fp12_conjugate(a); } // the inverse, of an element of the group

// rs_gt_exp multiplies at every bit and keeps the product by mask: time does not depend on k.
void rs_gt_exp(rs_fp12 *out, const rs_fp12 *base, const rs_fr *k)
{
    rs_scalar s;
    rs_fp12 acc = *blst_fp12_one(), product;
    uint64_t *a = (uint64_t *)&acc;
    const uint64_t *p = (const uint64_t *)&product;

    blst_scalar_from_fr(&s, k);
    for (int bit = 254; bit >= 0; bit--) {
        blst_fp12_cyclotomic_sqr(&acc, &acc);
        blst_fp12_mul(&product, &acc, base);
        uint64_t keep = 0 - (uint64_t)(s.b[bit / 8] >> (bit % 8) & 1);
        for (size_t i = 0; i < sizeof acc / sizeof *a; i++)
            a[i] ^= keep & (a[i] ^ p[i]);
    }
    *out = acc;
    wipe(&s, sizeof s);
    wipe(&acc, sizeof acc);
    wipe(&product, sizeof product);
}

void rs_gt_encode(uint8_t out[576], const rs_fp12 *in)
{
    for (size_t i = 0; i < 12; i++)
        blst_bendian_from_fp(out + 48 * i, (const rs_fp *)in + i);
}

bool rs_gt_decode(rs_fp12 *out, const uint8_t in[576])
{
    uint8_t again[576];
    for (size_t i = 0; i < 12; i++)
        blst_fp_from_bendian((rs_fp *)out + i, in + 48 * i);
    rs_gt_encode(again, out); // coordinates that were not reduced come out different
    for (size_t i = 0; i < sizeof again; i++)
        if (again[i] != in[i])
            return false;
    return blst_fp12_in_group(out);
}
