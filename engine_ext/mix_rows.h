/* The inner loops of mix.pyx: one function per row operation, plain C that gcc -O3 vectorises by itself.
 *
 * Each body is compiled twice on x86-64, for the base instruction set and for AVX2, and one table is chosen when the
 * module is imported. Both give the same bits: every operation is one IEEE single rounding per sample and no sum runs
 * across lanes. That needs -ffp-contract=off (setup.py): a fused multiply-add rounds once where the oracle does twice.
 */
#ifndef MASHTUN_MIX_ROWS_H
#define MASHTUN_MIX_ROWS_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    void (*hold)(float *out, const float *in, ptrdiff_t n, float gain);
    void (*ramp)(float *out, const float *in, ptrdiff_t n, float from, float step);
    /* of 16 bits, [0]: samples that follow each other, [1]: every second one */
    void (*hold16[2])(float *out, const int16_t *in, ptrdiff_t n, float gain);
    void (*ramp16[2])(float *out, const int16_t *in, ptrdiff_t n, float from, float step);
    ptrdiff_t (*clip)(float *out, ptrdiff_t n);
} MixRows;

#define MIX_FULL_SCALE (1 / 32768.0f) /* a power of two: exact */

/* A sample, or 0 for NaN and the infinities: the comparison is false for all three. A select, not a branch. */
#define MIX_CLEAN(x) (fabsf(x) <= FLT_MAX ? (x) : 0.0f)

/* out += in * gain */
#define MIX_HOLD(NAME, TARGET)                                                                                         \
    TARGET static void NAME(float *restrict out, const float *restrict in, ptrdiff_t n, float gain) {                  \
        for (ptrdiff_t i = 0; i < n; i++) {                                                                            \
            const float x = in[i];                                                                                     \
            out[i] += MIX_CLEAN(x) * gain;                                                                             \
        }                                                                                                              \
    }

/* out += in * (from + step * i); the 32-bit index is what a vector unit can turn into floats (n <= 2^24, see door). */
#define MIX_RAMP(NAME, TARGET)                                                                                         \
    TARGET static void NAME(float *restrict out, const float *restrict in, ptrdiff_t n, float from, float step) {      \
        const int32_t count = (int32_t)n;                                                                              \
        for (int32_t i = 0; i < count; i++) {                                                                          \
            const float x = in[i];                                                                                     \
            out[i] += MIX_CLEAN(x) * (from + step * (float)i);                                                         \
        }                                                                                                              \
    }

/* The same for samples of 16 bits, GAP of them apart. */
#define MIX_HOLD16(NAME, TARGET, GAP)                                                                                  \
    TARGET static void NAME(float *restrict out, const int16_t *restrict in, ptrdiff_t n, float gain) {                \
        for (ptrdiff_t i = 0; i < n; i++) {                                                                            \
            out[i] += (float)in[GAP * i] * MIX_FULL_SCALE * gain;                                                      \
        }                                                                                                              \
    }

#define MIX_RAMP16(NAME, TARGET, GAP)                                                                                  \
    TARGET static void NAME(float *restrict out, const int16_t *restrict in, ptrdiff_t n, float from, float step) {    \
        const int32_t count = (int32_t)n;                                                                              \
        for (int32_t i = 0; i < count; i++) {                                                                          \
            out[i] += (float)in[GAP * i] * MIX_FULL_SCALE * (from + step * (float)i);                                  \
        }                                                                                                              \
    }

/* out = out limited to [-1, 1], NaN (an overflow that met its opposite) to 0; returns how many samples that changed. */
#define MIX_CLIP(NAME, TARGET)                                                                                         \
    TARGET static ptrdiff_t NAME(float *restrict out, ptrdiff_t n) {                                                   \
        const int32_t count = (int32_t)n;                                                                              \
        int32_t inside = 0;                                                                                            \
        for (int32_t i = 0; i < count; i++) {                                                                          \
            const float s = out[i];                                                                                    \
            inside += fabsf(s) <= 1.0f;                                                                                \
            const float low = s < 1.0f ? s : (s >= 1.0f ? 1.0f : 0.0f);                                                \
            out[i] = low < -1.0f ? -1.0f : low;                                                                        \
        }                                                                                                              \
        return count - inside;                                                                                         \
    }

#define MIX_ROWS(SUFFIX, TARGET)                                                                                       \
    MIX_HOLD(mix_hold_##SUFFIX, TARGET)                                                                                \
    MIX_RAMP(mix_ramp_##SUFFIX, TARGET)                                                                                \
    MIX_HOLD16(mix_hold16_##SUFFIX, TARGET, 1)                                                                         \
    MIX_HOLD16(mix_hold16_second_##SUFFIX, TARGET, 2)                                                                  \
    MIX_RAMP16(mix_ramp16_##SUFFIX, TARGET, 1)                                                                         \
    MIX_RAMP16(mix_ramp16_second_##SUFFIX, TARGET, 2)                                                                  \
    MIX_CLIP(mix_clip_##SUFFIX, TARGET)                                                                                \
    static const MixRows mix_rows_##SUFFIX = {                                                                         \
        mix_hold_##SUFFIX,                                                                                             \
        mix_ramp_##SUFFIX,                                                                                             \
        {mix_hold16_##SUFFIX, mix_hold16_second_##SUFFIX},                                                             \
        {mix_ramp16_##SUFFIX, mix_ramp16_second_##SUFFIX},                                                             \
        mix_clip_##SUFFIX,                                                                                             \
    };

MIX_ROWS(plain, )

#if defined(__x86_64__) && defined(__GNUC__)
MIX_ROWS(avx2, __attribute__((target("avx2"))))
#endif

/* The AVX2 rows, or NULL where this processor has none. */
static const MixRows *mix_rows_wide(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) {
        return &mix_rows_avx2;
    }
#endif
    return NULL;
}

#endif
