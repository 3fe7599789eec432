#include "blst.h"

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
    wipe(&t, sizeof t);
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

// mul_small multiplies acc by a number given as magnitude and sign.
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
