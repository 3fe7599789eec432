#include "blst.h"

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
    wipe_stack();
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
