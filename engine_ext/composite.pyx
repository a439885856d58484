# cython: language_level=3, cdivision=True
"""Paint scaled, cropped, mirrored and blended 4:2:0 pictures onto a canvas, in one pass without the GIL.

It decides the value of every painted sample, to the bit; it knows nothing of frames, trees, time or colour spaces:
the caller gives planes, rectangles and finished opacities.

Theory of operation
-------------------
Everything is integer; positions are 16.16 fixed point, in 64 bits. // and >> round down.

*Which samples.* A layer owns the luma columns [x, x + w) of its dest rectangle, the chroma columns
[ceil(x/2), ceil((x+w)/2)) and the chroma rows [floor(y/2), floor((y+h)/2)): rectangles that adjoin share no sample
and leave none out, odd or not. Chroma sits on the left luma column of its pair and midway between its rows
(ISO 14496-10 Annex E, chroma_sample_loc_type 0).

*Where they look.* D is twice the distance, in luma pixels, of a sample's centre from the rectangle's left or top edge:
2i+1 for luma, 4j+1-2x for chroma columns, 4j+2-2y for chroma rows; mirrored, D becomes 2w - D. With the crop (X, W) in
16.16, S = X + D*W // 2w, and the position P among the samples of a plane is S - 0.5 for luma and alpha planes,
(S - 0.5) >> 1 for chroma columns, (S - 1) >> 1 for chroma rows. A chroma sample looks into a full-size alpha plane with
its own D and the alpha plane's P.

*Shrinking.* Along each axis, k is the least whole number with W/w / 2^k <= 2; two taps at more than that would skip
samples. The plane is first averaged over boxes of 2^kx x 2^ky samples, rounded half up, beginning at the first sample g
the crop touches; the last it touches, e, stands for those a box has beyond it. Among boxes the position is
((P - g + 0.5) >> k) - 0.5. With k = 0 a box is a sample.

*Two taps.* p and q are the boxes at floor(P) and the next one, both limited to the boxes there are, f the fraction of P
cut to 15 bits: p + (((q - p) * f + 0x4000) >> 15). First down, which gives bytes, then along. So a picture at its own
size is copied to the bit.

*Blending.* div255(t) = (t + 128 + ((t + 128) >> 8)) >> 8. out = div255(src * A + out * (255 - A)), where A is the
layer's alpha, or div255(sample of its alpha plane * alpha). A group is premultiplied: out = div255(src * alpha +
out * (255 - div255(a * alpha))), limited to 255. The coverage of a group being painted is one more plane, at luma and
at chroma positions, painted with 255, or with the coverage of the group that is painted onto it.

*Order of work.* The canvas is cut into blocks of rows that stay in the cache while all layers are painted onto them;
threads take the next block each until there is none. An unscaled opaque layer just below a translucent one of the same
rectangle is read in the same pass, never painted (a crossfade: measured 0.35 instead of 0.46 ms). No sample depends on
who computed another, so neither changes a bit, nor does the number of threads.
"""

from libc.math cimport floor
from libc.stdint cimport int16_t, int32_t, int64_t, intptr_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t *thread, const void *attr, void *(*run)(void *) noexcept nogil, void *argument)
    int pthread_join(pthread_t thread, void **result)

cdef extern from "composite_rows.h" nogil:
    ctypedef struct Row:
        const uint8_t *at
        Py_ssize_t ahead
    ctypedef struct Taps:
        int32_t *window
        uint8_t *pair
        int16_t *fraction
    ctypedef struct PictureRows:
        void (*copy)(uint8_t *out, Row src, Py_ssize_t n) noexcept nogil
        void (*lerp)(uint8_t *out, Row p, Row q, int f, Py_ssize_t n) noexcept nogil
        void (*halve)(uint8_t *out, Row row, int f, Py_ssize_t n) noexcept nogil
        void (*gather)(uint8_t *out, Row row, const Taps *taps, int shared, Py_ssize_t n) noexcept nogil
        void (*blend)(uint8_t *out, Row dst, Row src, int alpha, Py_ssize_t n) noexcept nogil
        void (*mask)(uint8_t *out, Row dst, Row src, Row mask, int alpha, Py_ssize_t n) noexcept nogil
        void (*group)(uint8_t *out, Row dst, Row src, Row mask, int alpha, Py_ssize_t n) noexcept nogil
        void (*box)(uint8_t *out, Row p, Row q, Py_ssize_t n) noexcept nogil
        void (*add)(uint32_t *sums, Row row, Py_ssize_t n) noexcept nogil
        void (*fold)(uint32_t *sums, Py_ssize_t n) noexcept nogil
        void (*average)(uint8_t *out, const uint32_t *sums, int shift, Py_ssize_t n) noexcept nogil
    const PictureRows plain_rows
    const PictureRows *wide_rows()
    Py_ssize_t take_block(Py_ssize_t *next)

cdef enum:
    LAYERS = 1024
    SIDE = 8192          # of a canvas or a source: box sums of 2^12 x 2^12 samples still fit 32 bits
    REACH = 32768        # of a dest rectangle, so that D * W fits 64 bits with room to spare
    THREADS = 64
    BLOCK = 32           # canvas rows; at 1080p 92 KB, which stay in any L2 cache beside the source rows
    AHEAD = 6144         # bytes of a source to ask memory for in advance; without, 10-40 % slower, 2-8 KB much alike
    PAD = 64             # bytes behind every scratch row: gather looks at 16, wherever its window begins
    PIXEL = 65536        # 16.16
    TAP_BYTES = 40       # per group of 8 outputs

cdef enum:  # sitings: of canvas samples, with the planes they look into
    LUMA = 0
    CHROMA = 1
    CHROMA_ALPHA = 2     # chroma samples looking into a full-size alpha plane

cdef enum:  # what a row of outputs is made with
    COPY = 0             # every sample, at fraction 0
    SHIFT = 1            # every sample, at one fraction
    HALVE = 2            # every second sample, at one fraction
    GATHER = 3           # anything else, mirrored included

MAX_LAYERS = LAYERS
MAX_SIDE = SIDE
MAX_THREADS = THREADS

cdef struct Plane:
    uint8_t *data        # of sources never written
    Py_ssize_t stride
    Py_ssize_t width
    Py_ssize_t height

cdef struct Axis:        # from a canvas index to a position among boxes
    int64_t distance     # D of canvas index 0
    int64_t step         # D per canvas index
    int64_t start        # of the crop, 16.16
    int64_t size         # of the crop, 16.16
    int64_t twice        # 2w
    int64_t offset       # half a luma pixel, or one down chroma columns
    int shift            # 1 for chroma planes
    int k
    Py_ssize_t first     # sample the crop touches
    Py_ssize_t last
    Py_ssize_t count     # of boxes

cdef struct Columns:     # how the part of a canvas row that a layer owns is made from a row of boxes
    Axis axis
    Py_ssize_t begin     # canvas columns [begin, begin + n)
    Py_ssize_t n
    Py_ssize_t base      # boxes [base, base + span) are looked at; a row pointer points at base
    Py_ssize_t span
    int kind
    int f                # COPY, SHIFT, HALVE: fraction
    Py_ssize_t left      # outputs before the first box: all are that box
    Py_ssize_t inside    # outputs between; the rest lies beyond the last box
    Py_ssize_t at        # box, from base, of the first output inside
    Py_ssize_t ahead     # canvas rows between reading a source and asking for what comes
    int shared           # GATHER: outputs that share a window of 16 boxes
    Taps taps

cdef struct Item:        # a layer on this canvas
    Plane planes[5]      # y u v, alpha or coverage, coverage at chroma
    uint8_t colour[3]
    int alpha
    bint solid
    bint masked
    bint group
    bint fused           # laid over the layer before, which is not painted: it would cost the canvas twice
    Columns columns[3]   # by siting
    Axis rows[3]
    Py_ssize_t top[2]    # canvas rows [top, bottom) at LUMA, CHROMA
    Py_ssize_t bottom[2]

cdef struct Lane:        # scratch for the rows of one plane
    uint8_t *boxes[2]
    Py_ssize_t held[2]   # which row of boxes stands there; -1: none
    uint8_t *line
    uint8_t *out

cdef struct Job:
    const PictureRows *rows
    Plane canvas[5]      # y u v, coverage, coverage at chroma
    bint covers
    Item *items
    Py_ssize_t count
    Py_ssize_t next

cdef struct Worker:
    Job *job
    Lane lanes[3]        # two colours and the mask
    uint8_t *full        # a row of 255
    uint32_t *sums

cdef const PictureRows *chosen = wide_rows() if wide_rows() != NULL else &plain_rows


def simd_level():
    """simd_level() -> str: which rows are in use, "avx2" or "plain"."""
    return "plain" if chosen == &plain_rows else "avx2"


def use_simd(bint on):
    """use_simd(on) -> bool
        Take the rows made for this processor, or the plain ones, for every later call; the bits are the same.

        For tests and benches. At import the processor's are taken if there are any.
        Returns  whether they are in use now: never where the processor has none.
    """
    global chosen
    chosen = wide_rows() if on and wide_rows() != NULL else &plain_rows
    return chosen != &plain_rows


# --- door: layers -----------------------------------------------------------------------------------------------------


cdef class Layer:
    """Layer(planes, dest, crop=None, *, mirror_x=False, mirror_y=False, alpha=255)
        One picture to paint. Holds the planes' buffers; the pixels are read by composite(), not before.

        planes    (y, u, v) or (y, u, v, a): uint8 arrays, read-only or not, of any row stride, samples of a row
                  adjoining; y and a (h, w), u and v (ceil(h/2), ceil(w/2)), sides 1..MAX_SIDE.
                  (y, u, v, a, ac): a group, its colours premultiplied by its coverage a (h, w) and ac (shape of u).
                  Three ints: one colour, 0..255 each.
        dest      (x, y, w, h) in canvas pixels, ints within ±32768, w and h > 0; may reach over the canvas or miss it
        crop      (x, y, w, h) in source luma pixels, within the picture, w and h > 0; rounded to 1/65536 pixel.
                  None: all of it. Of one colour: not looked at. Of a group: whole pixels, of the size of dest.
        mirror_x  left and right exchanged; mirror_y top and bottom; never of a group
        alpha     constant opacity, 0..255
        Raises    ValueError with the numbers for anything else; TypeError where an array, an int or a float is missing.
    """

    cdef readonly tuple planes
    cdef readonly tuple dest
    cdef readonly object crop
    cdef readonly bint mirror_x
    cdef readonly bint mirror_y
    cdef readonly int alpha
    cdef const uint8_t[:, :] y      # these five keep the buffers
    cdef const uint8_t[:, :] u
    cdef const uint8_t[:, :] v
    cdef const uint8_t[:, :] a
    cdef const uint8_t[:, :] ac
    cdef Plane sources[5]
    cdef Py_ssize_t count           # of them; 0: one colour
    cdef uint8_t colour[3]
    cdef int64_t rectangle[4]       # dest
    cdef int64_t window[4]          # crop, 16.16

    def __cinit__(self, planes not None, dest not None, crop=None, *,
                  bint mirror_x=False, bint mirror_y=False, alpha=255):
        cdef int axis
        self.planes = tuple(planes)
        if len(self.planes) not in (3, 4, 5):
            raise ValueError(f"layer: {len(self.planes)} planes; 3, 4 (with alpha) or 5 (group) are painted")
        if not 0 <= alpha <= 255:
            raise ValueError(f"layer: alpha {alpha} outside 0..255")
        self.mirror_x, self.mirror_y, self.alpha = mirror_x, mirror_y, alpha
        self.take_dest(tuple(dest))
        if len(self.planes) == 3 and isinstance(self.planes[0], int):
            self.take_colour()
            return
        self.take_planes()
        if crop is None:
            crop = 0, 0, self.sources[0].width, self.sources[0].height
        self.crop = tuple(crop)
        if len(self.crop) != 4:
            raise ValueError(f"layer: crop {self.crop} is not x, y, width, height")
        for axis in range(2):
            self.take_crop(axis, self.sources[0].height if axis else self.sources[0].width)
        if self.count == 5:
            self.check_group()

    cdef take_dest(self, tuple dest):
        cdef int i
        self.dest = dest
        if len(dest) != 4 or not all([-REACH <= value <= REACH for value in dest]) or dest[2] < 1 or dest[3] < 1:
            raise ValueError(f"layer: dest {dest} is not x, y, width > 0, height > 0 within ±{REACH}")
        for i in range(4):
            self.rectangle[i] = dest[i]

    cdef take_colour(self):
        cdef int i
        if not all([0 <= value <= 255 for value in self.planes]):
            raise ValueError(f"layer: colour {self.planes} outside 0..255")
        for i in range(3):
            self.colour[i] = self.planes[i]

    cdef take_planes(self):
        cdef int i
        cdef Py_ssize_t width, height
        self.count = len(self.planes)
        self.y, self.u, self.v = self.planes[:3]
        self.a = self.planes[3] if self.count > 3 else None
        self.ac = self.planes[4] if self.count > 4 else None
        self.sources[0], self.sources[1], self.sources[2] = plane(self.y), plane(self.u), plane(self.v)
        if self.count > 3:
            self.sources[3] = plane(self.a)
        if self.count > 4:
            self.sources[4] = plane(self.ac)
        width, height = self.sources[0].width, self.sources[0].height
        for i in range(self.count):
            check_plane(&self.sources[i], f"layer: plane {i}", i == 0 or i == 3, width, height)

    cdef take_crop(self, int axis, int64_t limit):
        start, size = self.crop[axis], self.crop[axis + 2]
        if not (-1 < start < limit and 0 < size < limit + 1):  # NaN too
            raise ValueError(f"layer: crop {self.crop} outside the picture of {self.planes[0].shape} (rows, columns)")
        self.window[axis] = <int64_t>floor(<double>start * PIXEL + 0.5)
        self.window[axis + 2] = <int64_t>floor(<double>size * PIXEL + 0.5)
        limit = limit * PIXEL - self.window[axis]
        # Start and size are rounded each for itself; together they may reach one unit over the edge.
        if self.window[axis] < 0 or self.window[axis + 2] > limit + 1 or limit < 1 or self.window[axis + 2] < 1:
            raise ValueError(f"layer: crop {self.crop} outside the picture of {self.planes[0].shape} (rows, columns)")
        self.window[axis + 2] = min(self.window[axis + 2], limit)

    cdef check_group(self):
        cdef int axis
        for axis in range(2):
            if self.window[axis] % PIXEL or self.window[axis + 2] != self.rectangle[axis + 2] * PIXEL:
                raise ValueError(f"layer: a group's crop {self.crop} is not whole pixels, as many as dest {self.dest}")
        if self.mirror_x or self.mirror_y:
            raise ValueError("layer: a group cannot be mirrored")


cdef Plane plane(const uint8_t[:, :] view):
    cdef Plane found
    found.width, found.height, found.stride = view.shape[1], view.shape[0], view.strides[0]
    found.data = <uint8_t *>&view[0, 0] if found.width > 0 and found.height > 0 else NULL
    if found.width > 1 and view.strides[1] != 1:
        raise ValueError(f"a plane's samples are {view.strides[1]} bytes apart, must adjoin within a row")
    return found


cdef check_plane(const Plane *found, str name, bint full, Py_ssize_t width, Py_ssize_t height):
    """full: the size of luma, width × height; else of its chroma."""
    if not full:
        width, height = (width + 1) // 2, (height + 1) // 2
    if found.width != width or found.height != height:
        raise ValueError(f"{name} is {found.width}x{found.height}, must be {width}x{height}")
    if not (0 < width <= SIDE and 0 < height <= SIDE):
        raise ValueError(f"{name} is {width}x{height}, sides must be 1..{SIDE}")


# --- door: the canvas -------------------------------------------------------------------------------------------------


def composite(uint8_t[:, :] y not None, uint8_t[:, :] u not None, uint8_t[:, :] v not None, layers not None, *,
              coverage=None, int threads=1):
    """composite(y, u, v, layers, *, coverage=None, threads=1) -> None
        Paint layers, first to last, onto the canvas in place.

        y         (H, W) uint8, H and W even, 2..MAX_SIDE, any row stride, samples of a row adjoining, writable
        u, v      (H/2, W/2) uint8, likewise
        layers    at most MAX_LAYERS Layers
        coverage  None, or (a, ac) of the shapes of y and u: the canvas is a group; y, u and v hold premultiplied
                  values and every layer paints 255 onto a and ac as well. The caller clears all five.
        threads   1..MAX_THREADS; how many paint (this one included). The result is the same for any number.
        Rounding  as in the theory of operation; alpha 255 copies exactly.
        Raises    ValueError with the numbers: planes that do not match; a plane that shares memory with another of
                  the canvas or with a layer's; too many layers or threads. Nothing has been painted then.
        Memory    tables and scratch rows, some 100 KB, freed before it returns.
    """
    cdef uint8_t[:, :] a, ac
    cdef Job job
    cdef Worker workers[THREADS]
    cdef uint8_t *memory = NULL
    cdef tuple painted = tuple(layers)
    if not 1 <= threads <= THREADS:
        raise ValueError(f"threads {threads} outside 1..{THREADS}")
    if len(painted) > LAYERS:
        raise ValueError(f"{len(painted)} layers, at most {LAYERS} are painted")
    job.rows, job.next, job.covers = chosen, 0, coverage is not None
    job.canvas[0], job.canvas[1], job.canvas[2] = plane(y), plane(u), plane(v)
    if coverage is not None:
        a, ac = coverage
        job.canvas[3], job.canvas[4] = plane(a), plane(ac)
    check_canvas(&job)
    job.items = <Item *>malloc((len(painted) + 1) * sizeof(Item))
    try:
        if job.items == NULL:
            raise MemoryError
        take_layers(&job, painted)
        threads = <int>min(<Py_ssize_t>threads, (job.canvas[0].height + BLOCK - 1) // BLOCK)
        memory = <uint8_t *>malloc(size_of_memory(&job, threads))
        if memory == NULL:
            raise MemoryError
        with nogil:
            share_out(&job, workers, threads, memory)
            paint(workers, threads)
    finally:
        free(memory)
        free(job.items)


cdef check_canvas(const Job *job):
    cdef int i, j
    cdef int count = 5 if job.covers else 3
    cdef Py_ssize_t width = job.canvas[0].width, height = job.canvas[0].height
    if width % 2 or height % 2:
        raise ValueError(f"canvas is {width}x{height}, sides must be even")
    for i in range(count):
        check_plane(&job.canvas[i], f"canvas: plane {i}", i == 0 or i == 3, width, height)
        for j in range(i):
            if overlap(&job.canvas[i], &job.canvas[j]):
                raise ValueError(f"canvas: planes {j} and {i} share memory")


cdef take_layers(Job *job, tuple painted):
    """Plan the layers that show anything; the others are left out."""
    cdef Py_ssize_t n
    cdef int i, j
    cdef Layer layer
    job.count = 0
    for n in range(len(painted)):
        layer = <Layer?>painted[n]
        for i in range(layer.count):
            for j in range(5 if job.covers else 3):
                if overlap(&layer.sources[i], &job.canvas[j]):
                    raise ValueError(f"layers[{n}]: plane {i} shares memory with plane {j} of the canvas")
        if plan(&job.items[job.count], layer, job.canvas):
            job.items[job.count].fused = job.count > 0 and fuse(&job.items[job.count - 1], &job.items[job.count])
            job.count += 1


cdef bint overlap(const Plane *p, const Plane *q) noexcept:
    """Whether two planes share a byte. Planes of one stride may interleave, like u and v side by side in a buffer."""
    cdef int64_t p_step = p.stride if p.stride > 0 else -p.stride, q_step = q.stride if q.stride > 0 else -q.stride
    cdef int64_t p_low = <int64_t>p.data + min(p.stride, 0) * (p.height - 1)
    cdef int64_t q_low = <int64_t>q.data + min(q.stride, 0) * (q.height - 1)
    cdef int64_t apart
    if p_low + p_step * (p.height - 1) + p.width <= q_low or q_low + q_step * (q.height - 1) + q.width <= p_low:
        return False
    if p_step != q_step or p_step < p.width or p_step < q.width:
        return True
    apart = (q_low - p_low) % p_step
    if apart < 0:
        apart += p_step
    return apart < p.width or p_step - apart < q.width


# --- room: geometry ---------------------------------------------------------------------------------------------------


cdef bint plan(Item *item, Layer layer, const Plane *canvas) noexcept:
    """Fill in item; False when the layer shows nothing on this canvas."""
    cdef int siting
    cdef int64_t x = layer.rectangle[0], y = layer.rectangle[1], w = layer.rectangle[2], h = layer.rectangle[3]
    item.top[LUMA], item.bottom[LUMA] = max(y, 0), min(y + h, canvas[0].height)
    item.top[CHROMA], item.bottom[CHROMA] = max(y >> 1, 0), min((y + h) >> 1, canvas[1].height)
    for siting in range(3):
        if siting == LUMA:
            item.columns[siting].begin = max(x, 0)
            item.columns[siting].n = min(x + w, canvas[0].width) - item.columns[siting].begin
        else:
            item.columns[siting].begin = max((x + 1) >> 1, 0)
            item.columns[siting].n = min((x + w + 1) >> 1, canvas[1].width) - item.columns[siting].begin
    if layer.alpha == 0 or item.top[LUMA] >= item.bottom[LUMA] or item.columns[LUMA].n <= 0:
        return False
    item.alpha, item.solid, item.masked, item.group = layer.alpha, layer.count == 0, layer.count > 3, layer.count == 5
    memcpy(item.colour, layer.colour, sizeof(item.colour))
    memcpy(item.planes, layer.sources, sizeof(item.planes))
    for siting in range(3):
        item.columns[siting].kind, item.columns[siting].span = COPY, 0
        if item.solid or item.columns[siting].n <= 0:
            continue
        plan_axis(&item.columns[siting].axis, siting, layer, 0)
        plan_axis(&item.rows[siting], siting, layer, 1)
        plan_columns(&item.columns[siting])
    return True


cdef bint fuse(const Item *under, const Item *item) noexcept:
    """Whether item covers just what `under` does, and rows of that one can be taken where they stand."""
    cdef int siting
    cdef const Columns *columns
    cdef const Axis *down
    if under.solid or under.masked or under.alpha < 255 or (item.alpha == 255 and not item.masked):
        return False
    for siting in range(2):
        columns = &under.columns[siting]
        down = &under.rows[siting]
        if (under.top[siting] != item.top[siting] or under.bottom[siting] != item.bottom[siting]
                or columns.begin != item.columns[siting].begin or columns.n != item.columns[siting].n):
            return False
        if columns.n > 0 and not (columns.kind == COPY and columns.inside == columns.n
                and down.step * down.size == PIXEL * down.twice << down.shift
                and look(down, under.top[siting]) & (PIXEL - 2) == 0):
            return False
    return True


cdef void plan_axis(Axis *axis, int siting, Layer layer, int down) noexcept:
    """Along the rows, or down the columns."""
    cdef int64_t crop = layer.window[down], crop_size = layer.window[down + 2]
    axis.distance = (2 if down and siting != LUMA else 1) - 2 * layer.rectangle[down]
    axis.step = 2 if siting == LUMA else 4
    axis.twice = 2 * layer.rectangle[down + 2]
    if layer.mirror_y if down else layer.mirror_x:
        axis.distance, axis.step = axis.twice - axis.distance, -axis.step
    axis.start, axis.size = crop, crop_size
    axis.offset, axis.shift = PIXEL if down and siting == CHROMA else PIXEL // 2, siting == CHROMA
    axis.first, axis.last = crop >> 16, ((crop + crop_size + PIXEL - 1) >> 16) - 1
    if siting == CHROMA:
        axis.first, axis.last = axis.first >> 1, axis.last >> 1
    axis.k = 0
    while crop_size > (axis.twice * PIXEL) << axis.k:
        axis.k += 1
    axis.count = ((axis.last - axis.first) >> axis.k) + 1


cdef inline int64_t among_boxes(const Axis *axis, int64_t position) noexcept nogil:
    """S to the position among boxes, 16.16"""
    position = ((position - axis.offset) >> axis.shift) - axis.first * PIXEL
    return ((position + PIXEL // 2) >> axis.k) - PIXEL // 2


cdef inline int64_t look(const Axis *axis, Py_ssize_t index) noexcept nogil:
    """Canvas index to the position among boxes; D is never negative where a layer is, so / rounds down."""
    return among_boxes(axis, axis.start + (axis.distance + axis.step * index) * axis.size // axis.twice)


cdef inline Py_ssize_t limited(Py_ssize_t box, Py_ssize_t count) noexcept nogil:
    return 0 if box < 0 else (box if box < count else count - 1)


cdef void plan_columns(Columns *columns) noexcept nogil:
    """What the row of outputs is made with, and which boxes it looks at."""
    cdef const Axis *axis = &columns.axis
    cdef int64_t start = look(axis, columns.begin), stop = look(axis, columns.begin + columns.n - 1)
    cdef int64_t step = axis.step * axis.size, unit = axis.twice << (axis.shift + axis.k)
    cdef int64_t pace = step if step > 0 else -step
    cdef Py_ssize_t low = min(start, stop) >> 16, high = (max(start, stop) >> 16) + 1
    columns.f = (start & (PIXEL - 1)) >> 1
    columns.kind = GATHER
    columns.shared = 16 if 15 * pace <= 14 * PIXEL * unit else (8 if 7 * pace <= 14 * PIXEL * unit else 4)
    if step == PIXEL * unit:
        columns.kind = SHIFT if columns.f else COPY
        high -= columns.kind == COPY
    elif step == 2 * PIXEL * unit:
        columns.kind = HALVE
    columns.base = limited(low, axis.count)
    columns.span = limited(high, axis.count) - columns.base + 1
    columns.ahead = 1 + AHEAD // (columns.span << axis.k)
    if columns.kind != GATHER:
        plan_edges(columns, low, axis.count - (1 if columns.kind == COPY else 2), 2 if columns.kind == HALVE else 1)


cdef void plan_edges(Columns *columns, Py_ssize_t low, Py_ssize_t limit, int step) noexcept nogil:
    """Part the outputs, the first at box `low`, at those before box 0 and those beyond box `limit`."""
    columns.left = min((step - 1 - low) // step, columns.n) if low < 0 else 0
    low += columns.left * step
    columns.inside = min((limit - low) // step + 1, columns.n - columns.left) if low <= limit else 0
    columns.at = low - columns.base


cdef void plan_taps(Columns *columns) noexcept nogil:
    """Fill in the table of GATHER. S advances exactly: quotient and remainder of its step are carried on."""
    cdef const Axis *axis = &columns.axis
    cdef Taps *taps = &columns.taps
    cdef int64_t first = (axis.distance + axis.step * columns.begin) * axis.size, step = axis.step * axis.size
    cdef int64_t position = axis.start + first // axis.twice, rest = first % axis.twice
    cdef int64_t quotient = step // axis.twice, remainder = step % axis.twice, place
    cdef Py_ssize_t block, i
    cdef Py_ssize_t left[16]
    cdef Py_ssize_t right[16]
    if remainder < 0:
        quotient, remainder = quotient - 1, remainder + axis.twice
    for block in range(0, 8 * groups(columns), 16):
        for i in range(16):
            place = among_boxes(axis, position)
            left[i] = limited(place >> 16, axis.count) - columns.base
            right[i] = limited((place >> 16) + 1, axis.count) - columns.base
            taps.fraction[block + i] = <int16_t>((place & (PIXEL - 1)) >> 1)
            if block + i + 1 < columns.n:  # beyond, the last output is repeated
                position, rest = position + quotient, rest + remainder
                if rest >= axis.twice:
                    position, rest = position + 1, rest - axis.twice
        plan_windows(columns, block, left, right)


cdef inline void plan_windows(Columns *columns, Py_ssize_t block, const Py_ssize_t *left,
                              const Py_ssize_t *right) noexcept nogil:
    """Of 16 outputs, the first number `block`."""
    cdef Taps *taps = &columns.taps
    cdef Py_ssize_t i, first, window = 0
    for i in range(16):
        if i % 4 == 0:
            first = i - i % columns.shared
            window = min(left[first], left[first + columns.shared - 1])
            window = max(min(window, columns.span - 16), 0)
            taps.window[(block + i) // 4] = <int32_t>window
        taps.pair[2 * (block + i)] = <uint8_t>(left[i] - window)
        taps.pair[2 * (block + i) + 1] = <uint8_t>(right[i] - window)


# --- room: memory -----------------------------------------------------------------------------------------------------


cdef inline Py_ssize_t groups(const Columns *columns) noexcept nogil:
    return (columns.n + 31) // 32 * 4 if columns.kind == GATHER else 0


cdef Py_ssize_t row_bytes(const Job *job) noexcept nogil:
    """Of a scratch row: the widest of what is looked at and what is painted."""
    cdef Py_ssize_t widest = job.canvas[0].width, n
    cdef int siting
    for n in range(job.count):
        for siting in range(3):
            widest = max(widest, job.items[n].columns[siting].span)
    return (widest + PAD + 63) & ~63


cdef Py_ssize_t sum_bytes(const Job *job) noexcept nogil:
    cdef Py_ssize_t widest = 0, n
    cdef int siting
    for n in range(job.count):
        for siting in range(3):
            if job.items[n].columns[siting].span:
                widest = max(widest, job.items[n].columns[siting].span << job.items[n].columns[siting].axis.k)
    return (4 * widest + 63) & ~63


cdef Py_ssize_t size_of_memory(const Job *job, int threads) noexcept nogil:
    cdef Py_ssize_t tables = 0, n
    cdef int siting
    for n in range(job.count):
        for siting in range(3):
            tables += groups(&job.items[n].columns[siting])
    return TAP_BYTES * tables + threads * (13 * row_bytes(job) + sum_bytes(job)) + 64


cdef void share_out(Job *job, Worker *workers, int threads, uint8_t *memory) noexcept nogil:
    """Cut memory into the tables, which are filled in, and every worker's scratch."""
    cdef Py_ssize_t bytes_per_row = row_bytes(job), n
    cdef int siting, i, lane
    cdef Columns *columns
    memory += -<intptr_t>memory & 63  # table loads within a cache line
    for i in range(threads):
        workers[i].job = job
        workers[i].full, memory = memory, memory + bytes_per_row
        memset(workers[i].full, 255, bytes_per_row)
        for lane in range(3):
            workers[i].lanes[lane].boxes[0] = memory
            workers[i].lanes[lane].boxes[1] = memory + bytes_per_row
            workers[i].lanes[lane].line = memory + 2 * bytes_per_row
            workers[i].lanes[lane].out = memory + 3 * bytes_per_row
            memory += 4 * bytes_per_row
        workers[i].sums, memory = <uint32_t *>memory, memory + sum_bytes(job)
    for n in range(job.count):
        for siting in range(3):
            columns = &job.items[n].columns[siting]
            columns.taps.window = <int32_t *>memory
            columns.taps.pair = memory + 8 * groups(columns)
            columns.taps.fraction = <int16_t *>(memory + 24 * groups(columns))
            memory += TAP_BYTES * groups(columns)
            if columns.kind == GATHER:
                plan_taps(columns)


# --- room: painting ---------------------------------------------------------------------------------------------------


cdef void paint(Worker *workers, int threads) noexcept nogil:
    """Let the workers paint; where a thread cannot be had, the others do its part."""
    cdef pthread_t started[THREADS]
    cdef int i, count = 0
    for i in range(1, threads):
        count += pthread_create(&started[count], NULL, work, &workers[i]) == 0
    work(&workers[0])
    for i in range(count):
        pthread_join(started[i], NULL)


cdef void *work(void *argument) noexcept nogil:
    cdef Worker *worker = <Worker *>argument
    cdef Job *job = worker.job
    cdef Py_ssize_t begin = take_block(&job.next) * BLOCK, end, n
    while begin < job.canvas[0].height:
        end = min(begin + BLOCK, job.canvas[0].height)
        for n in range(job.count):
            if n + 1 == job.count or not job.items[n + 1].fused:
                paint_rows(worker, &job.items[n], LUMA, begin, end)
                paint_rows(worker, &job.items[n], CHROMA, begin // 2, end // 2)
        begin = take_block(&job.next) * BLOCK
    return NULL


cdef void paint_rows(Worker *worker, const Item *item, int siting, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """The rows [begin, end) of the canvas planes of a siting, as far as the layer goes."""
    cdef Job *job = worker.job
    cdef Py_ssize_t n = item.columns[siting].n, row
    cdef int masks = CHROMA_ALPHA if siting == CHROMA and not item.group else siting
    cdef int i, mask_plane = 4 if siting == CHROMA and item.group else 3
    cdef bint opaque = not item.masked and item.alpha == 255
    cdef Row mask, src
    cdef uint8_t *out
    for i in range(3):
        worker.lanes[i].held[0] = worker.lanes[i].held[1] = -1
    if n <= 0:
        return
    for row in range(max(begin, item.top[siting]), min(end, item.bottom[siting])):
        if item.masked:
            mask = sample(worker, 2, item, mask_plane, masks, row, worker.lanes[2].out)
        for i in range(siting, 2 * siting + 1):
            out = job.canvas[i].data + row * job.canvas[i].stride + item.columns[siting].begin
            src = colour(worker, item, i, siting, row, out if opaque else worker.lanes[i - siting].out)
            lay(job.rows, item, out, below(worker, item, i, siting, row, out), src, mask, n)
        if job.covers:
            i = 3 + siting
            out = job.canvas[i].data + row * job.canvas[i].stride + item.columns[siting].begin
            src.at, src.ahead = worker.full, 0
            lay(job.rows, item, out, below(worker, item, i, siting, row, out), mask if item.group else src, mask, n)


cdef inline Row colour(Worker *worker, const Item *item, int i, int siting, Py_ssize_t row,
                       uint8_t *out) noexcept nogil:
    """What a layer shows on canvas plane i, at `out` or where it stands."""
    cdef Row found
    if not item.solid:
        return sample(worker, i - siting, item, i, siting, row, out)
    memset(out, item.colour[i], item.columns[siting].n)
    found.at, found.ahead = out, 0
    return found


cdef inline Row below(Worker *worker, const Item *item, int i, int siting, Py_ssize_t row, uint8_t *out) noexcept nogil:
    """What a layer is laid over on canvas plane i: the canvas, or the layer it is fused with where that one stands."""
    cdef Row found
    if item.fused and i < 3:
        return sample(worker, i - siting, item - 1, i, siting, row, out)
    found.at, found.ahead = worker.full if item.fused else out, 0
    return found


cdef inline void lay(const PictureRows *rows, const Item *item, uint8_t *out, Row dst, Row src, Row mask,
                     Py_ssize_t n) noexcept nogil:
    """A finished row onto the canvas."""
    if item.group:
        rows.group(out, dst, src, mask, item.alpha, n)
    elif item.masked:
        rows.mask(out, dst, src, mask, item.alpha, n)
    elif item.alpha < 255:
        rows.blend(out, dst, src, item.alpha, n)
    elif out != src.at:
        rows.copy(out, src, n)


cdef Row sample(Worker *worker, int lane, const Item *item, int i, int siting, Py_ssize_t row,
                uint8_t *out) noexcept nogil:
    """Plane i of a layer for one row of the canvas: at `out`, or in the plane itself where it stands there as it is."""
    cdef const Columns *columns = &item.columns[siting]
    cdef const Axis *down = &item.rows[siting]
    cdef const Plane *plane = &item.planes[i]
    cdef const PictureRows *rows = worker.job.rows
    cdef int64_t place = look(down, row)
    cdef Py_ssize_t a = limited(place >> 16, down.count), b = limited((place >> 16) + 1, down.count)
    cdef Py_ssize_t ahead = (limited(look(down, row + columns.ahead) >> 16, down.count) - a) * plane.stride
    cdef int f = (place & (PIXEL - 1)) >> 1
    cdef Row found = boxes(worker, lane, plane, columns, down, a, b)
    cdef bint whole = columns.kind == COPY and columns.inside == columns.n
    cdef uint8_t *line = out if whole else worker.lanes[lane].line
    cdef Row q
    if down.k == 0 and columns.axis.k == 0:  # straight from the plane: the rows of some canvas rows later
        found.ahead = ahead
    if f and a != b:
        q = boxes(worker, lane, plane, columns, down, b, a)
        q.ahead = found.ahead
        rows.lerp(line, found, q, f, columns.span)
        found.at, found.ahead = line, 0
    elif columns.kind == GATHER and columns.span < 16:
        memcpy(line, found.at, columns.span)  # windows are 16 wide; the plane may end before
        found.at, found.ahead = line, 0
    if not whole:
        along(rows, columns, found, out)
        found.at, found.ahead = out, 0
    return found


cdef void along(const PictureRows *rows, const Columns *columns, Row row, uint8_t *out) noexcept nogil:
    """A row of boxes to a row of outputs."""
    cdef Py_ssize_t right = columns.left + columns.inside
    cdef Row inside, following
    if columns.kind == GATHER:
        rows.gather(out, row, &columns.taps, columns.shared, columns.n)
        return
    inside.at, inside.ahead = row.at + columns.at, row.ahead
    memset(out, row.at[0], columns.left)
    if columns.kind == COPY:
        rows.copy(out + columns.left, inside, columns.inside)
    elif columns.kind == SHIFT:
        following.at, following.ahead = inside.at + 1, row.ahead
        rows.lerp(out + columns.left, inside, following, columns.f, columns.inside)
    else:
        rows.halve(out + columns.left, inside, columns.f, columns.inside)
    memset(out + right, row.at[columns.span - 1], columns.n - right)


cdef Row boxes(Worker *worker, int number, const Plane *plane, const Columns *columns, const Axis *down,
               Py_ssize_t row, Py_ssize_t other) noexcept nogil:
    """Boxes [base, base + span) of a row of boxes; made once for rows that follow each other. `other` must stay."""
    cdef Lane *lane = &worker.lanes[number]
    cdef Row found
    found.ahead = 0
    cdef int i
    if down.k == 0 and columns.axis.k == 0:
        found.at = plane.data + (down.first + row) * plane.stride + columns.axis.first + columns.base
        return found
    for i in range(2):
        if lane.held[i] == row:
            found.at = lane.boxes[i]
            return found
    i = 1 if lane.held[0] == other else 0
    lane.held[i] = row
    average(worker, plane, columns, down, row, lane.boxes[i])
    found.at = lane.boxes[i]
    return found


cdef void average(Worker *worker, const Plane *plane, const Columns *columns, const Axis *down, Py_ssize_t row,
                  uint8_t *out) noexcept nogil:
    """A row of boxes from the samples behind it."""
    cdef const PictureRows *rows = worker.job.rows
    cdef uint32_t *sums = worker.sums
    cdef int kx = columns.axis.k, ky = down.k, i
    cdef Py_ssize_t left = columns.axis.first + (columns.base << kx), top = down.first + (row << ky), n
    cdef Py_ssize_t count = columns.span << kx, real = min(count, columns.axis.last + 1 - left)
    cdef Row p, q
    p.at, p.ahead = plane.data + top * plane.stride + left, (columns.ahead + 1) * plane.stride
    if down.step < 0:
        p.ahead = -p.ahead
    if kx == 1 and ky == 1:
        q.at, q.ahead = plane.data + min(top + 1, down.last) * plane.stride + left, p.ahead
        rows.box(out, p, q, real // 2)
        if real % 2:  # the last sample stands for the one beyond
            out[real // 2] = (p.at[real - 1] + q.at[real - 1] + 1) >> 1
        return
    memset(sums, 0, 4 * real)
    for n in range(top, top + (1 << ky)):
        p.at = plane.data + min(n, down.last) * plane.stride + left
        rows.add(sums, p, real)
    for n in range(real, count):
        sums[n] = sums[real - 1]
    for i in range(kx):
        count = count // 2
        rows.fold(sums, count)
    rows.average(out, sums, kx + ky, columns.span)
