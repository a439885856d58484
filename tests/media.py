"""The media of the whole test suite, made when first asked for; every video frame carries its own number.

It decides what is in each file and how a number is painted and read; it knows nothing of the engine. The bytes of a
file are the same on every run with the same PyAV, so a failure repeats.

The number: 16 cells in two rows of eight that fill the picture, the most significant bit top left, white for 1. A cell
is 8×18 pixels in a 64×36 picture, which any codec, scaler or chroma conversion leaves readable. An all-black picture
therefore reads as 0 and an all-white one as 65535 (FLASH): a test of absence must not rely on frame 0.

The colour: a file with a `matrix` has the number in its upper two thirds (`number_part`) and COLOUR below.
"""

import os
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from itertools import pairwise
from math import ceil, floor
from pathlib import Path

import av
import numpy as np

FLASH = 0xFFFF  # what a white flash reads as
COLOUR = (200, 80, 40)  # RGB of the lower third of files with a matrix; far enough from grey that 601 ≠ 709 shows
MATRICES = {"bt601": (0.299, 0.114, 6), "bt709": (0.2126, 0.0722, 1)}  # Kr, Kb, H.273 code of all three tags
VFR_MS = (0, 33, 50, 90, 140, 157, 257, 290, 420, 440, 700, 733, 750, 990)  # when each frame of vfr.mkv starts
SURROUND_HZ = (300, 400, 500, 60, 600, 700)  # one tone per channel of surround.m4a: FL FR FC LFE BL BR

OPTIONS = {  # small pictures, quickly made, readable; scene cuts off so that the GOP is what was asked for
    # Without mbtree: on pictures so small it reads what was never written, and no two files are the same.
    "libx264": {"preset": "veryfast", "crf": "18", "sc_threshold": "0", "b_strategy": "0", "mbtree": "0"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1:scenecut=0"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "1M"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"},
    "libsvtav1": {"preset": "8", "crf": "15"},  # from preset 10 on it smears whole cells
    **{codec: {"b": "1M"} for codec in ("mpeg2video", "mpeg4", "flv")},
    "wmav2": {"b": "128k"},
}


@dataclass(frozen=True)
class Video:
    """What is in a video stream. `size` and the number are as displayed; with a rotation the stored frame is turned."""

    codec: str = "libx264"
    rate: Fraction = Fraction(30)
    size: tuple[int, int] = (64, 36)
    pix_fmt: str = "yuv420p"
    bframes: int = 0
    gop: int = 15
    pts_ms: tuple[int, ...] = ()  # irregular start times instead of n / rate
    matrix: str = ""  # "bt601" or "bt709": tagged so, with COLOUR in the lower third; "": untagged grey
    full_range: bool = False
    rotation: int = 0  # degrees counter-clockwise a player must turn the frame, a multiple of 90
    flash: bool = False  # white at every full second
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Audio:
    """What is in an audio stream: a sine of half scale per channel, the last frequency repeated."""

    codec: str = "aac"
    rate: int = 48_000
    layout: str = "stereo"
    hz: tuple[int, ...] = (440,)
    beep: Fraction = Fraction(1)  # the part of every second, from its start, that sounds
    options: dict[str, str] = field(default_factory=dict)  # the encoder's


def paint_number(y_plane, n, black=16, white=235):
    """paint_number(y_plane, n) -> None
    Fill an (H, W) luma plane, H ≥ 2 and W ≥ 8, with the 16 cells of n, 0 ≤ n < 65536.
    """
    bits = (n >> np.arange(15, -1, -1) & 1).reshape(2, 8)
    rows, columns = (
        (2 * np.arange(size) + 1) * count // (2 * size) for count, size in zip((2, 8), y_plane.shape, strict=True)
    )
    y_plane[...] = np.where(bits, white, black)[np.ix_(rows, columns)]


def read_number(y_plane, bits=8):
    """read_number(y_plane, bits=8) -> int | None
    The number in an (H, W) luma region; None where a cell is neither black nor white, or less than one sample.

    y_plane  unsigned samples of `bits` bits, limited or full range, at any scale. Only the middle half of each cell is
             looked at, so edges may blur; cells painted less than 2×2 samples large do not survive scaling.
    """
    height, width = y_plane.shape
    if height < 2 or width < 8:
        return None
    number = 0
    for middle in _middles(height, width):
        samples = y_plane[middle]
        level = np.add.reduce(samples, None, np.uint32) / samples.size / (1 << bits - 8)
        if 80 < level < 171:  # between the thirds of 16…235
            return None
        number = number << 1 | int(level > 125)
    return number


def read_cells(y_plane):
    """The number in the 16 cells of the engine's patterns: two rows along the bottom, each 1/18 of any height."""
    height, width = y_plane.shape
    down, number = max(2, height // 18), 0
    for y in (height - 2 * down, height - down):
        for x, end in pairwise(width * n // 8 for n in range(9)):
            across = end - x
            middle = y_plane[y + down // 4 : y + max(1, down * 3 // 4), x + across // 4 : x + max(1, across * 3 // 4)]
            number = number << 1 | int(middle.mean() > 128)
    return number


@cache  # the same for every picture of a film
def _middles(height, width):
    """Where to look at each of the 16 cells."""
    return [(_middle(cell // 8, 2, height), _middle(cell % 8, 8, width)) for cell in range(16)]


def _middle(k, count, length):
    """The samples whose centres lie in the middle half of the k-th of `count` equal parts; at least the middle one."""
    start, size = length * k / count, length / count
    first, stop = ceil(start + size / 4 - 0.5), floor(start + size * 3 / 4 + 0.5)
    return slice(first, stop) if first < stop else slice(int(start + size / 2), int(start + size / 2) + 1)


def number_part(y_plane):
    """The upper two thirds of a plane, where a file with a matrix has its number."""
    return y_plane[: y_plane.shape[0] * 2 // 3]


def matrix_of(name):
    """From R'G'B' to Y'CbCr, 0…1 and ±½."""
    kr, kb, _ = MATRICES[name]
    kg = 1 - kr - kb
    blue, red = 2 - 2 * kb, 2 - 2 * kr
    return np.array([[kr, kg, kb], [-kr / blue, -kg / blue, 0.5], [0.5, -kg / red, -kb / red]])


def colour_yuv(rgb, matrix, full_range=False):
    """8-bit (Y, Cb, Cr) floats of an 8-bit RGB colour, ITU-R BT.601-7 2.5 and BT.709-6 3."""
    kr, kb, _ = MATRICES[matrix]
    red, green, blue = (c / 255 for c in rgb)
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (2 - 2 * kb), (red - y) / (2 - 2 * kr)
    return (255 * y, 128 + 255 * cb, 128 + 255 * cr) if full_range else (16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr)


def plane(frame, index=0):
    """The (H, W) pixels of one plane of a planar frame: a view, writable if the frame is."""
    component = frame.format.components[index]
    array = np.frombuffer(frame.planes[index], np.uint8 if component.bits == 8 else np.uint16)
    stride = frame.planes[index].line_size // array.itemsize
    return array[: component.height * stride].reshape(component.height, stride)[:, : component.width]


def numbers(path):
    """What every frame of the first video stream of a file reads as, in the order of presentation."""
    found = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            planar = frame.format.is_planar and not frame.format.is_rgb
            luma = frame if planar else frame.reformat(format="gray")
            found.append(read_number(plane(luma), luma.format.components[0].bits))
    return found


def picture(video, n):
    """The n-th frame of a video: number or flash, colour, alpha (left half opaque, right half clear), rotation."""
    turns = video.rotation // 90
    width, height = video.size[:: -1 if turns % 2 else 1]
    frame = av.VideoFrame(width, height, video.pix_fmt if video.pix_fmt.startswith("yuv") else "yuva444p")
    unit = 1 << frame.format.components[0].bits - 8
    number = FLASH if video.flash and n % video.rate == 0 else n
    colour = colour_yuv(COLOUR, video.matrix, video.full_range) if video.matrix else (0, 128, 128)
    for index in range(len(frame.format.components)):
        upright = np.rot90(plane(frame, index), turns)
        if index == 3:
            upright[...] = 256 * unit - 1
            upright[:, upright.shape[1] // 2 :] = 0
            continue
        upright[...] = 128 * unit
        if video.matrix:
            upright[len(number_part(upright)) :] = round(colour[index] * unit)
        if index == 0:
            black, white = (0, 255) if video.full_range else (16, 235)
            paint_number(number_part(upright) if video.matrix else upright, number, black * unit, white * unit)
    frame.color_range = 2 if video.full_range else 1
    return frame if frame.format.name == video.pix_fmt else frame.reformat(format=video.pix_fmt)


def sound(audio, start, stop):
    """Samples [start, stop) of an audio stream: (C, n) float32."""
    i = np.arange(start, stop)
    channels = av.AudioLayout(audio.layout).nb_channels
    hz = np.array((audio.hz + audio.hz[-1:] * channels)[:channels])
    wave = 0.5 * np.sin(2 * np.pi * hz[:, None] * i / audio.rate)
    return (wave * (i % audio.rate < int(audio.rate * audio.beep))).astype(np.float32)


PLAIN = Video(bframes=2)
TONE = Audio()


def encode(path, video=PLAIN, audio=TONE, *, seconds=1, **container_options):
    """encode(path, video=PLAIN, audio=TONE, *, seconds=1, **container_options) -> Path
    Write one file; its suffix chooses the container (or `format=`), None leaves a stream out.

    seconds            int, [0, seconds) is filled: frames n < seconds × rate, or all of pts_ms before it
    container_options  the muxer's, as movflags="faststart"
    """
    container_format = container_options.pop("format", None)
    options = {"fflags": "+bitexact", **container_options}  # no random identifiers in Matroska
    output = av.open(str(path), "w", format=container_format, container_options=options)
    with ordinary_priority(), output as container:
        pictures = _video_stream(container, video) if video else None
        sounds = _sound_stream(container, audio) if audio else None
        n = 0
        for second in range(seconds):  # in turns, or the muxer keeps a long film in memory
            while pictures and _time(video, n) < second + 1:
                frame = picture(video, n)
                frame.time_base = pictures.codec_context.time_base
                frame.pts = int(_time(video, n) / frame.time_base)
                container.mux(pictures.encode(frame))
                n += 1
            if sounds:
                samples = sound(audio, second * audio.rate, (second + 1) * audio.rate)
                frame = av.AudioFrame.from_ndarray(samples, "fltp", audio.layout)
                frame.rate, frame.time_base, frame.pts = audio.rate, Fraction(1, audio.rate), second * audio.rate
                container.mux(sounds.encode(frame))
        for stream in filter(None, (pictures, sounds)):
            container.mux(stream.encode(None))
    return path


@contextmanager
def ordinary_priority():
    """The thread's priority is after the block what it was before.

    SVT-AV1 gives a thread of root's that opens it the highest there is (SCHED_FIFO 99): from then on all other
    processes wait for this one, servers that tests measure too.
    """
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


def _time(video, n):
    """When frame n starts, in seconds; later than anything behind the last irregular one."""
    if video.pts_ms:
        return Fraction(video.pts_ms[n], 1000) if n < len(video.pts_ms) else Fraction(1 << 30)
    return n / Fraction(video.rate)


def _video_stream(container, video):
    stream = container.add_stream(video.codec, rate=video.rate, options=OPTIONS.get(video.codec, {}) | video.options)
    context = stream.codec_context
    width, height = video.size[:: -1 if video.rotation // 90 % 2 else 1]
    context.width, context.height, context.pix_fmt = width, height, video.pix_fmt
    context.time_base = Fraction(1, 1000) if video.pts_ms else 1 / Fraction(video.rate)
    context.gop_size, context.max_b_frames, context.thread_count = video.gop, video.bframes, 1
    if video.matrix:
        context.colorspace = context.color_primaries = context.color_trc = MATRICES[video.matrix][2]
    if video.matrix or video.full_range:
        context.color_range = 2 if video.full_range else 1
    if video.rotation:
        stream.set_display_rotation(video.rotation)
    return stream


def _sound_stream(container, audio):
    options = OPTIONS.get(audio.codec, {}) | audio.options
    return container.add_stream(audio.codec, rate=audio.rate, layout=audio.layout, options=options)


def flash_beep(path, seconds=2, size=(64, 36)):
    """A white frame and a 1 kHz beep one frame long at every full second, to the sample; other frames are numbered."""
    beep = Audio("flac", layout="mono", hz=(1000,), beep=Fraction(1, 30))
    return encode(path, Video(flash=True, size=size), beep, seconds=seconds)


def lengthless(path):
    """A second of a tone, then four of silence in far fewer bytes: MP3 or ADTS, which say nowhere how long they are."""
    if path.suffix == ".mp3":
        codec, options = "libmp3lame", {"flags": "+qscale", "global_quality": "236"}
        muxer = {"write_xing": "0", "id3v2_version": "0"}
    else:
        codec, options, muxer = "aac", {}, {}
    parts = []
    for seconds, hz in ((1, 440), (4, 0)):
        part = path.with_name(f"part{path.suffix}")
        encode(part, None, Audio(codec, hz=(hz,), options=options), seconds=seconds, **muxer)
        parts.append(part.read_bytes())
        part.unlink()
    path.write_bytes(b"".join(parts))
    return path


def remuxed(path, source, move):
    """Copies a file; move(packet) gives the seconds to add to its time stamps."""
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if not packet.size:
                continue
            ticks = round(move(packet) / packet.time_base)
            packet.pts += ticks
            packet.dts += ticks
            packet.stream = copies[packet.stream.index]
            out.mux(packet)
    return path


def undated(path, bframes, *, seconds, codec="libx264", rate=30, packs=list):
    """A film of which is only known when its pictures are decoded: AVI, ASF, or as Matroska has what was made for AVI.

    packs  what becomes of the packets, each (data, whether it is a keyframe)
    """
    video = Video(codec, Fraction(rate), bframes=bframes)
    raw = encode(path.with_suffix(".raw"), video, None, seconds=seconds, format="h264" if codec == "libx264" else "m4v")
    output = av.open(str(path), "w", container_options={"fflags": "+bitexact"})
    with av.open(str(raw)) as given, output as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        stream.time_base = 1 / video.rate
        in_matroska = struct.pack("<3I2H4s20x", 40, *video.size, 1, 24, b"XVID" if codec == "mpeg4" else b"H264")
        stream.codec_context.extradata = in_matroska if path.suffix == ".mkv" else None  # a BITMAPINFOHEADER
        for n, (data, keyframe) in enumerate(packs([(bytes(p), p.is_keyframe) for p in given.demux() if p.size])):
            made = av.Packet(data)
            made.stream, made.time_base, made.is_keyframe = stream, 1 / video.rate, keyframe
            made.pts = made.dts = n
            made.duration = 1
            container.mux(made)
    path.write_bytes(re.sub(b"V_MPEG4/ISO/A..", b"V_MS/VFW/FOURCC", path.read_bytes()))
    return path


def packed(path, bframes, *, seconds):
    """A film of MPEG-4 as DivX and Xvid write it: B-frames stand with the picture that is decoded before them.

    So those after it have the next one's packet, and the last one's is a picture that is none.
    """
    return undated(path, bframes, seconds=seconds, codec="mpeg4", rate=25, packs=_in_packs)


def _in_packs(units):
    """Pictures of MPEG-4 in the order of decoding → packets of a packed bitstream, and whether each is a keyframe."""
    start = b"\0\0\1\xb6"
    is_b = [data[data.index(start) + 4] >> 6 == 2 for data, _ in units]
    for n, (data, key) in enumerate(units):
        behind = units[n + 1][0] if n + 1 < len(units) and is_b[n + 1] else b""
        if not is_b[n]:
            yield re.sub(rb"Lavc[\d.]+", b"DivX503b1393p", data) + behind, key
        else:
            yield behind or start + bytes((0x50, 0x4F)), False  # coded as a P-frame, and not at all


def widened(path, bframes):
    """A programme of MPEG-TS whose pixels become twice as wide after a second, as where 4:3 becomes 16:9."""
    parts = []
    for n in range(2):
        video = Video(bframes=bframes, options={"x264-params": f"sar={n + 1}/1"})
        part = encode(path.with_name(f"part{n}.ts"), video, None, muxdelay="0", muxpreload="0")
        parts.append(remuxed(path.with_name(f"moved{n}.ts"), part, lambda _, n=n: n).read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def fragmented(path, *, seconds, each):
    """A playlist of fragmented MP4 in segments of so many seconds: of each all pictures, then all sound."""
    options = {"hls_segment_type": "fmp4", "hls_time": str(each), "hls_list_size": "0"}
    return encode(path, Video(bframes=2, gop=30), TONE, seconds=seconds, **options)


def played_twice(path, source):
    """A playlist of the segments of another one beside it, twice: time goes back behind a discontinuity."""
    whole = source.read_text().removesuffix("#EXT-X-ENDLIST\n")
    path.write_text(f"{whole}#EXT-X-DISCONTINUITY\n{whole[whole.index('#EXTINF') :]}#EXT-X-ENDLIST\n")
    return path


def moved_flv(path, source, ms):
    """Copies an FLV; its clock of 32 bits, of which libav would write 31, is so many ms further."""
    data = bytearray(source.read_bytes())
    at = 13  # behind the header
    while at < len(data):
        if data[at] != 18:  # a script has no time
            when = int.from_bytes(data[at + 7 : at + 8] + data[at + 4 : at + 7]) + ms & 0xFFFFFFFF
            data[at + 4 : at + 7] = (when & 0xFFFFFF).to_bytes(3)
            data[at + 7] = when >> 24
        at += 15 + int.from_bytes(data[at + 1 : at + 4])
    path.write_bytes(data)
    return path


def late_flv(path, source, ms):
    """Copies an FLV of H.264 whose pictures are said to be decoded so many ms later, and shown when they were."""
    data = bytearray(source.read_bytes())
    at = 13
    while at < len(data):
        if data[at] == 9:
            when = int.from_bytes(data[at + 4 : at + 7]) + ms
            data[at + 4 : at + 7] = when.to_bytes(3)
            if data[at + 12] == 1:  # a picture
                composition = int.from_bytes(data[at + 13 : at + 16], signed=True) - ms
                data[at + 13 : at + 16] = composition.to_bytes(3, signed=True)
        at += 15 + int.from_bytes(data[at + 1 : at + 4])
    path.write_bytes(data)
    return path


def change_parameters(path, *, seconds):
    """A film of H.264 whose second half, numbered from 0 again, has other parameter sets, which its packets lack."""
    first, second, moved, whole = (path.with_name(f"{path.stem}-{n}.flv") for n in range(4))
    encode(first, Video(bframes=2, matrix="bt709"), None, seconds=seconds // 2)
    other = Video(matrix="bt709", options={"x264-params": "cabac=0:8x8dct=0:ref=1"})
    behind = seconds // 2 + Fraction(1, 15)  # two pictures: so much B-frames delay the first half
    remuxed(moved, encode(second, other, None, seconds=seconds // 2), lambda _: behind)
    whole.write_bytes(first.read_bytes() + moved.read_bytes()[13:])  # without its header
    return remuxed(path, whole, lambda _: 0)


def transport_crc(section):
    """The CRC_32 of a section of a transport stream's tables (ISO 13818-1 annex A): zlib's, from the other end."""
    mirrored = zlib.crc32(bytes(int(f"{byte:08b}"[::-1], 2) for byte in section)) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2).to_bytes(4, "big")


def heif(path, pictures, *, main, refer=(), brand=b"mif1"):
    """A photo (ISO 23008-12) of several pictures, numbered from 1.

    pictures  as (type, data, (width, height), properties), each property a box.
    main      the number of the one that is meant.
    refer     as (type, from, *to): "dimg" for the tiles of a picture of the type "grid", "thmb" for a thumbnail.
    """

    def meta(at):
        places, numbers, properties, named = b"", b"", b"", b""
        for n, (kind, data, size, own) in enumerate(pictures, 1):
            places += struct.pack(">3H2I", n, 0, 1, at, len(data))
            numbers += mp4_box(b"infe", struct.pack(">2H4sx", n, 0, kind), full=2 << 24)
            owned = [mp4_box(b"ispe", struct.pack(">2I", *size), full=0), *own]
            first = sum(len(each[3]) + 1 for each in pictures[: n - 1]) + 1
            named += struct.pack(">HB", n, len(owned)) + bytes(range(first, first + len(owned)))
            properties += b"".join(owned)
            at += len(data)
        parts = [
            mp4_box(b"hdlr", struct.pack(">4x4s13x", b"pict"), full=0),
            mp4_box(b"pitm", struct.pack(">H", main), full=0),
            mp4_box(b"iloc", struct.pack(">2H", 0x4400, len(pictures)) + places, full=0),
            mp4_box(b"iinf", struct.pack(">H", len(pictures)) + numbers, full=0),
        ]
        if refer:
            lists = (mp4_box(kind, struct.pack(f">{len(to) + 2}H", n, len(to), *to)) for kind, n, *to in refer)
            parts.append(mp4_box(b"iref", b"".join(lists), full=0))
        table = mp4_box(b"ipma", struct.pack(">I", len(pictures)) + named, full=0)
        parts.append(mp4_box(b"iprp", mp4_box(b"ipco", properties) + table))
        return mp4_box(b"meta", b"".join(parts), full=0)

    head = mp4_box(b"ftyp", struct.pack(">4sI4s", brand, 0, b"mif1"))
    data = b"".join(each[1] for each in pictures)
    path.write_bytes(head + meta(len(head) + len(meta(0)) + 8) + mp4_box(b"mdat", data))
    return path


def mp4_box(name, content, *, full=None):
    """A box of ISO 14496-12; `full`: its version and flags, where it has some."""
    content = (b"" if full is None else struct.pack(">I", full)) + content
    return struct.pack(">I4s", 8 + len(content), name) + content


def truncate(path, source, part):
    """Keep the first `part` of a file's bytes."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])


def flip_bits(path, source):
    """Flip a bit in each of the last 8 bytes (payload) of some packets of a transport stream, never in its first 50."""
    packets = np.frombuffer(source.read_bytes(), np.uint8).reshape(-1, 188).copy()
    rng = np.random.default_rng(7)
    hit = rng.choice(np.arange(50, len(packets)), len(packets) // 6, replace=False)
    packets[hit, -8:] ^= (1 << rng.integers(0, 8, (len(hit), 8))).astype(np.uint8)
    path.write_bytes(packets.tobytes())


RECIPES: dict[str, tuple[str, Callable]] = {
    "plain": ("mp4", lambda path, _: encode(path, seconds=2, movflags="faststart")),
    "fps25": ("mp4", lambda path, _: encode(path, replace(PLAIN, rate=Fraction(25)))),
    "fps2997": ("mp4", lambda path, _: encode(path, replace(PLAIN, rate=Fraction(30_000, 1001)))),
    "fps60": ("mp4", lambda path, _: encode(path, replace(PLAIN, rate=Fraction(60)))),
    "vfr": ("mkv", lambda path, _: encode(path, Video(pts_ms=VFR_MS), Audio("flac"))),
    "odd": ("mkv", lambda path, _: encode(path, Video("ffv1", size=(65, 37)), None)),
    "ten_bit": ("mkv", lambda path, _: encode(path, Video("libx265", pix_fmt="yuv420p10le"), None)),
    "full_range": ("mp4", lambda path, _: encode(path, Video(matrix="bt709", full_range=True), None)),
    "bt601": ("mp4", lambda path, _: encode(path, Video(matrix="bt601"), None)),
    "bt709": ("mp4", lambda path, _: encode(path, Video(matrix="bt709"), None)),
    "rotated": ("mp4", lambda path, _: encode(path, Video(rotation=90), None)),
    "alpha": ("mov", lambda path, _: encode(path, Video("prores_ks", pix_fmt="yuva444p10le"), None)),
    "video_only": ("mp4", lambda path, _: encode(path, PLAIN, None)),
    "audio_only": ("m4a", lambda path, _: encode(path, None, Audio(rate=44_100, layout="mono"))),
    "surround": ("m4a", lambda path, _: encode(path, None, Audio(layout="5.1", hz=SURROUND_HZ))),
    "hz8000": ("wav", lambda path, _: encode(path, None, Audio("pcm_s16le", rate=8_000, layout="mono"))),
    "hz96000": ("flac", lambda path, _: encode(path, None, Audio("flac", rate=96_000))),
    "flash_beep": ("mkv", lambda path, _: flash_beep(path)),
    "transport": ("ts", lambda path, _: encode(path, seconds=2)),
    "truncated": ("mp4", lambda path, media: truncate(path, media.path("plain"), 0.6)),
    "truncated_ts": ("ts", lambda path, media: truncate(path, media.path("transport"), 0.6)),
    "corrupt": ("ts", lambda path, media: flip_bits(path, media.path("transport"))),
    "empty": ("mp4", lambda path, _: path.write_bytes(b"")),
    "text": ("mp4", lambda path, _: path.write_text("this is no film\n" * 64)),
}


class Media:
    """The files by name, in one folder, each made when first asked for."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def path(self, name):
        """Where the file of that name in RECIPES is; raises KeyError for any other."""
        suffix, make = RECIPES[name]
        path = self.folder / f"{name}.{suffix}"
        if not path.exists():
            part = path.with_name(f"unfinished-{path.name}")  # a failed encode leaves no half file under the name
            make(part, self)
            part.rename(path)
        return path


def make_all(folder):
    """All files at once, as Media."""
    media = Media(folder)
    for name in RECIPES:
        media.path(name)
    return media
