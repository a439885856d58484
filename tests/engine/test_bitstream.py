"""Sizes, formats and names are those that libav reads from the same bytes; garbage is None, and never an exception."""

import struct
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import bitstream
from engine.spec import AAC_RATES
from tests.media import Video, encode

SIZES = [(64, 36), (66, 38), (16, 16), (320, 180), (1920, 1080)]
START = b"\0\0\0\1"


def extradata(codec, size, *, pix_fmt="yuv420p", **options):
    """How libav's encoder describes itself with a global header."""
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = *size, pix_fmt
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
    context.flags |= av.codec.context.Flags.global_header
    context.options = options
    context.open()
    return bytes(context.extradata)


def avcc(size, *, params="annexb=0", **options):
    return extradata("libx264", size, **{"x264-params": params}, **options)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("profile", ["baseline", "main", "high"])
def test_size_of_h264(size, profile):
    assert bitstream.avc_size(avcc(size, profile=profile)) == size


@pytest.mark.parametrize(
    ("pix_fmt", "size"),
    [
        ("yuv422p", (66, 35)),
        ("yuv444p", (67, 35)),
        ("yuv420p10le", (70, 38)),
        ("gray", (33, 17)),
        ("yuv422p10le", (2, 1)),
    ],
)
def test_size_of_h264_in_other_formats(pix_fmt, size):
    assert bitstream.avc_size(avcc(size, pix_fmt=pix_fmt)) == size


def test_size_of_interlaced_h264():
    assert bitstream.avc_size(avcc((1920, 1080), params="annexb=0:interlaced=1")) == (1920, 1080)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ("annexb=0", {"number": 0, "profile": 100, "progressive": True, "reorder": 2}),
        ("annexb=0:sps-id=5", {"number": 5, "full_range": None, "matrix": None}),
        ("annexb=0:fullrange=on:overscan=crop", {"full_range": True, "matrix": None}),
        ("annexb=0:colorprim=bt709:transfer=bt709:colormatrix=bt470bg", {"full_range": False, "matrix": 5}),
        (
            "annexb=0:sar=4/3:overscan=show:chromaloc=2:range=tv:nal-hrd=vbr:vbv-maxrate=9000:vbv-bufsize=9000",
            {"reorder": 2},
        ),
        ("annexb=0:sar=16/11:pic-struct=1:bframes=0:ref=1", {"reorder": 0}),
        ("annexb=0:bframes=1:b-pyramid=none", {"reorder": 1}),
        ("annexb=0:interlaced=1", {"progressive": False}),
    ],
)
def test_what_a_sequence_parameter_set_says(params, says):
    (sps,), (pps,) = bitstream.avc_sets(avcc((64, 64), params=params))
    read = bitstream.read_sps(sps)
    assert {name: getattr(read, name) for name in says} == says
    assert (read.width, read.height, read.chroma, read.luma_depth) == (64, 64, 1, 8)
    assert bitstream.pps_numbers(pps) == (read.number, read.number)


def test_parameter_sets_of_several_encoders_in_one_avcc():
    first = bitstream.avc_sets(avcc((64, 64), params="annexb=0:sps-id=1:level=40", profile="main"))
    second = bitstream.avc_sets(avcc((64, 64), params="annexb=0:sps-id=2:level=31", profile="high"))
    sps, pps = ([*one, *other] for one, other in zip(first, second, strict=True))
    joined = bitstream.joined_avcc(sps, pps)
    level = [unit[:3] + bytes((40,)) + unit[4:] for unit in sps]
    assert bitstream.avc_sets(joined) == (level[::-1], pps)  # the higher profile first, both of the higher level
    assert joined[1:4] == bytes((100, 0, 40))
    assert bitstream.avc_size(joined) == (64, 64)
    assert bitstream.joined_avcc(*first) == bitstream.avcc([*first[0], *first[1]])


SHORT_SPS = bytes.fromhex("6742c00ada1099")  # of 64 × 64 pixels, without vui_parameters
# Of what kind they are, how many pictures are reordered and kept; None = it does not say.
SETS = {
    "with B-frames": ("sps-id=1:ref=4:level=31", 2, 4),
    "with B-frames that nothing refers to": ("sps-id=2:bframes=1:b-pyramid=none:ref=1:nal-hrd=vbr:level=12", 1, 2),
    "without": ("sps-id=3:bframes=0:ref=1:level=10", 0, 1),
    "of keyframes, which says nothing of it": ("sps-id=4:keyint=1:level=10", None, 0),
}


def test_parameter_sets_in_one_avcc_all_ask_for_what_one_of_them_needs():
    rate = "annexb=0:vbv-maxrate=90:vbv-bufsize=90"
    pairs = [bitstream.avc_sets(avcc((64, 64), params=f"{rate}:{params}")) for params, _, _ in SETS.values()]
    sps, pps = ([unit for pair in pairs for unit in pair[n]] for n in (0, 1))
    sps.append(SHORT_SPS)
    before = [bitstream.read_sps(unit) for unit in sps]
    assert [(each.reorder, each.kept) for each in before] == [*(each[1:] for each in SETS.values()), (None, 1)]
    made, same = bitstream.avc_sets(bitstream.joined_avcc(sps, pps))
    asked = {"level": 31, "reorder": 2, "kept": 4}
    assert [bitstream.read_sps(unit) for unit in made] == [each._replace(**asked) for each in before]
    assert (same, made[0]) == (pps, sps[0])
    assert bitstream.avc_sets(bitstream.joined_avcc(made, pps)) == (made, pps)


def coded(size=(64, 64), count=12, **params):
    """An avcC, and pictures of noise behind lengths: x264 with those parameters."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = *size, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
    context.flags |= av.codec.context.Flags.global_header
    profile = params.pop("profile", "high")
    values = {"annexb": 0, "slices": 3, "keyint": 6, "threads": 1} | params
    context.options = {"x264-params": ":".join(f"{k}={v}" for k, v in values.items()), "profile": profile}
    noise = np.random.default_rng(1)
    packets = []
    for n in range(count):
        frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (96, 64), np.uint8), "yuv420p")
        frame.pts = n
        packets += context.encode(frame)
    packets += context.encode(None)
    return bytes(context.extradata), [(packet.pts, bytes(packet)) for packet in packets]


def decoded(avcc, pictures):
    context = av.CodecContext.create("h264", "r")
    context.extradata = avcc
    frames = []
    for pts, data in pictures:
        packet = av.Packet(data)
        packet.pts = pts
        frames += context.decode(packet)
    return [frame.to_ndarray() for frame in frames + context.decode(None)]


@pytest.mark.parametrize(
    ("params", "old", "new", "sps"),
    [
        ({}, 0, 255, 1),
        ({"profile": "baseline"}, 0, 15, 31),
        ({"cabac": 1, "weightp": 2}, 0, 30, 8),
        ({"sps-id": 1}, 1, 2, 9),
        ({"sps-id": 2}, 2, 31, 0),
        ({"sps-id": 3}, 3, 126, 4),
        ({"sps-id": 7, "bframes": 0}, 7, 254, 30),
    ],
)
def test_pictures_under_other_numbers_are_the_same_pictures(params, old, new, sps):
    avcc, pictures = coded(**params)
    (own_sps,), (own_pps,) = bitstream.avc_sets(avcc)
    assert bitstream.pps_numbers(own_pps) == (old, old)
    assert bitstream.interchangeable(old, new)
    other_sps, other_pps = bitstream.renumbered_sps(own_sps, sps), bitstream.renumbered_pps(own_pps, new, sps)
    assert bitstream.read_sps(other_sps) == bitstream.read_sps(own_sps)._replace(number=sps)
    assert bitstream.pps_numbers(other_pps) == (new, sps)
    assert bitstream.renumbered_sps(other_sps, old) == own_sps
    assert bitstream.renumbered_pps(other_pps, old, old) == own_pps
    others = [(pts, bitstream.renumbered_slices(data, {old: new})) for pts, data in pictures]
    assert [bitstream.renumbered_slices(data, {new: old}) for _, data in others] == [data for _, data in pictures]
    frames = decoded(bitstream.avcc([other_sps, other_pps]), others)
    assert len(frames) == 12
    assert all(np.array_equal(a, b) for a, b in zip(frames, decoded(avcc, pictures), strict=True))


def test_which_numbers_a_slice_can_have_instead():
    assert [n for n in range(256) if bitstream.interchangeable(0, n)] == [0, *range(15, 31), 255]
    assert [n for n in range(256) if bitstream.interchangeable(1, n)] == [1, 2, *range(31, 63)]
    assert all(bitstream.interchangeable(n, n) for n in range(256))


@given(st.binary(max_size=40).map(lambda data: data.replace(b"\x01", b"\0")), st.integers(0, 30))
def test_numbers_change_back_and_forth_whatever_follows(rest, zeros):
    """Of a slice that begins with macroblock 0, is a P slice, and names set 0."""
    nal = bitstream._escaped(b"\x41" + b"\xe0" + bytes(zeros) + rest + b"\x80")
    data = len(nal).to_bytes(4, "big") + nal
    other = bitstream.renumbered_slices(data, {0: 255})
    assert other != data
    assert b"\0\0\0" not in other[4:]
    assert bitstream.renumbered_slices(other, {255: 0}) == data


def test_kinds_of_nal_units_behind_their_lengths():
    units = [b"\x09\x10", b"\x67abc", b"\x65" + bytes(300)]
    data = b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)
    assert bitstream.prefixed_kinds(data) == bitstream.prefixed_kinds(memoryview(data)) == [9, 7, 5]
    for broken in (data[:-1], data + b"\0", b"\0\0\0\1\x65abc", b"\0\0"):
        assert bitstream.prefixed_kinds(broken) is None
    assert bitstream.prefixed_kinds(b"") == []


def signed(value):
    """The bits of a se(v)."""
    code = (2 * value if value > 0 else 1 - 2 * value) if value else 1
    return f"{code:0{2 * code.bit_length() - 1}b}"


def with_scaling_lists(sps, lists):
    """A high profile's sequence parameter set number 0 of x264, which has none: six lists of 4 × 4, two of 8 × 8."""
    bits = "".join(f"{byte:08b}" for byte in sps.replace(b"\0\0\3", b"\0\0"))
    assert bits[32:40] == "10101100"  # number, chroma, depths, no bypass, no lists
    made = ""
    for values in lists:
        steps = [value - before for before, value in pairwise([8, *values])]
        made += "1" + "".join(map(signed, steps)) if values else "0"
    bits = (bits[:39] + "1" + made + bits[40:]).rstrip("0")
    bits += "0" * (-len(bits) % 8)
    return bitstream._escaped(int(bits, 2).to_bytes(len(bits) // 8, "big"))


RISING, FALLING = [*range(10, 26)], [*range(90, 26, -1)]


@pytest.mark.parametrize(
    "lists",
    [[RISING] * 6 + [[]] * 2, [[]] * 6 + [FALLING, []], [RISING, []] * 3 + [FALLING] * 2, [[16, 20, 0], [0]] * 4],
    ids=["4x4", "8x8", "both", "that end early"],
)
def test_size_behind_scaling_lists(lists):
    avcc, pictures = coded()
    (sps,), (pps,) = bitstream.avc_sets(avcc)
    listed = with_scaling_lists(sps, lists)
    assert bitstream.read_sps(listed) == bitstream.read_sps(sps)
    assert {frame.shape for frame in decoded(bitstream.avcc([listed, pps]), pictures)} == {(96, 64)}


def test_emulation_prevention_is_no_payload():
    plain = avcc((64, 36), profile="baseline")
    sps = plain[8 : 8 + int.from_bytes(plain[6:8], "big")]
    guarded = sps[:2] + b"\0\0\3" + sps[4:]  # constraints and level 0: then a 3 must follow
    assert bitstream.avc_size(plain[:6] + len(guarded).to_bytes(2, "big") + guarded) == (64, 36)


@pytest.mark.parametrize(
    ("pix_fmt", "size", "name"),
    [
        ("yuv420p", (66, 38), "hvc1.1.6.L30"),
        ("yuv420p10le", (64, 36), "hvc1.2.4.L30"),
        ("yuv444p", (67, 35), "hvc1.4.10.L30"),
    ],
)
def test_size_and_name_of_hevc(tmp_path, pix_fmt, size, name):
    path = encode(tmp_path / "a.mkv", Video("libx265", size=size, pix_fmt=pix_fmt), None, seconds=1)
    with av.open(str(path)) as container:
        hvcc = bytes(container.streams[0].codec_context.extradata)
    assert bitstream.hevc_size(hvcc) == size
    assert bitstream.codec_string("hevc", hvcc).startswith(name)
    units = bitstream.nal_units(extradata("libx265", size, pix_fmt=pix_fmt))
    made = bitstream.hvcc(units)
    assert made[:13] == hvcc[:13]  # up to the level
    if pix_fmt != "yuv444p":
        assert made[16:22] == hvcc[16:22]  # depths, layers, and how long lengths are
    assert bitstream.hevc_size(made) == size
    assert bitstream.hvcc(units[:2]) == b""  # without a picture parameter set


def hevc_kinds(data):
    """The types of the NAL units in a picture."""
    kinds, at = [], 0
    while at < len(data):
        kinds.append(data[at + 4] >> 1 & 63)
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    return kinds


def test_a_keyframe_that_counts_on_from_others_begins_anew_where_it_follows_others(tmp_path):
    path = encode(
        tmp_path / "a.mp4",
        Video("libx265", gop=10, options={"x265-params": "open-gop=1:keyint=10:min-keyint=10:log-level=none"}),
        None,
    )
    with av.open(str(path)) as container:
        keyframes = [bytes(packet) for packet in container.demux(video=0) if packet.is_keyframe]
    spliced = [bitstream.spliced("hevc", each) for each in keyframes]
    first, *later = map(hevc_kinds, keyframes)
    assert 19 in first or 20 in first  # IDR
    assert all(21 in kinds for kinds in later)  # CRA
    assert spliced[0] == keyframes[0]
    assert [hevc_kinds(each) for each in spliced[1:]] == [
        [16 if kind == 21 else kind for kind in kinds] for kinds in later
    ]
    assert bitstream.spliced("h264", keyframes[1]) == keyframes[1]


@pytest.mark.parametrize(
    ("head", "name"), [("01", "1.6.L93"), ("21", "1.6.H93"), ("41", "A1.6.L93"), ("e2", "C2.6.H93")]
)
def test_name_of_a_known_hvcc(head, name):
    hvcc = bytes.fromhex(f"01 {head} 60000000 900000000000 5d f000 fc fd f8 f8 0000 0f 00")
    assert bitstream.codec_string("hevc", hvcc) == f"hvc1.{name}.90"


@pytest.mark.parametrize("rate", AAC_RATES)
@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 6)])
def test_format_of_aac(rate, layout, channels):
    context = av.CodecContext.create("aac", "w")
    context.sample_rate, context.layout, context.format = rate, layout, "fltp"
    context.flags |= av.codec.context.Flags.global_header
    context.open()
    assert bitstream.aac_format(bytes(context.extradata)) == (rate, channels)
    assert bitstream.codec_string("aac", bytes(context.extradata)) == "mp4a.40.2"


def packed(*fields):
    """(value, bits) one behind the other."""
    bits = "".join(f"{value:0{size}b}" for value, size in fields)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


ELEMENTS = (  # program_config_element: in front a channel and a pair, at the back a pair, and LFE
    *((0, 4), (1, 2), (3, 4), (2, 4), (0, 4), (1, 4), (1, 2), (0, 3), (0, 4), (0, 3)),
    *((0, 5), (16, 5), (17, 5), (3, 4)),
)


@pytest.mark.parametrize(
    ("config", "expected", "name"),
    [
        (bytes.fromhex("1190"), (48000, 2), "mp4a.40.2"),
        (bytes.fromhex("1210"), (44100, 2), "mp4a.40.2"),
        (bytes.fromhex("2b118800"), (48000, 2), "mp4a.40.5"),  # SBR over 24 kHz
        (bytes.fromhex("eb098800"), (48000, 2), "mp4a.40.29"),  # and PS: one channel becomes two
        (packed((2, 5), (15, 4), (47999, 24), (2, 4), (0, 3)), (47999, 2), "mp4a.40.2"),  # the rate in Hz
        (packed((2, 5), (3, 4), (7, 4), (0, 3)), (48000, 8), "mp4a.40.2"),
        (packed((2, 5), (3, 4), (0, 4), (0, 3), *ELEMENTS), (48000, 6), "mp4a.40.2"),
        (packed((31, 5), (10, 6), (3, 4), (2, 4), (0, 3)), (48000, 2), "mp4a.40.42"),  # an escaped type: xHE-AAC
    ],
)
def test_format_of_rarer_aac(config, expected, name):
    assert bitstream.aac_format(config) == expected
    assert bitstream.codec_string("aac", config) == name


@pytest.mark.parametrize("comment", [b"", b"by hand"])
def test_layout_in_a_block_of_aac_is_that_of_a_configuration(comment):
    end = bytes((len(comment),)) + comment
    block = packed((5, 3), *ELEMENTS) + end + b"\x21"  # what comes next is a pair
    layout = bitstream.program_config(block)
    assert layout == packed(*ELEMENTS) + end
    assert bitstream.aac_format(packed((2, 5), (3, 4), (0, 4), (0, 3)) + layout) == (48000, 6)
    assert all(bitstream.program_config(block[:size]) == b"" for size in range(len(block) - 1))
    assert bitstream.program_config(block[-1:] + block) == b""


def heard(name, extradata, data):
    """(channels, samples, rate) of each block that a decoder makes of ten packets; no sample is anything but 0."""
    context = av.CodecContext.create(name, "r")
    context.extradata = extradata
    frames = [frame for _ in range(10) for frame in context.decode(av.Packet(data))]
    assert len(frames) > 5
    assert not any(frame.to_ndarray().any() for frame in frames)
    return {(frame.layout.nb_channels, frame.samples, frame.sample_rate) for frame in frames}


@pytest.mark.parametrize("layout", range(1, 7))
def test_silence_of_aac(layout):
    config = packed((2, 5), (4, 4), (layout, 4), (0, 3))
    data, duration = bitstream.silence("aac", config)
    assert heard("aac", config, data) == {(layout, 1024, 44100)}
    assert duration == Fraction(1024, 44100)


@pytest.mark.parametrize("config", ["2b118800", "eb098800"])
def test_silence_of_aac_with_sbr(config):
    data, duration = bitstream.silence("aac", bytes.fromhex(config))
    assert {samples / Fraction(rate) for _, samples, rate in heard("aac", bytes.fromhex(config), data)} == {duration}


@pytest.mark.parametrize("channels", [1, 2])
def test_silence_of_opus(channels):
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, channels, 0, 48000, 0, 0)
    assert bitstream.silence("opus", head[:-1] + b"\1" + bytes(channels + 2)) is None  # of several streams in one
    data, duration = bitstream.silence("opus", head)
    assert heard("opus", head, data) == {(channels, 960, 48000)}
    assert duration == Fraction(960, 48000)


@pytest.mark.parametrize(
    "config",
    [
        b"",
        packed((2, 5), (15, 4), (0, 24), (2, 4), (0, 3)),  # at no rate
        packed((2, 5), (3, 4), (2, 4), (1, 1), (0, 2)),  # 960 samples a frame
        packed((2, 5), (3, 4), (0, 4), (0, 3), *ELEMENTS),
        packed((31, 5), (10, 6), (3, 4), (2, 4), (0, 3)),
    ],
)
def test_no_silence_of_rarer_aac(config):
    assert bitstream.silence("aac", config) is None


def test_name_of_h264():
    data = avcc((64, 36), profile="high", level="3.1")
    assert bitstream.codec_string("h264", data) == "avc1.64001f"


def test_what_has_no_name():
    assert bitstream.codec_string("h264", b"") == ""
    assert bitstream.codec_string("h264", START + b"\x67\x64\0\x1f") == ""
    assert bitstream.codec_string("vp6f", b"\1\2\3\4") == ""


def test_nal_units_between_start_codes_of_either_length():
    annexb = b"\0\0\0\1\x67abc\0\0\1\x68d\0\0\0\0\1\x65efg\0\0"
    assert bitstream.nal_units(annexb) == [b"\x67abc", b"\x68d", b"\x65efg"]
    assert bitstream.nal_units(b"none") == []


@pytest.mark.parametrize(("profile", "pix_fmt"), [("baseline", "yuv420p"), ("high", "yuv420p"), ("high422", "yuv422p")])
def test_avcc_of_parameter_sets_is_that_of_libav(profile, pix_fmt):
    theirs = avcc((66, 38), profile=profile, pix_fmt=pix_fmt)
    annexb = extradata("libx264", (66, 38), profile=profile, pix_fmt=pix_fmt)
    ours = avcc_of(annexb + b"\0\0\1\x65picture")
    assert bitstream.avc_size(ours) == (66, 38)
    _decodes(ours)
    assert ours[:4] == theirs[:4]
    assert profile == "baseline" or ours[-4:] == theirs[-4:]  # chroma and depths


def avcc_of(annexb):
    """The avcC of the parameter sets among NAL units."""
    return bitstream.avcc(bitstream.nal_units(annexb))


def _decodes(data):
    context = av.CodecContext.create("h264", "r")
    context.extradata = data
    context.open()


def test_no_avcc_without_both_parameter_sets():
    sps, pps = b"\0\0\1\x67\x42\0\x0a\xf8", b"\0\0\1\x68\xce\x3c\x80"
    assert avcc_of(sps + pps) != b""
    assert avcc_of(sps) == avcc_of(pps) == avcc_of(b"") == b""


@given(st.binary(max_size=200))
def test_garbage_never_raises(data):
    bitstream.avc_size(data)
    bitstream.hevc_size(data)
    bitstream.aac_format(data)
    bitstream.silence("aac", data)
    avcc_of(data)
    bitstream.avc_sets(data)
    bitstream.read_sps(data)
    bitstream.pps_numbers(data)
    bitstream.prefixed_kinds(data)
    bitstream.spliced("hevc", data)
    for codec in ("h264", "hevc", "aac", "opus", ""):
        assert isinstance(bitstream.codec_string(codec, data), str)


@given(st.integers(0, 4000), st.integers(0, 7), st.binary(max_size=8))
def test_damaged_configurations_never_raise(at, bit, more):
    for read, whole in (
        (bitstream.avc_size, GOOD["h264"]),
        (bitstream.avc_sets, GOOD["h264"]),
        (bitstream.hevc_size, GOOD["hevc"]),
    ):
        data = bytearray(whole)
        data[at % len(data)] ^= 1 << bit
        read(bytes(data))
        read(bytes(data[: at % len(data)]) + more)


GOOD = {
    "h264": avcc((66, 38), params="annexb=0:cqm=jvt"),
    "hevc": bytes.fromhex("01 01 60000000 900000000000 5d f000 fc fd f8 f8 0000 0f 01 21 0001 0028")
    + bytes.fromhex(
        "420101016000000300900000030000030 05da00280802d165964a4caf0168080000003008000000f04".replace(" ", "")
    ),
}


@given(st.binary(max_size=60))
def test_parameter_sets_of_garbage_never_raise(rest):
    made = bitstream.avcc([b"\x67\x64\0\x1f" + rest, b"\x68" + rest])
    assert made[0] == 1
    bitstream.avc_size(made)
