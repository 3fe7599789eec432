#include "blst.h"

void rs_g1_mult(rs_p1_affine *out, const rs_p1_affine *base, const rs_fr *k)
{
    rs_scalar s;
    rs_p1 p;
    blst_scalar_from_fr(&s, k);
    blst_p1_from_affine(&p, base);
    blst_p1_mult(&p, &p, s.b, 255);
    blst_p1_to_affine(out, &p);
    wipe(&s, sizeof s);
    wipe(&p, sizeof p);
    wipe_stack();
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
    wipe(&p, sizeof p);
    wipe_stack();
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
// 16, one addition from the table for each. The additions are complete: the sum so far may equal what is
// added (for k = 14*16^63 mod r the last one doubles), and who chooses k would choose that one.
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
        blst_p1_add_or_double_affine(out, out, &multiple);
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
    wipe(scratch, n * sizeof *scratch);
    wipe_stack();
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
    wipe(scratch, n * sizeof *scratch);
    wipe_stack();
}

size_t rs_g1_msm_scratch(size_t n) { return blst_p1s_mult_pippenger_scratch_sizeof(n); }
size_t rs_g2_msm_scratch(size_t n) { return blst_p2s_mult_pippenger_scratch_sizeof(n); }

// of_order_three: the points of E(Fp) with x = 0. The order of E(Fp) has no other prime factor below 11.
static bool of_order_three(const rs_p1_affine *p)
{
    uint64_t x = 0, y = 0;
    for (int i = 0; i < 6; i++) {
        x |= p->x.l[i];
        y |= p->y.l[i];
    }
    return x == 0 && y != 0;
}

// msm_plain is bit by bit and complete whatever the points are.
static void msm_plain(rs_p1 *sum, const rs_p1_affine *points, const uint8_t *scalars, size_t n, size_t nbits)
{
    size_t stride = (nbits + 7) / 8;
    for (size_t i = 0; i < sizeof *sum; i++)
        ((uint8_t *)sum)[i] = 0;
    for (size_t bit = nbits; bit-- > 0;) {
        blst_p1_double(sum, sum);
        for (size_t i = 0; i < n; i++)
            if (scalars[i * stride + bit / 8] >> (bit % 8) & 1)
                blst_p1_add_or_double_affine(sum, sum, &points[i]);
    }
}

// rs_g1_msm takes any points of the curve. blst's tables, of up to 8 multiples of every point and brought
// to affine coordinates by one inversion for all, are complete unless a multiple other than of infinity is
// infinity: one point of order three in them would make all sums wrong.
void rs_g1_msm(rs_p1_affine *out, const rs_p1_affine *points, const uint8_t *scalars,
               size_t n, size_t nbits, uint64_t *scratch)
{
    for (size_t i = 0; i < n; i++)
        if (of_order_three(&points[i])) {
            rs_p1 sum;
            msm_plain(&sum, points, scalars, n, nbits);
            blst_p1_to_affine(out, &sum);
            return;
        }
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

void rs_g2_combine(rs_p2_affine *out, rs_p2_affine *points, const uint8_t *scalars, const bool *negative,
                   size_t n, size_t nbits, const rs_fr *factor, uint64_t *scratch)
{
    if (negative)
        for (size_t i = 0; i < n; i++)
            for (int c = 0; c < 2; c++)
                blst_fp_cneg(&points[i].y.c[c], &points[i].y.c[c], negative[i]);
    rs_g2_msm(out, points, scalars, n, nbits, scratch);
    if (factor)
        rs_g2_mult(out, out, factor);
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
    wipe(&p, sizeof p);
    wipe_stack();
}
