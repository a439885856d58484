"""Stills: every format, its alpha, its colour at the edges of the see-through, and its EXIF orientation."""

import os
import struct
import zlib
from fractions import Fraction
from functools import partial

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace

from engine import plan as planner
from engine.compositor import Compositor
from engine.config import Settings
from engine.errors import SourceMalformed, SourceUnavailable, SourceUnsupported
from engine.plan import PictureSize, pictures_named
from engine.sources import open_source
from engine.sources.still import StillSource, exif_orientation, is_still, load_still, still_size
from engine.spec import MAX_SIDE, AudioFormat, MixerSpec, Raster
from engine.tree import CompositorNode, ImageSourceNode, RenderTree, SolidColorNode
from tests.media import COLOUR, OPTIONS, Video, colour_yuv, encode, heif, mp4_box, read_number

WANTED = colour_yuv(COLOUR, "bt709")
FORMATS = {
    "png": ("png", "rgb24"),
    "16.png": ("png", "rgb48be"),
    "jpg": ("mjpeg", "yuvj420p"),
    "444.jpg": ("mjpeg", "yuvj444p"),
    "bmp": ("bmp", "bgr24"),
    "webp": ("libwebp", "yuv420p"),
    "gif": ("gif", "rgb8"),
    "a.png": ("png", "rgba"),
    "a16.png": ("png", "rgba64be"),
    "a.webp": ("libwebp", "bgra"),
    "a.bmp": ("bmp", "bgra"),
    "tiff": ("tiff", "rgb24"),
    "16.tiff": ("tiff", "rgb48le"),
    "a.tiff": ("tiff", "rgba"),
    "avif": ("libsvtav1", "yuv420p"),
}


def painted(width=48, height=32):
    rgba = np.empty((height, width, 4), np.uint8)
    rgba[:] = (*COLOUR, 255)
    return rgba


def written(path, rgba, codec, pix_fmt):
    """An image file of any format."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgba), "rgba")
    jpeg = pix_fmt.startswith("yuv")
    matrix, full = (5, 2 if "j" in pix_fmt else 1) if jpeg else (None, None)
    frame = frame.reformat(format=pix_fmt, dst_colorspace=matrix, dst_color_range=full)
    muxer = {".webp": "webp", ".gif": "gif", ".avif": "avif"}.get(path.suffix, "image2")
    with av.open(str(path), "w", format=muxer, options={"update": "1"} if muxer == "image2" else {}) as out:
        stream = out.add_stream(codec, rate=1)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pix_fmt
        if jpeg:
            stream.codec_context.color_range = 2 if "j" in pix_fmt else 1
        out.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def tiff(orientation, order):
    entries = [(0x10F, 2, 4, b"me\0\0"), (0x112, 3, 1, struct.pack(order + "HH", orientation, 0))]
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    body = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    return head + struct.pack(order + "H", len(entries)) + body + bytes(4)


def levels(frame):
    return tuple(float(plane.mean()) for plane in (frame.y, frame.u, frame.v))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_its_colour(tmp_path, name):
    path = str(written(tmp_path / f"x.{name}", painted(), *FORMATS[name]))
    frame = load_still("logo", path)
    assert is_still(path) == (name != "gif")  # and lasts for ever
    assert (frame.width, frame.height) == still_size("logo", path) == (48, 32)
    assert levels(frame) == pytest.approx(WANTED, abs=2)
    assert frame.a is None or frame.a.min() == 255


@pytest.mark.parametrize("form", [("x.avif", "libsvtav1", "yuv420p"), ("x.tiff", "tiff", "yuv420p")])
@pytest.mark.parametrize("size", [(640, 360), (1280, 720), (320, 640)])
def test_untagged_still_is_bt601_however_large(tmp_path, form, size):
    name, *codec = form
    frame = load_still("logo", str(written(tmp_path / name, painted(*size), *codec)))
    assert levels(frame) == pytest.approx(WANTED, abs=2)


@pytest.mark.parametrize("pix_fmt", ["gray", "gray16be", "ya8"])
def test_grey_is_full_range(tmp_path, pix_fmt):
    rgba = painted()
    for level, expected in ((0, 16), (255, 235), (128, 126)):
        rgba[..., :3] = level
        frame = load_still("logo", str(written(tmp_path / "x.png", rgba, "png", pix_fmt)))
        assert levels(frame) == pytest.approx((expected, 128, 128), abs=1)


@pytest.mark.parametrize("name", ["a.png", "a16.png", "a.webp", "a.bmp", "a.tiff"])
def test_alpha_is_straight_and_hidden_pixels_have_their_neighbours_colour(tmp_path, name):
    rgba = painted()
    rgba[:, 24:] = (0, 255, 0, 0)
    rgba[:, 10:24, 3] = 128
    frame = load_still("logo", str(written(tmp_path / f"x.{name}", rgba, *FORMATS[name])))
    assert (frame.a[:, :10].min(), frame.a[:, 24:].max()) == (255, 0)
    assert set(np.unique(frame.a[:, 10:24])) <= {127, 128, 129, 130}
    assert frame.y[:, :27].mean() == pytest.approx(WANTED[0], abs=2)
    assert frame.u[:, :13].mean() == pytest.approx(WANTED[1], abs=2.5)


def test_large_see_through_picture_is_spread_the_same_at_every_height(tmp_path):
    rgba = painted(16, 700)
    rgba[:, 8:] = (0, 255, 0, 0)
    rgba[255:257, :8, :3] = 255
    frame = load_still("logo", str(written(tmp_path / "x.png", rgba, "png", "rgba")))
    same = np.delete(frame.y, np.s_[230:282], axis=0)
    assert (same == same[0]).all()


def disc(width, height):
    """A white disc with a smooth edge in the middle of hidden black."""
    y, x = np.ogrid[-height:height:2, -width:width:2]
    distance = np.hypot((x + 1) / width, (y + 1) / height) * min(width, height) / 2
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[..., 3] = np.clip(0.4 * min(width, height) - distance + 0.5, 0, 1) * 255
    rgba[rgba[..., 3] > 0, :3] = 255
    return rgba


def over_white(frame, width, height):
    """Luma of a picture that fills a white canvas of that size."""
    raster, logo = Raster(width, height), ImageSourceNode(filename="logo")
    tree = RenderTree(root_video_node=CompositorNode(nodes=(SolidColorNode(red=1.0, green=1.0, blue=1.0), logo)))
    (picture,) = pictures_named(tree)
    plan = planner.compile(tree, raster, {picture: PictureSize(frame.width, frame.height, opaque=False)})
    return Compositor(MixerSpec(raster=raster)).paint(plan, {picture: frame}).y


@pytest.mark.parametrize("shown", [(600, 600), (280, 280), (96, 96), (32, 32), (18, 18), (8, 8), (4, 4), (100, 6)])
def test_white_logo_on_hidden_black_is_not_seen_over_white_at_any_size(tmp_path, shown):
    frame = load_still("logo", str(written(tmp_path / "x.png", disc(301, 299), "png", "rgba")))
    assert over_white(frame, *shown).min() == 235


@pytest.mark.parametrize("size", [(1, 1), (1, 97), (97, 1), (2, 1), (3, 5), (31, 33), (67, 64), (64, 35)])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_what_is_visible_keeps_its_colour_and_nothing_hidden_does(tmp_path, size, share):
    rng = np.random.default_rng(4)
    rgba = rng.integers(0, 256, (size[1], size[0], 4), np.uint8)
    rgba[..., 3] |= 1
    rgba[..., :3] = rgba[..., :3] // 4 + 128
    hidden = rng.random(rgba.shape[:2]) < share
    rgba[0, 0, 3] = 255
    hidden[0, 0] = False
    opaque = rgba.copy()
    opaque[..., 3] = 255
    rgba[hidden] = 0
    frame = load_still("logo", str(written(tmp_path / "x.png", rgba, "png", "rgba")))
    known = load_still("logo", str(written(tmp_path / "y.png", opaque, "png", "rgba")))
    assert np.abs(frame.a.astype(int) - rgba[..., 3]).max() <= 2  # as libav rounds it
    assert ((frame.a == 0) == hidden).all()
    assert (frame.y[~hidden] == known.y[~hidden]).all()
    assert frame.y.min() >= 16 + 219 * 127 // 255  # no black is left, and none comes from beyond the picture's edge


def test_hidden_pixels_have_the_colour_of_the_nearest_part_of_a_picture(tmp_path):
    rgba = np.zeros((64, 130, 4), np.uint8)
    rgba[20:40, 30:37] = (255, 0, 0, 255)
    rgba[20:40, 95:101] = (0, 0, 255, 255)
    frame = load_still("logo", str(written(tmp_path / "x.png", rgba, "png", "rgba")))
    assert len(np.unique(frame.y[22:38, 26:41])) == 1
    assert len(np.unique(frame.y[22:38, 91:105])) == 1
    assert frame.v[16, 5] > 200 > frame.u[16, 5]
    assert frame.u[16, 60] > 200 > frame.v[16, 60]


def png_of_greys(depth, hidden, *others, moving=False):
    """A PNG of one row, all greys of that depth from left to right, one of them see-through; `moving`: twice."""
    row = np.arange(1 << depth, dtype=np.uint8)
    bits = np.packbits(np.unpackbits(row[:, np.newaxis], axis=1)[:, 8 - depth :])
    head = struct.pack(">IIBBBBB", len(row), 1, depth, 0, 0, 0, 0)
    key = (b"tRNS", struct.pack(">H", hidden))
    pixels = zlib.compress(b"\0" + bits.tobytes())
    chunks = [(b"IHDR", head), *others, key, (b"IDAT", pixels), (b"IEND", b"")]
    if moving:
        first, second = (struct.pack(">IIIIIHHBB", n, len(row), 1, 0, 0, 1, 5, 0, 0) for n in (0, 1))
        chunks[-2:-2] = [(b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", first)]
        chunks[-1:-1] = [(b"fcTL", second), (b"fdAT", struct.pack(">I", 2) + pixels)]
    made = [
        struct.pack(">I", len(each)) + name + each + struct.pack(">I", zlib.crc32(name + each)) for name, each in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("others", [[], [(b"sBIT", b"\1"), (b"bKGD", b"\0\1"), (b"eXIf", tiff(3, "<"))]])
def test_grey_that_a_png_says_is_see_through_is(tmp_path, depth, others):
    path, count = tmp_path / "x.png", 1 << depth
    for hidden in (0, count - 1):
        path.write_bytes(png_of_greys(depth, hidden, *others))
        frame = load_still("logo", str(path))
        step = -1 if others else 1  # it is turned by half
        assert frame.a[0, ::step].tolist() == [0 if n == hidden else 255 for n in range(count)]
        seen = np.delete(np.arange(count), hidden)
        assert frame.y[0, ::step][seen] == pytest.approx(16 + 219 * seen / (count - 1), abs=1)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_that_a_moving_png_says_is_see_through_is(tmp_path, depth):
    path, count = tmp_path / "x.png", 1 << depth
    path.write_bytes(png_of_greys(depth, count - 1, moving=True))
    source = open_source("x", str(path), sound=AudioFormat(), settings=Settings())
    found = source.step(pictures=100, sounds=None, start=Fraction(0))
    source.close()
    assert len(found.pictures) == 2
    for _, _, frame in found.pictures:
        assert frame.a[0].tolist() == [255] * (count - 1) + [0]
        assert frame.y[0, :-1] == pytest.approx(16 + 219 * np.arange(count - 1) / (count - 1), abs=1)


def test_all_hidden_picture_stays_hidden(tmp_path):
    rgba = painted()
    rgba[..., 3] = 0
    assert load_still("logo", str(written(tmp_path / "x.png", rgba, "png", "rgba"))).a.max() == 0


# EXIF 2.32: where the picture's top left and top right corner are when it stands upright


QUARTERS = np.array([[0, 80], [160, 240]])  # top left and right, bottom left and right, as stored


UPRIGHT = {
    1: QUARTERS,
    2: QUARTERS[:, ::-1],
    3: QUARTERS[::-1, ::-1],
    4: QUARTERS[::-1],
    5: QUARTERS.T,
    6: np.rot90(QUARTERS, -1),
    7: np.rot90(QUARTERS, 2).T,
    8: np.rot90(QUARTERS, 1),
}


def with_exif(data, exif):
    """The same image with an EXIF block; a TIFF with its orientation."""
    if data.startswith(b"II*\0"):
        (at,) = struct.unpack_from("<I", data, 4)
        (count,) = struct.unpack_from("<H", data, at)
        entries = [data[n : n + 12] for n in range(at + 2, at + 2 + 12 * count, 12)]
        entries.append(struct.pack("<HHII", 0x112, 3, 1, exif_orientation(exif)))
        listed = struct.pack("<H", count + 1) + b"".join(sorted(entries, key=lambda each: each[1::-1])) + bytes(4)
        return data[:4] + struct.pack("<I", len(data)) + data[8:] + listed
    if data.startswith(b"\xff\xd8"):
        segment = b"Exif\0\0" + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    if data.startswith(b"\x89PNG"):
        chunk = b"eXIf" + exif
        return data[:33] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    size = (47).to_bytes(3, "little") + (31).to_bytes(3, "little")
    head = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + size
    body = head + data[12:] + b"EXIF" + struct.pack("<I", len(exif)) + exif + b"\0" * (len(exif) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["jpg", "png", "webp", "a.png", "tiff", "a.tiff"])
def test_exif_orientation_is_applied(tmp_path, name, orientation):
    rgba = painted()
    rgba[..., :3] = np.kron(QUARTERS, np.ones((16, 24)))[..., np.newaxis]
    if name.startswith("a."):
        rgba[0, 0, 3] = 0  # so that colours are spread
    path = written(tmp_path / f"x.{name}", rgba, *FORMATS[name])
    path.write_bytes(with_exif(path.read_bytes(), tiff(orientation, "<>"[orientation % 2])))
    frame = load_still("logo", str(path))
    assert (frame.width, frame.height) == ((48, 32) if orientation < 5 else (32, 48))
    assert still_size("logo", str(path)) == (frame.width, frame.height)
    height, width = frame.y.shape
    found = [[frame.y[height * y // 4, width * x // 4] for x in (1, 3)] for y in (1, 3)]
    assert np.abs((np.array(found) - 16.0) * 255 / 219 - UPRIGHT[orientation]).max() < 4


def test_a_picture_that_only_libav_knows_how_to_turn_has_the_size_it_is_shown_in(tmp_path):
    path = tmp_path / "x.jpg"
    data = with_exif(written(path, painted(), *FORMATS["jpg"]).read_bytes(), tiff(6, "<"))
    at = data.index(b"\xff\xe1")
    path.write_bytes(data[:at] + b"\xff" + data[at:])  # any marker may have more of these before it
    assert exif_orientation(path.read_bytes()) == 0
    frame = load_still("logo", str(path))
    assert (frame.width, frame.height) == (32, 48)
    assert still_size("logo", str(path)) == (32, 48)


def heic(folder, rgba, *own, matrix=5, **named):
    """A HEIC of a HEVC picture, untagged, with these properties."""
    film = folder / "photo.mp4"
    frame = av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format="yuv420p", dst_colorspace=matrix)
    frame.pts, frame.time_base = 0, Fraction(1)
    with av.open(str(film), "w") as out:
        stream = out.add_stream("libx265", rate=1, options=OPTIONS["libx265"] | {"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
        stream.codec_context.max_b_frames = 0  # else the dts of a single picture is anything
        out.mux([*stream.encode(frame), *stream.encode(None)])
    with av.open(str(film)) as container:
        sets, data = container.streams.video[0].codec_context.extradata, bytes(next(container.demux(video=0)))
    item = b"hvc1", data, (frame.width, frame.height), [mp4_box(b"hvcC", sets), *own]
    return str(heif(folder / "photo.heic", [item], main=1, **named))


@pytest.mark.parametrize(("matrix", "code"), [(Colorspace.ITU601, 6), (Colorspace.ITU709, 1)])
def test_a_photo_whose_file_alone_says_its_matrix_is_in_that_one(tmp_path, matrix, code):
    says = mp4_box(b"colr", b"nclx" + struct.pack(">3HB", 1, 13, code, 0))
    for width in (64, 1280):
        frame = load_still("logo", heic(tmp_path, painted(width, 64), says, matrix=matrix))
        assert levels(frame) == pytest.approx(WANTED, abs=2)


@pytest.fixture
def photo(tmp_path):
    """What makes a HEIC of four quarters, with these properties."""
    rgba = painted(64, 64)
    rgba[..., :3] = np.kron(QUARTERS, np.ones((32, 32)))[..., np.newaxis]
    return partial(heic, tmp_path, rgba)


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
@pytest.mark.parametrize(("orientation", "own"), [(1, []), (8, [(b"irot", b"\1")]), (2, [(b"imir", b"\1")])])
def test_a_photo_is_a_still_and_upright(photo, brand, orientation, own):
    path = photo(*(mp4_box(*each) for each in own), brand=brand)
    assert is_still(path)
    found = load_still("logo", path).y[16::32, 16::32]
    assert np.abs((np.array(found) - 16.0) * 255 / 219 - UPRIGHT[orientation]).max() < 4


def test_a_photo_in_tiles_is_refused(tmp_path):
    tile = b"jpeg", written(tmp_path / "x.jpg", painted(), *FORMATS["jpg"]).read_bytes(), (48, 32), ()
    grid = b"grid", struct.pack(">4B2H", 0, 0, 0, 1, 96, 32), (96, 32), ()
    path = heif(tmp_path / "photo.heic", [grid, tile, tile], main=1, refer=[(b"dimg", 1, 2, 3)], brand=b"heic")
    with pytest.raises(SourceUnsupported) as caught:
        load_still("logo", str(path))
    assert str(caught.value) == 'image "logo": a picture in tiles (HEIC, AVIF) is not read'


def test_an_avif_of_several_pictures_is_a_film(tmp_path):
    path = encode(tmp_path / "x.avif", Video("libsvtav1"), None, format="avif")
    source = open_source("x", str(path), sound=AudioFormat(), settings=Settings())
    found = source.step(pictures=100, sounds=None, start=Fraction(0))
    source.close()
    assert [read_number(frame.y) for _, _, frame in found.pictures] == list(range(30))


def test_exif_that_is_cut_off_or_nonsense_is_as_none(tmp_path):
    whole = with_exif(written(tmp_path / "x.jpg", painted(), *FORMATS["jpg"]).read_bytes(), tiff(6, "<"))
    assert exif_orientation(whole) == 6
    rng = np.random.default_rng(1)
    for name in ("jpg", "png", "webp"):
        data = with_exif(written(tmp_path / f"y.{name}", painted(), *FORMATS[name]).read_bytes(), tiff(6, ">"))
        for cut in range(120):
            assert exif_orientation(data[:cut]) in (0, 6)
        for _ in range(200):
            noisy = np.frombuffer(data, np.uint8).copy()
            noisy[rng.integers(2, 120, 4)] = rng.integers(0, 256, 4)
            assert 0 <= exif_orientation(noisy.tobytes()) < 65536


UNREADABLE = "not an image that can be read"


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda path: None, SourceUnavailable, "no such file or directory"),
        (lambda path: path.mkdir(), SourceUnavailable, "is a directory"),
        (lambda path: path.write_bytes(b""), SourceMalformed, UNREADABLE),
        (lambda path: path.write_text("#EXTM3U\nhttp://127.0.0.1/x.png\n"), SourceMalformed, UNREADABLE),
        (
            lambda path: path.write_text("BM\nv=0\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n"),
            SourceMalformed,
            UNREADABLE,
        ),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), SourceMalformed, UNREADABLE),
        (os.mkfifo, SourceUnsupported, "not a file"),
    ],
)
def test_what_is_no_image_says_so_in_one_sentence(tmp_path, make, error, sentence):
    make(tmp_path / "logo.png")
    with pytest.raises(error) as caught:
        load_still("logo", str(tmp_path / "logo.png"))
    assert str(caught.value) == f'image "logo": {sentence}'


def test_webp_of_several_pictures_says_that_it_is_one(tmp_path):
    path = encode(tmp_path / "x.webp", Video("libwebp_anim", rate=2), None, format="webp")
    for load in (load_still, lambda name, path: open_source(name, path, sound=AudioFormat(), settings=Settings())):
        with pytest.raises(SourceUnsupported) as caught:
            load("logo", str(path))
        assert str(caught.value) == 'image "logo": a WebP of several pictures is not supported'
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(SourceMalformed, match=UNREADABLE):
        load_still("logo", str(path))


@pytest.mark.parametrize("name", ["png", "jpg", "gif", "webp", "bmp", "tiff", "avif"])
def test_cut_and_flipped_images_never_crash(tmp_path, name):
    path = tmp_path / f"x.{name}"
    data = written(path, np.random.default_rng(2).integers(0, 256, (32, 48, 4), np.uint8), *FORMATS[name]).read_bytes()
    rng = np.random.default_rng(3)
    for n in range(40):
        noisy = np.frombuffer(data[: len(data) * (n + 1) // 40], np.uint8).copy()
        noisy[rng.integers(0, len(noisy), 3)] ^= 1 << (n % 8)
        path.write_bytes(noisy.tobytes())
        try:
            frame = load_still("logo", str(path))
        except (SourceMalformed, SourceUnsupported) as err:
            assert str(err).startswith('image "logo": ')
            assert "\n" not in str(err)
        else:
            assert max(frame.width, frame.height) <= MAX_SIDE
            assert still_size("logo", str(path)) == (frame.width, frame.height)


def test_picture_of_too_many_pixels_is_not_decoded(tmp_path):
    data = bytearray(written(tmp_path / "x.png", painted(), "png", "rgb24").read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises((SourceUnsupported, SourceMalformed), match='image "logo": '):
        load_still("logo", str(tmp_path / "x.png"))


@pytest.mark.parametrize("codec", [("x.jpg", "mjpeg", "yuvj420p"), ("x.png", "png", "rgb24"), ("x.gif", "gif", "rgb8")])
@pytest.mark.parametrize("size", [(MAX_SIDE, 4), (MAX_SIDE + 1, 4), (4, MAX_SIDE + 1)])
def test_a_still_of_too_long_a_side_is_refused_with_its_size(tmp_path, codec, size):
    name, *form = codec
    path = str(written(tmp_path / name, painted(*size), *form))
    if max(size) <= MAX_SIDE:
        assert load_still(name, path).width == size[0]
        return
    with pytest.raises(SourceUnsupported) as caught:
        load_still(name, path)
    assert str(caught.value) == f'image "{name}": {size[0]}×{size[1]}, more than 8192 pixels on a side'


def test_name_with_a_percent_sign_is_that_file(tmp_path):
    path = written(tmp_path / "x.png", painted(), "png", "rgb24").rename(tmp_path / "100%02d.png")
    assert load_still("logo", str(path)).width == 48


def test_still_as_a_source_is_one_picture_for_ever(tmp_path):
    path = written(tmp_path / "x.a.png", painted(), "png", "rgba")
    source = open_source("logo", f"file:{path}", sound=AudioFormat(), settings=Settings())
    assert isinstance(source, StillSource)
    assert source.picture_size == PictureSize(48, 32, opaque=False)
    assert source.endless
    assert not source.has_sound
    first = source.step(pictures=4, sounds=True, start=Fraction(7))
    assert [(begin, frame.width) for begin, _, frame in first.pictures] == [(0, 48)]
    assert first.sounds_end
    assert source.step(pictures=4, sounds=True, start=Fraction(9)).pictures == []
    source.seek(Fraction(0))
    assert len(source.step(pictures=1, sounds=None, start=Fraction(0)).pictures) == 1


def test_gif_is_a_film_and_a_pipe_or_a_missing_file_is_no_still(tmp_path):
    gif = written(tmp_path / "x.gif", painted(), *FORMATS["gif"])
    assert not is_still(str(gif))
    os.mkfifo(tmp_path / "pipe")
    assert not is_still(str(tmp_path / "pipe"))
    assert not is_still(str(tmp_path / "none"))
    assert not is_still("\0")


def test_png_of_several_pictures_is_a_film_and_as_an_image_its_first_one(tmp_path):
    path = encode(tmp_path / "x.png", Video("apng", pix_fmt="rgb24"), None, format="apng")
    source = open_source("x", str(path), sound=AudioFormat(), settings=Settings())
    found = source.step(pictures=100, sounds=None, start=Fraction(0))
    source.close()
    assert [read_number(frame.y) for _, _, frame in found.pictures] == list(range(30))
    assert found.pictures_end
    assert read_number(load_still("x", str(path)).y) == 0
    assert is_still(str(encode(tmp_path / "one.png", Video("apng", rate=1, pix_fmt="rgb24"), None, format="apng")))


@pytest.mark.parametrize("name", ["cam.mjpeg", "CAM.MJPG"])
def test_jpegs_one_after_the_other_are_a_film_where_the_name_says_so(tmp_path, name):
    video = Video("mjpeg", rate=25, pix_fmt="yuvj420p", full_range=True)
    path = str(encode(tmp_path / name, video, None, format="mjpeg"))
    source = open_source("cam", path, sound=AudioFormat(48_000), settings=Settings())
    found = source.step(pictures=100, sounds=None, start=Fraction(0)).pictures
    source.close()
    assert [(begin, read_number(frame.y)) for begin, _, frame in found] == [(Fraction(n, 25), n) for n in range(25)]
