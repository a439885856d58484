"""Sum blocks of sound with gain matrices and linear gain ramps, in one pass without the GIL.

It decides how samples are scaled, summed and clipped, to the bit; it knows nothing of time, sources or pan laws: the
caller gives positions in samples and finished gains.

Theory of operation
-------------------
All arithmetic is float32, each operation rounded once. With all sums beginning at +0, for every block in list order,
every output channel o and input channel c in rising order, and every sample i of the block::

    step = (to[o][c] - from[o][c]) / ramp
    gain = to[o][c]               where i >= ramp
           from[o][c] + step * i  elsewhere
    out[o][offset + i] += (samples[c][i] if finite else 0) * gain

Samples of 16 bits are first divided by 32768, which is exact.

A coefficient that is 0 at both ends is skipped. That changes no bit: a sum that begins at +0 never becomes -0 (exact
cancellation gives +0), so adding the ±0 of a finite sample times 0 leaves it alone. Hence also that NaN is cleaned
before the gain, not after.

At the end each sum is limited to [-1, 1]. Between the blocks nothing is: loud sources that cancel leave no trace. A sum
that overflowed counts as clipped; one that overflowed both ways is NaN, becomes 0 and counts too.
"""

cimport cython
from libc.stdint cimport int16_t
from libc.math cimport isfinite
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef extern from "mix_rows.h" nogil:
    ctypedef struct MixRows:
        void (*hold)(float *out, const float *samples, Py_ssize_t n, float gain) noexcept nogil
        void (*ramp)(float *out, const float *samples, Py_ssize_t n, float start, float step) noexcept nogil
        void (*hold16[2])(float *out, const int16_t *samples, Py_ssize_t n, float gain) noexcept nogil
        void (*ramp16[2])(float *out, const int16_t *samples, Py_ssize_t n, float start, float step) noexcept nogil
        Py_ssize_t (*clip)(float *out, Py_ssize_t n) noexcept nogil
    const MixRows mix_rows_plain
    const MixRows *mix_rows_wide()

cdef enum:
    MAX_SAMPLES = 1 << 24  # up to here float32 counts samples exactly; 5.8 minutes at 48 kHz

cdef struct Run:
    const char *samples   # first sample of the first channel
    Py_ssize_t stride     # bytes from one input channel to the next
    Py_ssize_t size       # bytes from one sample of a channel to its next
    bint short            # samples of 16 bits
    Py_ssize_t n
    Py_ssize_t offset
    Py_ssize_t ramp
    int inputs
    int outputs
    float start[4]        # [output * inputs + input]
    float step[4]
    float stop[4]

cdef const MixRows *rows = NULL


def use_simd(bint on):
    """use_simd(on) -> bool
        Take the AVX2 rows, or the plain ones, for every later mix(); the bits are the same. For tests and benches.

        Returns  whether the AVX2 rows are in use now: never where the processor has none. At import they are if it has.
    """
    global rows
    cdef const MixRows *wide = mix_rows_wide() if on else NULL
    rows = &mix_rows_plain if wide is NULL else wide
    return wide is not NULL


use_simd(True)


@cython.final
@cython.freelist(64)
cdef class Block:
    """Block(samples, offset, gains, ramp=0)
        One contiguous run of samples of one source, and where and how loud it lands in the output. Immutable.

        samples  (C, n) float32 or int16 with full scale 32768, C = 1 or 2; samples of a channel contiguous, those of
                 int16 every second one also (as they lie interleaved in a file), channels any stride apart; may be
                 read-only. The block keeps the array alive; whoever changes it before mix() changes what is heard.
        offset   int ≥ 0: output sample on which the first one lands
        gains    (from, to): two sequences of M × C finite floats, row-major [output][input], linear;
                 M = 1 or 2 is the number of output channels
        ramp     int ≥ 0: samples over which the gains go linearly from `from` to `to`, counted from the block's first
                 sample; from sample `ramp` on they are exactly `to`. 0: `to` at once.
        Raises ValueError: a wrong shape, dtype, stride or number of gains, a gain that is no finite float32, a negative
        offset or ramp. TypeError: no buffer, no sequence, no number.
    """

    cdef const float[:, :] floats  # one of the two
    cdef const int16_t[:, :] shorts
    cdef Run run

    def __cinit__(self, samples not None, Py_ssize_t offset, gains not None, Py_ssize_t ramp=0):
        cdef Py_ssize_t channels, n, k, count, size, item
        cdef const char *first = NULL
        cdef bint short = memoryview(samples).format == "h"
        if short:
            self.shorts = samples
            channels, n, size, item = self.shorts.shape[0], self.shorts.shape[1], self.shorts.strides[1], 2
            self.run.stride = self.shorts.strides[0]
            if channels and n:
                first = <const char *>&self.shorts[0, 0]
        else:
            self.floats = samples
            channels, n, size, item = self.floats.shape[0], self.floats.shape[1], self.floats.strides[1], 4
            self.run.stride = self.floats.strides[0]
            if channels and n:
                first = <const char *>&self.floats[0, 0]
        if channels != 1 and channels != 2:
            raise ValueError(f"samples have {channels} channels, not 1 or 2")
        if n > 1 and size != item and not (short and size == 2 * item):
            raise ValueError(f"samples of a channel are {size} bytes apart, not {item}")
        if self.run.stride % item:
            raise ValueError(f"channels are {self.run.stride} bytes apart, not a multiple of {item}")
        if offset < 0 or ramp < 0:
            raise ValueError(f"offset {offset} and ramp {ramp} must not be negative")
        start, stop = gains
        count = len(stop)
        if len(start) != count or (count != channels and count != 2 * channels):
            raise ValueError(
                f"gains from {len(start)} to {count} numbers; {channels} channels want {channels} or {2 * channels}"
            )
        self.run.samples = first
        self.run.size = size if n > 1 else item
        self.run.short = short
        self.run.n = n
        self.run.offset = offset
        self.run.ramp = ramp
        self.run.inputs = <int>channels
        self.run.outputs = <int>(count // channels)
        for k in range(count):
            self.run.start[k] = start[k]
            self.run.stop[k] = stop[k]
            if not (isfinite(self.run.start[k]) and isfinite(self.run.stop[k])):
                raise ValueError(f"gain {k} goes from {start[k]} to {stop[k]}: not finite in float32")
            self.run.step[k] = (self.run.stop[k] - self.run.start[k]) / <float>ramp if ramp else 0.0


def mix(float[:, :] out not None, blocks not None):
    """mix(out, blocks) -> int
        Overwrite out with the sum of all blocks, clipped once at the end; silence where no block is.

        out      (M, N) float32, M = 1 or 2, N ≤ 2^24; samples of a channel contiguous, channels any stride apart
        blocks   of Block, with M outputs each and offset + n ≤ N; may overlap each other, never out
        Returns  the number of clipped samples, both channels counted.
        NaN and ±infinity in a block are silence. The module's docstring defines the result to the bit. The GIL is free
        during the work.
        Raises ValueError: a block beyond out, shapes that do not match, memory shared with out. TypeError: not a Block.
    """
    cdef Py_ssize_t outputs = out.shape[0], n = out.shape[1], stride, k, count, clipped
    cdef const Run **runs
    cdef Block block
    if outputs != 1 and outputs != 2:
        raise ValueError(f"out has {outputs} channels, not 1 or 2")
    if n > MAX_SAMPLES:
        raise ValueError(f"out has {n} samples, more than {MAX_SAMPLES}")
    if n > 1 and out.strides[1] != sizeof(float):
        raise ValueError(f"samples of an out channel are {out.strides[1]} bytes apart, not {sizeof(float)}")
    stride = out.strides[0] // <Py_ssize_t>sizeof(float)
    if out.strides[0] % <Py_ssize_t>sizeof(float) or (outputs == 2 and -n < stride < n):
        raise ValueError(f"out channels are {out.strides[0]} bytes apart: they overlap or are not aligned")
    blocks = tuple(blocks)  # ours, so that no other thread can free a block while the GIL is away
    count = len(blocks)
    for k in range(count):
        block = blocks[k]
        if block is None:
            raise TypeError(f"block {k} is None")
        if block.run.outputs != outputs:
            raise ValueError(f"block {k} has gains for {block.run.outputs} outputs, out has {outputs} channels")
        if block.run.n > n or block.run.offset > n - block.run.n:
            raise ValueError(f"block {k} covers [{block.run.offset}, {block.run.offset + block.run.n}) of {n} samples")
        if block.run.n and shares(&out[0, 0], stride, outputs, n, &block.run):
            raise ValueError(f"block {k} shares memory with out")
    if n == 0:
        return 0
    runs = <const Run **>malloc((count + 1) * sizeof(Run *))
    if runs == NULL:
        raise MemoryError
    for k in range(count):
        block = blocks[k]
        runs[k] = &block.run
    cdef float *first = &out[0, 0]
    with nogil:
        clipped = mix_runs(first, stride, outputs, n, runs, count)
    free(runs)
    return clipped


cdef inline bint shares(const float *out, Py_ssize_t stride, Py_ssize_t outputs, Py_ssize_t n, const Run *run) noexcept:
    """Whether any row of out and any row of the run have a sample in common."""
    cdef Py_ssize_t o, c
    cdef const char *a
    cdef const char *b
    for o in range(outputs):
        for c in range(run.inputs):
            a = <const char *>(out + o * stride)
            b = run.samples + c * run.stride
            if a < b + run.n * run.size and b < a + n * <Py_ssize_t>sizeof(float):
                return True
    return False


cdef Py_ssize_t mix_runs(
    float *out, Py_ssize_t stride, Py_ssize_t outputs, Py_ssize_t n, const Run **runs, Py_ssize_t count
) noexcept nogil:
    """The room of mix(): everything is checked. Returns the number of clipped samples."""
    cdef Py_ssize_t o, k, clipped = 0
    for o in range(outputs):
        memset(out + o * stride, 0, n * sizeof(float))
    for k in range(count):
        for o in range(outputs):
            add_run(out + o * stride + runs[k].offset, o, runs[k])
    for o in range(outputs):
        clipped += rows.clip(out + o * stride, n)
    return clipped


cdef inline void add_run(float *out, Py_ssize_t o, const Run *run) noexcept nogil:
    """Add one run to its place in one output channel, input by input: the ramp, then the rest."""
    cdef Py_ssize_t c, k, second = run.size // 2 - 1, ramped = min(run.ramp, run.n)
    cdef const char *samples
    cdef const char *rest
    for c in range(run.inputs):
        k = o * run.inputs + c
        samples = run.samples + c * run.stride
        rest = samples + ramped * run.size
        if ramped and (run.start[k] != 0 or run.stop[k] != 0):
            if run.short:
                rows.ramp16[second](out, <const int16_t *>samples, ramped, run.start[k], run.step[k])
            else:
                rows.ramp(out, <const float *>samples, ramped, run.start[k], run.step[k])
        if run.stop[k] != 0:
            if run.short:
                rows.hold16[second](out + ramped, <const int16_t *>rest, run.n - ramped, run.stop[k])
            else:
                rows.hold(out + ramped, <const float *>rest, run.n - ramped, run.stop[k])
