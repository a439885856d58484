"""The oracles: what every kernel must compute, slow and obvious. They know no kernel and share no code with one."""

import numpy as np

# --- composite: picture -----------------------------------------------------------------------------------------------

ONE = 65536  # one pixel in 16.16 fixed point


def composite(y, u, v, layers, *, coverage=None):
    """Paint layers, first to last, onto the canvas in place; the meaning of engine_ext.composite.composite."""
    luma = [y] if coverage is None else [y, coverage[0]]
    chroma = [u, v] if coverage is None else [u, v, coverage[1]]
    for layer in layers:
        _paint(layer, luma, "luma")
        _paint(layer, chroma, "chroma")


def scaled(layer):
    """What a layer shows, without a canvas: planes of its own size, those of chroma half as wide and high, rounded up.

    A canvas takes only the rows of chroma that a layer owns; of an odd height the last one is half beyond it.
    """
    _, _, width, height = layer.dest
    made = []
    for n, plane in enumerate(layer.planes):
        half = 2 if n in (1, 2) else 1
        siting = ("luma", "luma") if half == 1 else ("chroma x", "chroma y")
        columns, rows = np.arange(-(-width // half)), np.arange(-(-height // half))
        made.append(np.ascontiguousarray(_sampled(layer, plane, columns, rows, siting, siting), np.uint8))
    return made


def _paint(layer, targets, siting):
    """One layer onto the planes of one siting; a last target beyond the colours is the coverage."""
    height, width = targets[0].shape
    columns = _covered(layer.dest[0], layer.dest[2], width, "luma" if siting == "luma" else "chroma x")
    rows = _covered(layer.dest[1], layer.dest[3], height, "luma" if siting == "luma" else "chroma y")
    if not len(columns) or not len(rows):
        return
    colours, sampled = _layer_values(layer, columns, rows, siting)
    group = len(layer.planes) == 5
    alpha = layer.alpha if sampled is None else _div255(sampled * layer.alpha)
    sources = [*colours, sampled if group else np.int64(255)]
    for target, source in zip(targets, sources, strict=False):
        part = target[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        weight = layer.alpha if group else alpha
        part[...] = np.minimum(_div255(source * weight + part.astype(np.int64) * (255 - alpha)), 255)


def _layer_values(layer, columns, rows, siting):
    """(colour values, alpha values or None) of a layer at canvas columns × rows of a siting."""
    planes = layer.planes
    luma = siting == "luma"
    if isinstance(planes[0], int):
        return [np.int64(value) for value in (planes[:1] if luma else planes[1:])], None
    own = ("luma", "luma") if luma else ("chroma x", "chroma y")
    colours = [_sampled(layer, plane, columns, rows, own, own) for plane in (planes[:1] if luma else planes[1:3])]
    if len(planes) == 3:
        return colours, None
    if len(planes) == 4:
        return colours, _sampled(layer, planes[3], columns, rows, own, ("luma", "luma"))
    return colours, _sampled(layer, planes[3 if luma else 4], columns, rows, own, own)


def _sampled(layer, plane, columns, rows, positions, grids):
    """A plane scaled, cropped and mirrored: int64 values at canvas columns × rows.

    positions  siting of the canvas samples per axis (x, y)
    grids      siting of the plane's own samples per axis
    """
    (dest_x, dest_y, dest_w, dest_h), (height, width) = layer.dest, layer.planes[0].shape
    crop_x, crop_w = _quantised(layer.crop[0], layer.crop[2], width)
    crop_y, crop_h = _quantised(layer.crop[1], layer.crop[3], height)
    x = _axis(columns, dest_x, dest_w, crop_x, crop_w, layer.mirror_x, positions[0], grids[0])
    y = _axis(rows, dest_y, dest_h, crop_y, crop_h, layer.mirror_y, positions[1], grids[1])
    boxes = _boxes(plane, x["pixels"], y["pixels"])
    lines = _lerp(boxes[y["a"]], boxes[y["b"]], y["f"][:, None])
    return _lerp(lines[:, x["a"]], lines[:, x["b"]], x["f"])


def _axis(indices, start, size, crop_start, crop_size, mirrored, siting, grid):
    """Along one axis: the pixels behind every box, and both taps and the fraction of every canvas index."""
    first, last = crop_start // ONE, -(-(crop_start + crop_size) // ONE) - 1
    distance = {"luma": 2 * (indices - start) + 1, "chroma x": 4 * indices + 1 - 2 * start}.get(siting)
    if siting == "chroma y":
        distance = 4 * indices + 2 - 2 * start
    if mirrored:
        distance = 2 * size - distance
    position = crop_start + distance * crop_size // (2 * size)
    if grid == "luma":
        position = position - ONE // 2
    else:
        position = (position - (ONE // 2 if grid == "chroma x" else ONE)) // 2
        first, last = first // 2, -(-(last + 1) // 2) - 1
    k = 0
    while crop_size > 2 * size * ONE * 2**k:
        k += 1
    count = -(-(last - first + 1) // 2**k)
    position = (position - first * ONE + ONE // 2) // 2**k - ONE // 2
    pixels = np.minimum(first + np.arange(count * 2**k), last).reshape(count, 2**k)
    nearest = position // ONE
    a, b = np.clip(nearest, 0, count - 1), np.clip(nearest + 1, 0, count - 1)
    return {"pixels": pixels, "a": a, "b": b, "f": position % ONE // 2}


def _boxes(plane, columns, rows):
    """Averages of plane over rows[i] × columns[j], rounded half up."""
    sums = plane[:, columns].sum(axis=2, dtype=np.int64)[rows].sum(axis=1)
    area = columns.shape[1] * rows.shape[1]
    return (sums + area // 2) // area


def _covered(start, size, limit, siting):
    """The canvas indices a rectangle owns along one axis; adjoining rectangles share none and leave none out."""
    stop = start + size
    if siting == "chroma x":
        start, stop = -(-start // 2), -(-stop // 2)
    elif siting == "chroma y":
        start, stop = start // 2, stop // 2
    return np.arange(max(start, 0), min(stop, limit), dtype=np.int64)


def _quantised(start, size, limit):
    start, size = (int(np.floor(value * ONE + 0.5)) for value in (start, size))
    return start, min(size, limit * ONE - start)


def _lerp(p, q, f):
    return p + (((q - p) * f + 0x4000) >> 15)


def _div255(t):
    return (t + 128 + ((t + 128) >> 8)) >> 8


# --- effect: picture --------------------------------------------------------------------------------------------------

F = np.float32


def effect(name, *arguments):
    """What engine_ext.effect's function of that name makes of planes; new arrays, nothing in place."""
    made = {"convolve": _convolved, "recolour": _recoloured, "key": _keyed, "luma": _luma, "veil": _veiled}
    return made[name](*arguments)


def _convolved(plane, matrix, zero, bias):
    height, width = plane.shape
    around = np.pad(plane, 1, mode="reflect").astype(F) - F(zero)
    total = np.zeros(plane.shape, F)
    for k in range(9):
        total += F(matrix[k]) * around[k // 3 : k // 3 + height, k % 3 : k % 3 + width]
    return _byte(total + (F(zero) + F(bias) + F(0.5)))


def _recoloured(planes, matrix):
    """(y, u, v, a)."""
    y, u, v, a = planes
    height, width = y.shape
    a = np.full_like(y, 255) if a is None else a
    down, across = np.minimum(np.arange(height) // 2, len(u)), np.arange(width) // 2
    _, _, _, luma, alpha = _mixed(y.astype(F), u[down][:, across], v[down][:, across], a.astype(F), matrix)
    upper, lower = np.arange(0, height, 2), np.minimum(np.arange(0, height, 2) + 1, height - 1)
    means = [F(0.5) * (each[upper, ::2].astype(F) + each[lower, ::2].astype(F)) for each in (y, a)]
    red, _, blue, grey, _ = _mixed(means[0], u, v, means[1], matrix)
    cb = _byte((blue - grey) * F(120.715674) + F(128.5))
    cr = _byte((red - grey) * F(142.24028) + F(128.5))
    return _byte(luma * F(219) + F(16.5)), cb, cr, _byte(alpha * F(255) + F(0.5))


def _mixed(y, u, v, a, matrix):
    """R'G'B', luma and alpha, 0…1, of samples that stand at one place."""
    grey, a = (y - F(16)) * F(1 / 219), a * F(1 / 255)
    cb, cr = (u.astype(F) - F(128)) * F(1 / 224), (v.astype(F) - F(128)) * F(1 / 224)
    red = _unit(grey + F(1.5748) * cr)
    green = _unit(grey - F(0.46812427) * cr - F(0.18732427) * cb)
    blue = _unit(grey + F(1.8556) * cb)
    rows = [_unit(F(m[0]) * red + F(m[1]) * green + F(m[2]) * blue + F(m[3]) * a) for m in matrix]
    return *rows[:3], F(0.2126) * rows[0] + F(0.7152) * rows[1] + F(0.0722) * rows[2], rows[3]


def _keyed(a, u, v, cb, cr, similarity, blend):
    height, width = a.shape
    p, q = u.astype(F) - F(128), v.astype(F) - F(128)
    x = F(0.98986) * p - F(0.11065) * q + F(128 - cb)
    y = F(0.98338) * q - F(0.07245) * p + F(128 - cr)
    distance = np.sqrt(x * x + y * y)
    wide = distance.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    wide = np.pad(np.pad(wide, ((0, 0), (1, 1)), mode="edge"), ((1, 1), (0, 0)))
    sums = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    sums = sums[:-2] + sums[1:-1] + sums[2:]
    beyond = sums * F(1 / 3245.6201) - F(similarity)
    if F(blend) > F(0.0001):
        shown = np.clip((beyond * (F(1) / F(blend)) * F(255)).astype(np.int64), 0, 255)
    else:
        shown = np.where(beyond > 0, 255, 0)
    return _div255(a.astype(np.int64) * shown).astype(np.uint8)


def _luma(y, u, v):
    """(at luma positions, at chroma positions)."""
    y, u, v = y.astype(np.int64), u.astype(np.int64), v.astype(np.int64)
    u, v = (each.repeat(2, axis=0).repeat(2, axis=1) for each in (u, v))
    m = np.clip((76309 * (y - 16) + 14628 * (v - 128) + 7578 * (u - 128) + 32768) >> 16, 0, 255)
    return m.astype(np.uint8), ((m[::2, ::2] + m[1::2, ::2] + 1) >> 1).astype(np.uint8)


def _veiled(plane, mask):
    return _div255(plane.astype(np.int64) * mask).astype(np.uint8)


def _unit(values):
    return np.clip(values, F(0), F(1))


def _byte(values):
    return np.clip(values, F(0), F(255)).astype(np.uint8)


# --- mix: sound -------------------------------------------------------------------------------------------------------


def mix(shape, blocks):
    """Sum blocks of (samples, offset, (from, to), ramp) into silence of `shape`; (out, number of clipped samples)."""
    f32 = np.float32
    out = np.zeros(shape, f32)
    with np.errstate(all="ignore"):
        for samples, offset, (start, stop), ramp in blocks:
            inputs, n = samples.shape
            floats = samples / f32(32768) if samples.dtype == np.int16 else samples
            clean = np.where(np.isfinite(floats), floats, f32(0))
            i = np.arange(n)
            for o in range(shape[0]):
                for c in range(inputs):
                    begin, end = f32(start[o * inputs + c]), f32(stop[o * inputs + c])
                    step = (end - begin) / np.int64(ramp).astype(f32)
                    gain = np.where(i >= ramp, end, begin + step * i.astype(f32))
                    out[o, offset : offset + n] += clean[c] * gain
    clipped = np.count_nonzero(~(np.abs(out) <= 1))
    return np.clip(np.where(np.isnan(out), f32(0), out), f32(-1), f32(1)), clipped
