/* The inner loops of composite.pyx: one function per row operation, in plain C and, on x86-64, by hand for AVX2.
 *
 * Both give the same bits; one table of them is chosen when the module is imported. The meaning of every operation is
 * in the theory of operation of composite.pyx. Rules that hold for all: n >= 0, out overlaps no input unless said,
 * nothing is read or written outside the n samples named (a row may end where a page ends). An AVX2 row below one
 * vector of samples is given to the plain one; else its last vector ends at sample n and overlaps the one before.
 * Operations that may paint in place compute that last vector before the loop, while its samples are unpainted.
 */
#ifndef MASHTUN_COMPOSITE_ROWS_H
#define MASHTUN_COMPOSITE_ROWS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Samples to read, and how many bytes from there those lie that will be read a few rows later. These are asked for in
 * passing: processors foresee no more than a page of 4096 bytes, two rows, and then wait for memory. */
typedef struct {
    const uint8_t *at;
    ptrdiff_t ahead;
} Row;

/* Where every output of a row finds its two neighbours, in groups of 8 outputs, to a multiple of 4 groups. */
typedef struct {
    int32_t *window;   /* [2] per group: the first of the 16 samples that outputs 0-3, and 4-7, look at */
    uint8_t *pair;     /* [8][2] per group: left and right neighbour within the window */
    int16_t *fraction; /* [8] per group: 15-bit weight of the right neighbour */
} Taps;

typedef struct {
    /* out = src */
    void (*copy)(uint8_t *out, Row src, ptrdiff_t n);
    /* out = between p and q at f (15 bits); f = 0x4000 is their average, rounded up */
    void (*lerp)(uint8_t *out, Row p, Row q, int f, ptrdiff_t n);
    /* out[i] = between row[2i] and row[2i+1] at f */
    void (*halve)(uint8_t *out, Row row, int f, ptrdiff_t n);
    /* out[i] = between the neighbours that taps name; that many (4, 8, 16) successive outputs share a window.
     * Reads 16 samples at every window. */
    void (*gather)(uint8_t *out, Row row, const Taps *taps, int shared, ptrdiff_t n);
    /* out = src over dst at a constant alpha; here and in the next two out may be dst, or else overlaps nothing */
    void (*blend)(uint8_t *out, Row dst, Row src, int alpha, ptrdiff_t n);
    /* out = src over dst at div255(mask * alpha) */
    void (*mask)(uint8_t *out, Row dst, Row src, Row mask, int alpha, ptrdiff_t n);
    /* out = src, premultiplied by `mask`, over dst at alpha; limited to 255 */
    void (*group)(uint8_t *out, Row dst, Row src, Row mask, int alpha, ptrdiff_t n);
    /* out[i] = average of 2 × 2 samples of p and q */
    void (*box)(uint8_t *out, Row p, Row q, ptrdiff_t n);
    /* sums += row */
    void (*add)(uint32_t *sums, Row row, ptrdiff_t n);
    /* sums[i] = sums[2i] + sums[2i+1], in place */
    void (*fold)(uint32_t *sums, ptrdiff_t n);
    /* out = sums / 2^shift, rounded half up; shift >= 1 */
    void (*average)(uint8_t *out, const uint32_t *sums, int shift, ptrdiff_t n);
} PictureRows;

/* The next block of rows that nobody has taken. */
static inline ptrdiff_t take_block(ptrdiff_t *next) { return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED); }

/* --- plain C ------------------------------------------------------------------------------------------------------ */

/* 16-bit types wherever the values fit: a vector holds twice as many, and SSE2 and NEON can multiply them. */
static inline uint16_t div255(uint16_t t)
{
    t = (uint16_t)(t + 128);
    return (uint16_t)((uint16_t)(t + (t >> 8)) >> 8);
}

static inline uint8_t between(int16_t p, int16_t q, int16_t f)
{
    const int16_t apart = (int16_t)(q - p);
    return (uint8_t)(p + ((apart * f + 0x4000) >> 15));
}

static inline uint8_t over(uint8_t src, uint8_t dst, uint16_t alpha)
{
    return (uint8_t)div255((uint16_t)((uint16_t)(src * alpha) + (uint16_t)(dst * (uint16_t)(255 - alpha))));
}

static void plain_copy(uint8_t *restrict out, Row src, ptrdiff_t n) { memcpy(out, src.at, (size_t)n); }

static void plain_lerp(uint8_t *restrict out, Row p, Row q, int f, ptrdiff_t n)
{
    const uint8_t *a = p.at, *b = q.at;
    const int16_t fraction = (int16_t)f;
    if (f == 0x4000) /* half size, mostly: four times as fast */
        for (ptrdiff_t i = 0; i < n; i++)
            out[i] = (uint8_t)((a[i] + b[i] + 1) >> 1);
    else
        for (ptrdiff_t i = 0; i < n; i++)
            out[i] = between(a[i], b[i], fraction);
}

static void plain_halve(uint8_t *restrict out, Row row, int f, ptrdiff_t n)
{
    const int16_t fraction = (int16_t)f;
    if (f == 0x4000)
        for (ptrdiff_t i = 0; i < n; i++)
            out[i] = (uint8_t)((row.at[2 * i] + row.at[2 * i + 1] + 1) >> 1);
    else
        for (ptrdiff_t i = 0; i < n; i++)
            out[i] = between(row.at[2 * i], row.at[2 * i + 1], fraction);
}

static void plain_gather(uint8_t *restrict out, Row row, const Taps *taps, int shared, ptrdiff_t n)
{
    (void)shared;
    for (ptrdiff_t block = 0; block < n; block += 4) {
        const uint8_t *window = row.at + taps->window[block >> 2], *pair = taps->pair + 2 * block;
        const ptrdiff_t count = n - block < 4 ? n - block : 4;
        for (ptrdiff_t i = 0; i < count; i++)
            out[block + i] = between(window[pair[2 * i]], window[pair[2 * i + 1]], taps->fraction[block + i]);
    }
}

/* ivdep: out is dst sample for sample, or far away */
static void plain_blend(uint8_t *out, Row dst, Row src, int alpha, ptrdiff_t n)
{
    const uint8_t *d = dst.at, *s = src.at;
    const uint16_t a = (uint16_t)alpha;
    _Pragma("GCC ivdep") for (ptrdiff_t i = 0; i < n; i++)
        out[i] = over(s[i], d[i], a);
}

static void plain_mask(uint8_t *out, Row dst, Row src, Row mask, int alpha, ptrdiff_t n)
{
    const uint8_t *d = dst.at, *s = src.at, *m = mask.at;
    const uint16_t a = (uint16_t)alpha;
    _Pragma("GCC ivdep") for (ptrdiff_t i = 0; i < n; i++)
        out[i] = over(s[i], d[i], div255((uint16_t)(m[i] * a)));
}

static void plain_group(uint8_t *out, Row dst, Row src, Row mask, int alpha, ptrdiff_t n)
{
    const uint8_t *d = dst.at, *s = src.at, *m = mask.at;
    _Pragma("GCC ivdep") for (ptrdiff_t i = 0; i < n; i++) {
        const uint32_t rest = 255u - div255((uint16_t)(m[i] * alpha));
        const uint32_t sum = (uint32_t)s[i] * (uint32_t)alpha + d[i] * rest + 128;
        const uint32_t value = (sum + (sum >> 8)) >> 8;
        out[i] = (uint8_t)(value < 255 ? value : 255);
    }
}

static void plain_box(uint8_t *restrict out, Row p, Row q, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = (uint8_t)((p.at[2 * i] + p.at[2 * i + 1] + q.at[2 * i] + q.at[2 * i + 1] + 2) >> 2);
}

static void plain_add(uint32_t *restrict sums, Row row, ptrdiff_t n)
{
    const uint8_t *restrict at = row.at;
    for (ptrdiff_t i = 0; i < n; i++)
        sums[i] += at[i];
}

static void plain_fold(uint32_t *sums, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        sums[i] = sums[2 * i] + sums[2 * i + 1];
}

static void plain_average(uint8_t *restrict out, const uint32_t *restrict sums, int shift, ptrdiff_t n)
{
    const uint32_t half = UINT32_C(1) << (shift - 1);
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = (uint8_t)((sums[i] + half) >> shift);
}

static const PictureRows plain_rows = {plain_copy,  plain_lerp, plain_halve, plain_gather, plain_blend,  plain_mask,
                                       plain_group, plain_box,  plain_add,   plain_fold,   plain_average};

/* --- AVX2 --------------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))
#define AVX2_INLINE __attribute__((target("avx2"), always_inline)) static inline

AVX2_INLINE __m256i load32(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
AVX2_INLINE void store32(uint8_t *p, __m256i v) { _mm256_storeu_si256((__m256i *)p, v); }
AVX2_INLINE void ask(Row row, ptrdiff_t i) { _mm_prefetch((const char *)row.at + row.ahead + i, _MM_HINT_T0); }
AVX2_INLINE __m256i low16(__m256i v) { return _mm256_unpacklo_epi8(v, _mm256_setzero_si256()); }
AVX2_INLINE __m256i high16(__m256i v) { return _mm256_unpackhi_epi8(v, _mm256_setzero_si256()); }

/* Two vectors of 16 words, in order, to 32 bytes, in order (packing works within halves). */
AVX2_INLINE __m256i pack32(__m256i a, __m256i b)
{
    return _mm256_permute4x64_epi64(_mm256_packus_epi16(a, b), _MM_SHUFFLE(3, 1, 2, 0));
}

/* mulhrs is (x * f + 0x4000) >> 15, the very rounding of between(). */
AVX2_INLINE __m256i between16(__m256i p, __m256i q, __m256i f)
{
    return _mm256_add_epi16(p, _mm256_mulhrs_epi16(_mm256_sub_epi16(q, p), f));
}

/* The same for p and q side by side: multiplied by -1 and 1 they add up to q - p. */
AVX2_INLINE __m256i pairs16(__m256i pairs, __m256i f)
{
    const __m256i apart = _mm256_maddubs_epi16(pairs, _mm256_set1_epi16(0x01FF));
    return _mm256_add_epi16(_mm256_and_si256(pairs, _mm256_set1_epi16(255)), _mm256_mulhrs_epi16(apart, f));
}

/* (t + 128) * 257 >> 16 is div255 in one multiplication; saturated sums come out as 256, which packing limits. */
AVX2_INLINE __m256i div255_16(__m256i t)
{
    return _mm256_mulhi_epu16(_mm256_adds_epu16(t, _mm256_set1_epi16(128)), _mm256_set1_epi16(257));
}

AVX2 static void avx2_copy(uint8_t *restrict out, Row src, ptrdiff_t n)
{
    if (n < 32) {
        plain_copy(out, src, n);
        return;
    }
    for (ptrdiff_t i = 0; i < n - 32; i += 32) {
        ask(src, i);
        store32(out + i, load32(src.at + i));
    }
    store32(out + n - 32, load32(src.at + n - 32));
}

AVX2_INLINE __m256i lerp32(Row p, Row q, ptrdiff_t i, __m256i f)
{
    const __m256i a = load32(p.at + i), b = load32(q.at + i);
    return _mm256_packus_epi16(between16(low16(a), low16(b), f), between16(high16(a), high16(b), f));
}

AVX2_INLINE __m256i middle32(Row p, Row q, ptrdiff_t i) { return _mm256_avg_epu8(load32(p.at + i), load32(q.at + i)); }

AVX2 static void avx2_lerp(uint8_t *restrict out, Row p, Row q, int f, ptrdiff_t n)
{
    const __m256i fraction = _mm256_set1_epi16((int16_t)f);
    if (n < 32) {
        plain_lerp(out, p, q, f, n);
    } else if (f == 0x4000) {
        for (ptrdiff_t i = 0; i < n - 32; i += 32) {
            ask(p, i);
            ask(q, i);
            store32(out + i, middle32(p, q, i));
        }
        store32(out + n - 32, middle32(p, q, n - 32));
    } else {
        for (ptrdiff_t i = 0; i < n - 32; i += 32) {
            ask(p, i);
            ask(q, i);
            store32(out + i, lerp32(p, q, i, fraction));
        }
        store32(out + n - 32, lerp32(p, q, n - 32, fraction));
    }
}

/* At the middle, two additions do what three, a shift and a multiplication do elsewhere. */
AVX2_INLINE __m256i middle16(__m256i pairs)
{
    return _mm256_avg_epu16(_mm256_maddubs_epi16(pairs, _mm256_set1_epi8(1)), _mm256_setzero_si256());
}

AVX2 static void avx2_halve(uint8_t *restrict out, Row row, int f, ptrdiff_t n)
{
    const __m256i fraction = _mm256_set1_epi16((int16_t)f);
    if (n < 32) {
        plain_halve(out, row, f, n);
        return;
    }
    for (ptrdiff_t i = 0;; i += 32) {
        i = i < n - 32 ? i : n - 32;
        const __m256i a = load32(row.at + 2 * i), b = load32(row.at + 2 * i + 32);
        ask(row, 2 * i);
        if (f == 0x4000)
            store32(out + i, pack32(middle16(a), middle16(b)));
        else
            store32(out + i, pack32(pairs16(a, fraction), pairs16(b, fraction)));
        if (i == n - 32)
            return;
    }
}

AVX2_INLINE __m128i window16(Row row, const int32_t *window)
{
    return _mm_loadu_si128((const __m128i *)(row.at + *window));
}

AVX2_INLINE __m256i windows16(Row row, const int32_t *low, const int32_t *high)
{
    return _mm256_set_m128i(window16(row, high), window16(row, low));
}

/* 16 outputs of two groups, as words */
AVX2_INLINE __m256i gather16(Row row, const Taps *taps, int shared, ptrdiff_t group)
{
    const int32_t *window = taps->window + 2 * group;
    const __m256i pair = load32(taps->pair + 16 * group);
    const __m256i fraction = _mm256_loadu_si256((const __m256i *)(taps->fraction + 8 * group));
    __m256i pairs;
    if (shared == 16)
        pairs = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(window16(row, window)), pair);
    else
        pairs = _mm256_shuffle_epi8(windows16(row, window, window + 2), pair);
    if (shared == 4) {
        const __m256i others = _mm256_shuffle_epi8(windows16(row, window + 1, window + 3), pair);
        pairs = _mm256_blend_epi32(pairs, others, 0xCC);
    }
    ask(row, window[0]);
    return pairs16(pairs, fraction);
}

AVX2_INLINE __m256i gather32(Row row, const Taps *taps, int shared, ptrdiff_t i)
{
    return pack32(gather16(row, taps, shared, i / 8), gather16(row, taps, shared, i / 8 + 2));
}

AVX2_INLINE void gather_row(uint8_t *restrict out, Row row, const Taps *taps, int shared, ptrdiff_t n)
{
    uint8_t last[32];
    ptrdiff_t i = 0;
    for (; i <= n - 32; i += 32)
        store32(out + i, gather32(row, taps, shared, i));
    if (i < n) {
        store32(last, gather32(row, taps, shared, i));
        memcpy(out + i, last, (size_t)(n - i));
    }
}

AVX2 static void avx2_gather(uint8_t *restrict out, Row row, const Taps *taps, int shared, ptrdiff_t n)
{
    if (shared == 16)
        gather_row(out, row, taps, 16, n);
    else if (shared == 8)
        gather_row(out, row, taps, 8, n);
    else
        gather_row(out, row, taps, 4, n);
}

AVX2_INLINE __m256i over16(__m256i src, __m256i dst, __m256i a)
{
    const __m256i rest = _mm256_sub_epi16(_mm256_set1_epi16(255), a);
    return div255_16(_mm256_add_epi16(_mm256_mullo_epi16(src, a), _mm256_mullo_epi16(dst, rest)));
}

AVX2_INLINE __m256i blend32(Row dst, Row src, ptrdiff_t i, __m256i alpha)
{
    const __m256i d = load32(dst.at + i), s = load32(src.at + i);
    return _mm256_packus_epi16(over16(low16(s), low16(d), alpha), over16(high16(s), high16(d), alpha));
}

AVX2 static void avx2_blend(uint8_t *out, Row dst, Row src, int alpha, ptrdiff_t n)
{
    const __m256i a = _mm256_set1_epi16((int16_t)alpha);
    if (n < 32) {
        plain_blend(out, dst, src, alpha, n);
        return;
    }
    const __m256i last = blend32(dst, src, n - 32, a);
    for (ptrdiff_t i = 0; i < n - 32; i += 32) {
        ask(dst, i);
        ask(src, i);
        store32(out + i, blend32(dst, src, i, a));
    }
    store32(out + n - 32, last);
}

AVX2_INLINE __m256i mask32(Row dst, Row src, Row mask, ptrdiff_t i, __m256i alpha)
{
    const __m256i d = load32(dst.at + i), s = load32(src.at + i), m = load32(mask.at + i);
    const __m256i low = div255_16(_mm256_mullo_epi16(low16(m), alpha));
    const __m256i high = div255_16(_mm256_mullo_epi16(high16(m), alpha));
    return _mm256_packus_epi16(over16(low16(s), low16(d), low), over16(high16(s), high16(d), high));
}

AVX2 static void avx2_mask(uint8_t *out, Row dst, Row src, Row mask, int alpha, ptrdiff_t n)
{
    const __m256i a = _mm256_set1_epi16((int16_t)alpha);
    if (n < 32) {
        plain_mask(out, dst, src, mask, alpha, n);
        return;
    }
    const __m256i last = mask32(dst, src, mask, n - 32, a);
    for (ptrdiff_t i = 0; i < n - 32; i += 32) {
        ask(dst, i);
        ask(src, i);
        ask(mask, i);
        store32(out + i, mask32(dst, src, mask, i, a));
    }
    store32(out + n - 32, last);
}

AVX2_INLINE __m256i group16(__m256i src, __m256i dst, __m256i mask, __m256i alpha)
{
    const __m256i rest = _mm256_sub_epi16(_mm256_set1_epi16(255), div255_16(_mm256_mullo_epi16(mask, alpha)));
    return div255_16(_mm256_adds_epu16(_mm256_mullo_epi16(src, alpha), _mm256_mullo_epi16(dst, rest)));
}

AVX2_INLINE __m256i group32(Row dst, Row src, Row mask, ptrdiff_t i, __m256i alpha)
{
    const __m256i d = load32(dst.at + i), s = load32(src.at + i), m = load32(mask.at + i);
    return _mm256_packus_epi16(group16(low16(s), low16(d), low16(m), alpha),
                               group16(high16(s), high16(d), high16(m), alpha));
}

AVX2 static void avx2_group(uint8_t *out, Row dst, Row src, Row mask, int alpha, ptrdiff_t n)
{
    const __m256i a = _mm256_set1_epi16((int16_t)alpha);
    if (n < 32) {
        plain_group(out, dst, src, mask, alpha, n);
        return;
    }
    const __m256i last = group32(dst, src, mask, n - 32, a);
    for (ptrdiff_t i = 0; i < n - 32; i += 32) {
        ask(dst, i);
        ask(src, i);
        ask(mask, i);
        store32(out + i, group32(dst, src, mask, i, a));
    }
    store32(out + n - 32, last);
}

AVX2_INLINE __m256i box16(Row p, Row q, ptrdiff_t i)
{
    const __m256i one = _mm256_set1_epi8(1), a = load32(p.at + i), b = load32(q.at + i);
    const __m256i sum = _mm256_add_epi16(_mm256_maddubs_epi16(a, one), _mm256_maddubs_epi16(b, one));
    return _mm256_srli_epi16(_mm256_add_epi16(sum, _mm256_set1_epi16(2)), 2);
}

AVX2 static void avx2_box(uint8_t *restrict out, Row p, Row q, ptrdiff_t n)
{
    if (n < 32) {
        plain_box(out, p, q, n);
        return;
    }
    for (ptrdiff_t i = 0;; i += 32) {
        i = i < n - 32 ? i : n - 32;
        ask(p, 2 * i);
        ask(q, 2 * i);
        store32(out + i, pack32(box16(p, q, 2 * i), box16(p, q, 2 * i + 32)));
        if (i == n - 32)
            return;
    }
}

AVX2 static void avx2_add(uint32_t *restrict sums, Row row, ptrdiff_t n)
{
    ptrdiff_t i = 0;
    for (; i + 32 <= n; i += 32) {
        ask(row, i);
        for (int j = 0; j < 32; j += 8) {
            __m256i *sum = (__m256i *)(sums + i + j);
            const __m128i part = _mm_loadl_epi64((const __m128i *)(row.at + i + j));
            _mm256_storeu_si256(sum, _mm256_add_epi32(_mm256_loadu_si256(sum), _mm256_cvtepu8_epi32(part)));
        }
    }
    plain_add(sums + i, (Row){row.at + i, 0}, n - i);
}

AVX2 static void avx2_fold(uint32_t *sums, ptrdiff_t n)
{
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i a = _mm256_loadu_si256((const __m256i *)(sums + 2 * i));
        const __m256i b = _mm256_loadu_si256((const __m256i *)(sums + 2 * i + 8));
        const __m256i folded = _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), _MM_SHUFFLE(3, 1, 2, 0));
        _mm256_storeu_si256((__m256i *)(sums + i), folded);
    }
    for (; i < n; i++)
        sums[i] = sums[2 * i] + sums[2 * i + 1];
}

static const PictureRows avx2_rows = {avx2_copy,  avx2_lerp, avx2_halve, avx2_gather, avx2_blend,   avx2_mask,
                                      avx2_group, avx2_box,  avx2_add,   avx2_fold,   plain_average};

/* The AVX2 rows, or NULL where the processor or the operating system has none. */
static const PictureRows *wide_rows(void) { return __builtin_cpu_supports("avx2") ? &avx2_rows : NULL; }
#else
static const PictureRows *wide_rows(void) { return NULL; }
#endif

#endif
