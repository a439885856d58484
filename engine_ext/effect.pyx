# cython: language_level=3, cdivision=True
"""Change the samples of one 4:2:0 picture: convolve, recolour, key, and weigh by the luma of another, without the GIL.

It decides the value of every sample, to the bit; it knows nothing of frames, trees and names of effects: the caller
gives planes and finished numbers.

Theory of operation
-------------------
Everything is BT.709, limited range. Arithmetic is float32, each operation rounded once, in the order written here,
except for `luma` and `veil`, which are integer. trunc() cuts off the fraction, limit() cuts to the range given.

*convolve.* With p[k] the 3×3 neighbours row by row, mirrored at the edges as in FFmpeg, so that beyond 0 is 1, or 0 if
there is no 1: s = Σ m[k] · (p[k] - zero), from 0 on, k rising; out = trunc(limit(s + (zero + bias + 0.5), 0, 255)).

*recolour.* l = (Y - 16) · (1/219), cb = (Cb - 128) · (1/224), cr = (Cr - 128) · (1/224), a = A · (1/255);
r = l + 1.5748·cr, g = (l - 0.46812427·cr) - 0.18732427·cb, b = l + 1.8556·cb, each limited to 0…1. Each row m of the
matrix gives limit(((m0·r + m1·g) + m2·b) + m3·a, 0, 1). From those l' = (0.2126·r + 0.7152·g) + 0.0722·b and
Y' = trunc(l'·219 + 16.5), A' = trunc(a·255 + 0.5), Cb' = trunc((b - l')·120.715674 + 128.5), 224/1.8556;
Cr' = trunc((r - l')·142.24028 + 128.5), 224/1.5748. Luma and alpha samples take the chroma of their 2×2 square; chroma
samples take l and a as the mean of both luma rows at their left column, 0.5·(upper + lower).

*key.* The distance of a chroma sample: with u = Cb - 128, v = Cr - 128, turned to BT.601 as
x = (0.98986 · u - 0.11065 · v) + (128 - cb), y = (0.98338 · v - 0.07245 · u) + (128 - cr):
d = sqrt(x·x + y·y). Of a luma sample: the sum over its 3×3 neighbours, first along then down, of d at each one's chroma
sample: columns beyond an edge are those at it, rows beyond are the colour itself, 0, as in FFmpeg. What shows is
t = limit(trunc((sum · (1/3245.6201) - similarity) · (1/blend) · 255), 0, 255), with 3245.6201 = 9 · sqrt(2) · 255; with
blend at most 0.0001, 255 where it is above similarity, else 0. alpha = div255(alpha · t).

*luma.* BT.601 luma in full range. At luma positions, 16 fraction bits:
m = limit((76309·(Y-16) + 14628·(Cr-128) + 7578·(Cb-128) + 32768) >> 16, 0, 255), at chroma positions the mean of both
luma rows at the left column, rounded half up.

*veil.* div255(t) = (t + 128 + ((t + 128) >> 8)) >> 8; plane = div255(plane · mask).
"""

from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport free, malloc

cdef extern from "effect_rows.h" nogil:
    ctypedef struct Channels:
        float *r
        float *g
        float *b
        float *a
    ctypedef struct EffectRows:
        void (*scale)(float *out, const uint8_t *row, Py_ssize_t n, float shift, float factor) noexcept nogil
        void (*mean)(float *out, const uint8_t *upper, const uint8_t *lower, Py_ssize_t n, float shift,
                     float factor) noexcept nogil
        void (*convolve)(uint8_t *out, const float *a, const float *b, const float *c, Py_ssize_t n, const float *m,
                         float offset) noexcept nogil
        void (*split)(Channels *out, const float *l, const float *cb, const float *cr, Py_ssize_t n) noexcept nogil
        void (*mix)(Channels *out, const Channels *row, Py_ssize_t n, const float *m) noexcept nogil
        void (*luma)(uint8_t *out, const Channels *row, Py_ssize_t n) noexcept nogil
        void (*alpha)(uint8_t *out, const Channels *row, Py_ssize_t n) noexcept nogil
        void (*chroma)(uint8_t *u, uint8_t *v, const Channels *row, Py_ssize_t n) noexcept nogil
        void (*distance)(float *out, const uint8_t *u, const uint8_t *v, Py_ssize_t n, float cb,
                         float cr) noexcept nogil
        void (*key)(uint8_t *a, const float *above, const float *here, const float *below, Py_ssize_t n,
                    float similarity, float blend) noexcept nogil
        void (*tint)(int32_t *out, const uint8_t *u, const uint8_t *v, Py_ssize_t n) noexcept nogil
        void (*level)(uint8_t *out, const uint8_t *y, const int32_t *tint, Py_ssize_t n) noexcept nogil
        void (*veil)(uint8_t *plane, const uint8_t *mask, Py_ssize_t n) noexcept nogil
    const EffectRows effect_rows_plain
    const EffectRows *effect_rows_wide()

cdef enum:
    SIDE = 8192   # of a plane

MAX_SIDE = SIDE

cdef struct Plane:
    uint8_t *data         # of what is read only never written; NULL: absent
    Py_ssize_t height
    Py_ssize_t width

cdef const EffectRows *rows = NULL


def use_simd(bint on):
    """use_simd(on) -> bool
        Take the AVX2 rows, or the plain ones, for every later call; the bits are the same. For tests and benches.

        Returns  whether the AVX2 rows are in use now: never where the processor has none. At import they are if it has.
    """
    global rows
    cdef const EffectRows *wide = effect_rows_wide() if on else NULL
    rows = &effect_rows_plain if wide is NULL else wide
    return wide is not NULL


use_simd(True)


# --- doors ------------------------------------------------------------------------------------------------------------


def convolve(uint8_t[:, ::1] out not None, const uint8_t[:, ::1] plane not None, matrix not None, int zero, float bias):
    """convolve(out, plane, matrix, zero, bias) -> None
        Weigh the neighbours of every sample.

        out     (H, W) uint8, another one than plane; overwritten
        plane   (H, W) uint8, sides 1..MAX_SIDE
        matrix  nine floats, row by row, within ±1e6
        zero    the value that stands for nothing: 16 luma, 128 chroma
        bias    added to the sum
        Raises  ValueError: shapes that do not match, memory that is shared, not nine numbers.
    """
    cdef float m[9]
    cdef Plane source = taken("plane", plane, plane.shape[0], plane.shape[1])
    cdef Plane target = taken("out", out, source.height, source.width)
    take_numbers(m, 9, matrix)
    apart(&target, &source)
    cdef float *memory = <float *>malloc(3 * (source.width + 2) * sizeof(float))
    if memory == NULL:
        raise MemoryError
    with nogil:
        convolve_rows(&target, &source, m, <float>zero, <float>zero + bias + <float>0.5, memory)
    free(memory)


def recolour(out not None, planes not None, matrix not None):
    """recolour(out, planes, matrix) -> None
        Mix the channels of a picture.

        out     (y, u, v, a), others than planes; overwritten. a may be None: it is not wanted then
        planes  (y, u, v, a): y and a (H, W) uint8, u and v (ceil(H/2), ceil(W/2)); a may be None: 255 everywhere
        matrix  four rows, red, green, blue and alpha, of four floats within ±1e6
        Raises  ValueError: shapes that do not match, memory that is shared, not four times four numbers.
    """
    cdef float m[16]
    cdef Plane target[4]
    cdef Plane source[4]
    cdef uint8_t[:, ::1] written
    cdef const uint8_t[:, ::1] read
    cdef int i, j
    cdef Py_ssize_t height = len(planes[0]), width = len(planes[0][0]) if height else 0
    for i in range(4):
        written, read = out[i], planes[i]
        if i < 3 and (written is None or read is None):
            raise ValueError("a plane is missing")
        if i % 3:
            target[i] = taken("out", written, (height + 1) // 2, (width + 1) // 2)
            source[i] = taken("planes", read, (height + 1) // 2, (width + 1) // 2)
        else:
            target[i] = taken("out", written, height, width)
            source[i] = taken("planes", read, height, width)
    take_numbers(m, 16, [number for row in matrix for number in row])
    for i in range(4):
        for j in range(4):
            apart(&target[i], &source[j])
            if j < i:
                apart(&target[i], &target[j])
    cdef float *memory = <float *>malloc(11 * width * sizeof(float))
    if memory == NULL:
        raise MemoryError
    with nogil:
        recolour_rows(target, source, m, memory)
    free(memory)


def key(uint8_t[:, ::1] a not None, const uint8_t[:, ::1] u not None, const uint8_t[:, ::1] v not None, int cb, int cr,
        float similarity, float blend):
    """key(a, u, v, cb, cr, similarity, blend) -> None
        Make what is near a colour see-through, in place.

        a           (H, W) uint8, alpha
        u, v        (ceil(H/2), ceil(W/2)) uint8
        cb, cr      of the colour, 0..255, full-range BT.601, as FFmpeg's chromakey takes it
        similarity  0..1, distance up to which nothing is left
        blend       0..1, distance from there to where all is left
        Raises      ValueError: shapes that do not match, memory that is shared, numbers out of range.
    """
    cdef Plane alpha = taken("a", a, a.shape[0], a.shape[1])
    cdef Plane blue = taken("u", u, (alpha.height + 1) // 2, (alpha.width + 1) // 2)
    cdef Plane red = taken("v", v, blue.height, blue.width)
    if not (0 <= cb <= 255 and 0 <= cr <= 255 and 0 <= similarity <= 1 and 0 <= blend <= 1):
        raise ValueError(f"colour {cb}, {cr}, similarity {similarity}, blend {blend} out of range")
    apart(&alpha, &blue)
    apart(&alpha, &red)
    cdef float *memory = <float *>malloc((blue.width + 3 * alpha.width) * sizeof(float))
    if memory == NULL:
        raise MemoryError
    with nogil:
        key_rows(&alpha, &blue, &red, <float>(128 - cb), <float>(128 - cr), similarity, blend, memory)
    free(memory)


def luma(uint8_t[:, ::1] out not None, uint8_t[:, ::1] half not None, const uint8_t[:, ::1] y not None,
         const uint8_t[:, ::1] u not None, const uint8_t[:, ::1] v not None):
    """luma(out, half, y, u, v) -> None
        How bright a picture is, 0..255, at luma and at chroma positions: a mask.

        out     (H, W) uint8; overwritten
        half    (H/2, W/2) uint8; overwritten
        y       (H, W) uint8, H and W even
        u, v    (H/2, W/2) uint8
        Raises  ValueError: shapes that do not match, odd sides, memory that is shared.
    """
    cdef Plane planes[5]
    cdef int i, j
    planes[2] = taken("y", y, y.shape[0], y.shape[1])
    cdef Py_ssize_t height = planes[2].height, width = planes[2].width
    if width % 2 or height % 2:
        raise ValueError(f"y is {width}x{height}, sides must be even")
    planes[0] = taken("out", out, height, width)
    planes[1] = taken("half", half, height // 2, width // 2)
    planes[3] = taken("u", u, height // 2, width // 2)
    planes[4] = taken("v", v, height // 2, width // 2)
    for i in range(2):
        for j in range(i + 1, 5):
            apart(&planes[i], &planes[j])
    cdef int32_t *memory = <int32_t *>malloc(width * sizeof(int32_t))
    if memory == NULL:
        raise MemoryError
    with nogil:
        luma_rows(planes, memory)
    free(memory)


def veil(uint8_t[:, ::1] plane not None, const uint8_t[:, ::1] mask not None):
    """veil(plane, mask) -> None
        Weigh the samples of a premultiplied plane, or of a coverage, with a mask, in place.

        plane   (H, W) uint8
        mask    (H, W) uint8, another one
        Raises  ValueError: shapes that do not match, memory that is shared.
    """
    cdef Plane target = taken("plane", plane, plane.shape[0], plane.shape[1])
    cdef Plane weights = taken("mask", mask, target.height, target.width)
    apart(&target, &weights)
    with nogil:
        rows.veil(target.data, weights.data, target.height * target.width)


cdef Plane taken(str name, const uint8_t[:, ::1] view, Py_ssize_t height, Py_ssize_t width):
    """A plane of that size."""
    cdef Plane found
    found.data, found.height, found.width = NULL, height, width
    if view is None:
        return found
    if view.shape[0] != height or view.shape[1] != width:
        raise ValueError(f"{name} is {view.shape[1]}x{view.shape[0]}, must be {width}x{height}")
    if not (0 < width <= SIDE and 0 < height <= SIDE):
        raise ValueError(f"{name} is {width}x{height}, sides must be 1..{SIDE}")
    found.data = <uint8_t *>&view[0, 0]
    return found


cdef take_numbers(float *m, int count, numbers):
    cdef int i
    if len(numbers) != count:
        raise ValueError(f"{len(numbers)} numbers in the matrix, not {count}")
    for i in range(count):
        m[i] = numbers[i]
        if not -1e6 <= m[i] <= 1e6:
            raise ValueError(f"factor {numbers[i]} outside ±1e6")


cdef apart(const Plane *one, const Plane *other):
    if one.data == NULL or other.data == NULL:
        return
    if one.data < other.data + other.height * other.width and other.data < one.data + one.height * one.width:
        raise ValueError("a plane that is written shares memory with another")


# --- rooms ------------------------------------------------------------------------------------------------------------


cdef inline uint8_t *line(const Plane *plane, Py_ssize_t row) noexcept nogil:
    """Where a row of a plane begins; NULL when there is none."""
    return NULL if plane.data == NULL else plane.data + row * plane.width


cdef void convolve_rows(const Plane *out, const Plane *plane, const float *m, float zero, float offset,
                        float *memory) noexcept nogil:
    """Three rows at a time, as floats about zero, with a sample more at both ends."""
    cdef float *kept[3]
    cdef float *spare
    cdef Py_ssize_t width = plane.width, last = plane.height - 1, y, i
    for i in range(3):
        kept[i] = memory + i * (width + 2)
    centred(kept[0], line(plane, min(1, last)), width, zero)
    centred(kept[1], plane.data, width, zero)
    for y in range(plane.height):
        centred(kept[2], line(plane, y + 1 if y < last else max(last - 1, 0)), width, zero)
        rows.convolve(line(out, y), kept[0], kept[1], kept[2], width, m, offset)
        spare = kept[0]
        kept[0], kept[1], kept[2] = kept[1], kept[2], spare


cdef inline void centred(float *out, const uint8_t *row, Py_ssize_t width, float zero) noexcept nogil:
    rows.scale(out + 1, row, width, -zero, 1)
    out[0], out[width + 1] = out[min(2, width)], out[max(width - 1, 1)]


cdef void recolour_rows(const Plane *out, const Plane *planes, const float *m, float *memory) noexcept nogil:
    """A row of chroma and its two rows of luma at a time."""
    cdef Py_ssize_t width = planes[0].width, height = planes[0].height, half = planes[1].width, row, upper, lower, y
    cdef float *grey = memory
    cdef float *cb = memory + width
    cdef float *cr = memory + 2 * width
    cdef Channels given, mixed
    given.r, given.g, given.b = memory + 3 * width, memory + 4 * width, memory + 5 * width
    mixed.r, mixed.g, mixed.b = memory + 6 * width, memory + 7 * width, memory + 8 * width
    given.a, mixed.a = memory + 9 * width, memory + 10 * width
    for y in range(width):
        given.a[y] = 1  # where there is no alpha
    for row in range(planes[1].height):
        upper, lower = 2 * row, min(2 * row + 1, height - 1)
        rows.scale(cb, line(&planes[1], row), half, -128, <float>(1.0 / 224))
        rows.scale(cr, line(&planes[2], row), half, -128, <float>(1.0 / 224))
        rows.mean(grey, line(&planes[0], upper), line(&planes[0], lower), half, -16, <float>(1.0 / 219))
        if planes[3].data != NULL:
            rows.mean(given.a, line(&planes[3], upper), line(&planes[3], lower), half, 0, <float>(1.0 / 255))
        rows.split(&given, grey, cb, cr, half)
        rows.mix(&mixed, &given, half, m)
        rows.chroma(line(&out[1], row), line(&out[2], row), &mixed, half)
        double_floats(cb, width)
        double_floats(cr, width)
        for y in range(upper, lower + 1):
            rows.scale(grey, line(&planes[0], y), width, -16, <float>(1.0 / 219))
            if planes[3].data != NULL:
                rows.scale(given.a, line(&planes[3], y), width, 0, <float>(1.0 / 255))
            rows.split(&given, grey, cb, cr, width)
            rows.mix(&mixed, &given, width, m)
            rows.luma(line(&out[0], y), &mixed, width)
            if out[3].data != NULL:
                rows.alpha(line(&out[3], y), &mixed, width)


cdef inline void double_floats(float *row, Py_ssize_t n) noexcept nogil:
    """Every sample twice, in place, from the end."""
    cdef Py_ssize_t x
    for x in range(n - 1, -1, -1):
        row[x] = row[x >> 1]


cdef void key_rows(const Plane *a, const Plane *u, const Plane *v, float cb, float cr, float similarity, float blend,
                   float *memory) noexcept nogil:
    """Chroma rows are measured once each; three of them are kept, as sums along, at luma positions."""
    cdef Py_ssize_t x
    cdef Py_ssize_t width = a.width, last = u.height - 1, row, i
    cdef float *kept[3]
    cdef float *spare
    for i in range(3):
        kept[i] = memory + u.width + i * width
    for x in range(width):
        kept[0][x] = 0
    measured(kept[1], u, v, 0, width, cb, cr, memory)
    for row in range(last + 1):
        if row < last:
            measured(kept[2], u, v, row + 1, width, cb, cr, memory)
        else:
            for x in range(width):
                kept[2][x] = 0
        if 2 * row + 1 < a.height:
            rows.key(line(a, 2 * row), kept[0], kept[1], kept[1], width, similarity, blend)
            rows.key(line(a, 2 * row + 1), kept[1], kept[1], kept[2], width, similarity, blend)
        else:
            rows.key(line(a, 2 * row), kept[0], kept[1], kept[2], width, similarity, blend)
        spare = kept[0]
        kept[0], kept[1], kept[2] = kept[1], kept[2], spare


cdef inline void measured(float *out, const Plane *u, const Plane *v, Py_ssize_t row, Py_ssize_t width, float cb,
                          float cr, float *single) noexcept nogil:
    """Of one chroma row: the sums of the distances of three neighbours, at luma positions."""
    cdef Py_ssize_t half = u.width, x
    rows.distance(single, line(u, row), line(v, row), half, cb, cr)
    for x in range(half):
        out[2 * x] = single[x - 1 if x else 0] + single[x] + single[x]
        if 2 * x + 1 < width:
            out[2 * x + 1] = single[x] + single[x] + single[x + 1 if x + 1 < half else x]


cdef void luma_rows(const Plane *planes, int32_t *tint) noexcept nogil:
    """planes: out, half, y, u, v. tint: what chroma adds, at luma positions."""
    cdef Py_ssize_t width = planes[2].width, n = width // 2, row, x
    cdef const uint8_t *upper
    cdef const uint8_t *lower
    cdef uint8_t *half
    for row in range(planes[3].height):
        rows.tint(tint, line(&planes[3], row), line(&planes[4], row), n)
        for x in range(width - 1, -1, -1):
            tint[x] = tint[x >> 1]
        upper, lower, half = line(&planes[0], 2 * row), line(&planes[0], 2 * row + 1), line(&planes[1], row)
        rows.level(line(&planes[0], 2 * row), line(&planes[2], 2 * row), tint, width)
        rows.level(line(&planes[0], 2 * row + 1), line(&planes[2], 2 * row + 1), tint, width)
        for x in range(n):
            half[x] = <uint8_t>((upper[2 * x] + lower[2 * x] + 1) >> 1)
