/* The inner loops of effect.pyx: one function per row operation, plain C that gcc -O3 vectorises by itself.
 *
 * Each body is compiled twice on x86-64, for the base instruction set and for AVX2, and one table is chosen when the
 * module is imported. Both give the same bits: every operation is one IEEE single rounding per sample and no sum runs
 * across samples. That needs -ffp-contract=off (setup.py): a fused multiply-add rounds once where the oracle does twice.
 */
#ifndef MASHTUN_EFFECT_ROWS_H
#define MASHTUN_EFFECT_ROWS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* R'G'B' and alpha of the samples of a row, 0...1. */
typedef struct {
    float *r, *g, *b, *a;
} Channels;

typedef struct {
    void (*scale)(float *out, const uint8_t *row, ptrdiff_t n, float shift, float factor);
    void (*mean)(float *out, const uint8_t *upper, const uint8_t *lower, ptrdiff_t n, float shift, float factor);
    void (*convolve)(uint8_t *out, const float *a, const float *b, const float *c, ptrdiff_t n, const float *m,
                     float offset);
    void (*split)(Channels *out, const float *l, const float *cb, const float *cr, ptrdiff_t n);
    void (*mix)(Channels *out, const Channels *in, ptrdiff_t n, const float *m);
    void (*luma)(uint8_t *out, const Channels *in, ptrdiff_t n);
    void (*alpha)(uint8_t *out, const Channels *in, ptrdiff_t n);
    void (*chroma)(uint8_t *u, uint8_t *v, const Channels *in, ptrdiff_t n);
    void (*distance)(float *out, const uint8_t *u, const uint8_t *v, ptrdiff_t n, float cb, float cr);
    void (*key)(uint8_t *a, const float *above, const float *here, const float *below, ptrdiff_t n, float similarity,
                float blend);
    void (*tint)(int32_t *out, const uint8_t *u, const uint8_t *v, ptrdiff_t n);
    void (*level)(uint8_t *out, const uint8_t *y, const int32_t *tint, ptrdiff_t n);
    void (*veil)(uint8_t *plane, const uint8_t *mask, ptrdiff_t n);
} EffectRows;

#define EFFECT_BODY static inline __attribute__((always_inline))

EFFECT_BODY float effect_unit(float value) {
    value = value > 0.0f ? value : 0.0f;
    return value < 1.0f ? value : 1.0f;
}

EFFECT_BODY uint8_t effect_byte(float value) {
    value = value > 0.0f ? value : 0.0f;
    return (uint8_t)(int32_t)(value < 255.0f ? value : 255.0f);
}

/* out = (row + shift) * factor */
EFFECT_BODY void effect_scale(float *restrict out, const uint8_t *restrict row, ptrdiff_t n, float shift,
                              float factor) {
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = ((float)row[i] + shift) * factor;
}

/* out = (mean of every second sample of two rows + shift) * factor; n of them */
EFFECT_BODY void effect_mean(float *restrict out, const uint8_t *restrict upper, const uint8_t *restrict lower,
                             ptrdiff_t n, float shift, float factor) {
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = (0.5f * (float)(upper[2 * i] + lower[2 * i]) + shift) * factor;
}

/* a, b, c: rows that begin one sample before out */
EFFECT_BODY void effect_convolve(uint8_t *restrict out, const float *restrict a, const float *restrict b,
                                 const float *restrict c, ptrdiff_t n, const float *restrict m, float offset) {
    const float m0 = m[0], m1 = m[1], m2 = m[2], m3 = m[3], m4 = m[4], m5 = m[5], m6 = m[6], m7 = m[7], m8 = m[8];
    for (ptrdiff_t i = 0; i < n; i++) {
        const float above = m0 * a[i] + m1 * a[i + 1] + m2 * a[i + 2];
        const float here = above + m3 * b[i] + m4 * b[i + 1] + m5 * b[i + 2];
        out[i] = effect_byte(here + m6 * c[i] + m7 * c[i + 1] + m8 * c[i + 2] + offset);
    }
}

EFFECT_BODY void effect_split(Channels *out, const float *restrict l, const float *restrict cb,
                              const float *restrict cr, ptrdiff_t n) {
    float *restrict r = out->r, *restrict g = out->g, *restrict b = out->b;
    for (ptrdiff_t i = 0; i < n; i++) {
        r[i] = effect_unit(l[i] + 1.5748f * cr[i]);
        g[i] = effect_unit(l[i] - 0.46812427f * cr[i] - 0.18732427f * cb[i]);
        b[i] = effect_unit(l[i] + 1.8556f * cb[i]);
    }
}

/* One row of the matrix. A loop for each: gcc makes branches of limits that something is computed from. */
EFFECT_BODY void effect_weigh(float *restrict out, const Channels *in, ptrdiff_t n, const float *m) {
    const float *restrict r = in->r, *restrict g = in->g, *restrict b = in->b, *restrict a = in->a;
    const float m0 = m[0], m1 = m[1], m2 = m[2], m3 = m[3];
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = effect_unit(m0 * r[i] + m1 * g[i] + m2 * b[i] + m3 * a[i]);
}

EFFECT_BODY void effect_mix(Channels *out, const Channels *in, ptrdiff_t n, const float *m) {
    effect_weigh(out->r, in, n, m);
    effect_weigh(out->g, in, n, m + 4);
    effect_weigh(out->b, in, n, m + 8);
    effect_weigh(out->a, in, n, m + 12);
}

/* What is within 0...1 needs no other limit. */
EFFECT_BODY void effect_luma(uint8_t *restrict out, const Channels *in, ptrdiff_t n) {
    const float *restrict r = in->r, *restrict g = in->g, *restrict b = in->b;
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = (uint8_t)(int32_t)((0.2126f * r[i] + 0.7152f * g[i] + 0.0722f * b[i]) * 219.0f + 16.5f);
}

EFFECT_BODY void effect_alpha(uint8_t *restrict out, const Channels *in, ptrdiff_t n) {
    const float *restrict a = in->a;
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = (uint8_t)(int32_t)(a[i] * 255.0f + 0.5f);
}

EFFECT_BODY void effect_chroma(uint8_t *restrict u, uint8_t *restrict v, const Channels *in, ptrdiff_t n) {
    const float *restrict r = in->r, *restrict g = in->g, *restrict b = in->b;
    for (ptrdiff_t i = 0; i < n; i++) {
        const float luma = 0.2126f * r[i] + 0.7152f * g[i] + 0.0722f * b[i];
        u[i] = (uint8_t)(int32_t)((b[i] - luma) * 120.715674f + 128.5f);
        v[i] = (uint8_t)(int32_t)((r[i] - luma) * 142.24028f + 128.5f);
    }
}

EFFECT_BODY void effect_distance(float *restrict out, const uint8_t *restrict u, const uint8_t *restrict v, ptrdiff_t n,
                                 float cb, float cr) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const float p = (float)u[i] - 128.0f, q = (float)v[i] - 128.0f;
        const float x = 0.98986f * p - 0.11065f * q + cb, y = 0.98338f * q - 0.07245f * p + cr;
        out[i] = sqrtf(x * x + y * y);
    }
}

EFFECT_BODY void effect_key(uint8_t *restrict a, const float *restrict above, const float *restrict here,
                            const float *restrict below, ptrdiff_t n, float similarity, float blend) {
    const float whole = (float)(1.0 / 3245.6201), slope = blend > 0.0001f ? 1.0f / blend : 0.0f;
    if (slope > 0.0f) {
        for (ptrdiff_t i = 0; i < n; i++) {
            int32_t share = (int32_t)(((above[i] + here[i] + below[i]) * whole - similarity) * slope * 255.0f);
            share = share > 0 ? share : 0;
            share = share < 255 ? share : 255;
            const uint16_t t = (uint16_t)(a[i] * share + 128);
            a[i] = (uint8_t)((uint16_t)(t + (t >> 8)) >> 8);
        }
    } else {
        for (ptrdiff_t i = 0; i < n; i++)
            a[i] = (above[i] + here[i] + below[i]) * whole - similarity > 0.0f ? a[i] : 0;
    }
}

/* What chroma adds to the luma of BT.601, 16 fraction bits, the half that rounds with it. */
EFFECT_BODY void effect_tint(int32_t *restrict out, const uint8_t *restrict u, const uint8_t *restrict v, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = 14628 * (v[i] - 128) + 7578 * (u[i] - 128) + 32768;
}

EFFECT_BODY void effect_level(uint8_t *restrict out, const uint8_t *restrict y, const int32_t *restrict tint,
                              ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        int32_t m = (76309 * (y[i] - 16) + tint[i]) >> 16;
        m = m > 0 ? m : 0;
        out[i] = (uint8_t)(m < 255 ? m : 255);
    }
}

EFFECT_BODY void effect_veil(uint8_t *restrict plane, const uint8_t *restrict mask, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const uint16_t t = (uint16_t)(plane[i] * mask[i] + 128);
        plane[i] = (uint8_t)((uint16_t)(t + (t >> 8)) >> 8);
    }
}

/* Every body once more for an instruction set, and the table of them. */
#define EFFECT_ROW(SUFFIX, TARGET, NAME, PARAMETERS, ARGUMENTS)                                                        \
    TARGET static void effect_##NAME##_##SUFFIX PARAMETERS { effect_##NAME ARGUMENTS; }

#define EFFECT_ROWS(SUFFIX, TARGET)                                                                                    \
    EFFECT_ROW(SUFFIX, TARGET, scale, (float *out, const uint8_t *row, ptrdiff_t n, float shift, float factor),        \
               (out, row, n, shift, factor))                                                                           \
    EFFECT_ROW(SUFFIX, TARGET, mean, (float *out, const uint8_t *upper, const uint8_t *lower, ptrdiff_t n,             \
               float shift, float factor), (out, upper, lower, n, shift, factor))                                      \
    EFFECT_ROW(SUFFIX, TARGET, convolve, (uint8_t *out, const float *a, const float *b, const float *c, ptrdiff_t n,   \
               const float *m, float offset), (out, a, b, c, n, m, offset))                                            \
    EFFECT_ROW(SUFFIX, TARGET, split, (Channels *out, const float *l, const float *cb, const float *cr, ptrdiff_t n),  \
               (out, l, cb, cr, n))                                                                                    \
    EFFECT_ROW(SUFFIX, TARGET, mix, (Channels *out, const Channels *in, ptrdiff_t n, const float *m), (out, in, n, m)) \
    EFFECT_ROW(SUFFIX, TARGET, luma, (uint8_t *out, const Channels *in, ptrdiff_t n), (out, in, n))                    \
    EFFECT_ROW(SUFFIX, TARGET, alpha, (uint8_t *out, const Channels *in, ptrdiff_t n), (out, in, n))                   \
    EFFECT_ROW(SUFFIX, TARGET, chroma, (uint8_t *u, uint8_t *v, const Channels *in, ptrdiff_t n), (u, v, in, n))       \
    EFFECT_ROW(SUFFIX, TARGET, distance, (float *out, const uint8_t *u, const uint8_t *v, ptrdiff_t n, float cb,       \
               float cr), (out, u, v, n, cb, cr))                                                                      \
    EFFECT_ROW(SUFFIX, TARGET, key, (uint8_t *a, const float *above, const float *here, const float *below,            \
               ptrdiff_t n, float similarity, float blend), (a, above, here, below, n, similarity, blend))             \
    EFFECT_ROW(SUFFIX, TARGET, tint, (int32_t *out, const uint8_t *u, const uint8_t *v, ptrdiff_t n), (out, u, v, n))  \
    EFFECT_ROW(SUFFIX, TARGET, level, (uint8_t *out, const uint8_t *y, const int32_t *tint, ptrdiff_t n),              \
               (out, y, tint, n))                                                                                      \
    EFFECT_ROW(SUFFIX, TARGET, veil, (uint8_t *plane, const uint8_t *mask, ptrdiff_t n), (plane, mask, n))             \
    static const EffectRows effect_rows_##SUFFIX = {                                                                   \
        effect_scale_##SUFFIX, effect_mean_##SUFFIX, effect_convolve_##SUFFIX, effect_split_##SUFFIX,                  \
        effect_mix_##SUFFIX, effect_luma_##SUFFIX, effect_alpha_##SUFFIX, effect_chroma_##SUFFIX,                      \
        effect_distance_##SUFFIX, effect_key_##SUFFIX, effect_tint_##SUFFIX, effect_level_##SUFFIX,                    \
        effect_veil_##SUFFIX,                                                                                          \
    };

EFFECT_ROWS(plain, )

#if defined(__x86_64__) && defined(__GNUC__)
EFFECT_ROWS(avx2, __attribute__((target("avx2"))))
static const EffectRows *effect_rows_wide(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") ? &effect_rows_avx2 : NULL;
}
#else
static const EffectRows *effect_rows_wide(void) { return NULL; }
#endif

#endif
