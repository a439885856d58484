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


# --- mix: sound -------------------------------------------------------------------------------------------------------


def mix(shape, blocks):
    """Sum blocks of (samples, offset, (from, to), ramp) into silence of `shape`; (out, number of clipped samples)."""
    f32 = np.float32
    out = np.zeros(shape, f32)
    with np.errstate(all="ignore"):
        for samples, offset, (start, stop), ramp in blocks:
            inputs, n = samples.shape
            clean = np.where(np.isfinite(samples), samples, f32(0))
            i = np.arange(n)
            for o in range(shape[0]):
                for c in range(inputs):
                    begin, end = f32(start[o * inputs + c]), f32(stop[o * inputs + c])
                    step = (end - begin) / np.int64(ramp).astype(f32)
                    gain = np.where(i >= ramp, end, begin + step * i.astype(f32))
                    out[o, offset : offset + n] += clean[c] * gain
    clipped = np.count_nonzero(~(np.abs(out) <= 1))
    return np.clip(np.where(np.isnan(out), f32(0), out), f32(-1), f32(1)), clipped
