"""FLV: bytes from the specification, files that libav writes and reads, and no body that anything is raised for."""

import io
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import LocalProtocolError, RemoteProtocolError
from engine.rtmp import amf, flv
from engine.rtmp.flv import (
    Audio,
    Video,
    audio,
    audio_extradata,
    audio_packet,
    header,
    tag,
    tags,
    video,
    video_extradata,
    video_packet,
)

PATIENT = settings(deadline=None)


def test_the_header_is_that_of_the_specification():
    assert header() == bytes.fromhex("464c5601 05 00000009 00000000")
    assert header(audio=False)[4] == 1
    assert header(video=False)[4] == 4


def test_a_tag_is_that_of_the_specification():
    assert tag(9, 0x01020304, b"abc") == bytes.fromhex("09 000003 020304 01 000000 616263 0000000e")
    assert tag(8, 1 << 32 | 5, b"")[4:8] == bytes.fromhex("000005 00")


def test_a_tag_that_is_too_large_is_our_fault():
    with pytest.raises(LocalProtocolError):
        tag(9, 0, bytes(1 << 24))


VIDEO_BODIES = [
    ("17 00 000000 0142", "h264", "extradata", False, 0, "0142"),
    ("17 01 000028 aabb", "h264", "packet", True, 40, "aabb"),
    ("27 01 000000 aabb", "h264", "packet", False, 0, "aabb"),
    ("27 01 ffffd8 aabb", "h264", "packet", False, -40, "aabb"),
    ("17 02 000000", "h264", "end", False, 0, ""),
    ("17 03 000000", "h264", "other", False, 0, ""),
    ("17 01 0000", "h264", "other", False, 0, "17010000"),
    ("57 00", "h264", "other", False, 0, "5700"),
    ("1c 01 000028 aabb", "hevc", "packet", True, 40, "aabb"),
    ("12 aabb", "flv1", "packet", True, 0, "aabb"),
    ("24 aabb", "vp6f", "packet", False, 0, "aabb"),
    ("1f aabb", "", "other", False, 0, "1faabb"),
    ("90 68766331 01aa", "hevc", "extradata", False, 0, "01aa"),
    ("91 68766331 000028 aabb", "hevc", "packet", True, 40, "aabb"),
    ("a1 68766331 ffffff aabb", "hevc", "packet", False, -1, "aabb"),
    ("93 68766331 aabb", "hevc", "packet", True, 0, "aabb"),
    ("a3 61763031 aabb", "av1", "packet", False, 0, "aabb"),
    ("91 61763031 aabb", "av1", "packet", True, 0, "aabb"),
    ("91 76703039 aabb", "vp9", "packet", True, 0, "aabb"),
    ("92 68766331", "hevc", "end", False, 0, ""),
    ("94 68766331 02", "hevc", "other", False, 0, "02"),
    ("91 68766331 0000", "hevc", "other", False, 0, "91687663310000"),
    ("91 41424344 aa", "", "other", False, 0, "9141424344aa"),
    ("97 00 77 01 68766331 000028 aabb", "hevc", "packet", True, 40, "aabb"),
    ("97 ff 0001 1122 03 68766331 aabb", "hevc", "packet", True, 0, "aabb"),
    ("97 02 000000", "", "other", False, 0, "9702000000"),
    ("97", "", "other", False, 0, "97"),
    ("", "", "other", False, 0, ""),
]


@pytest.mark.parametrize(("wire", "codec", "kind", "keyframe", "composition", "data"), VIDEO_BODIES)
def test_video_bodies(wire, codec, kind, keyframe, composition, data):
    body = bytes.fromhex(wire)
    found = video(1000, body)
    assert (found.codec, found.kind, found.keyframe, found.composition) == (codec, kind, keyframe, composition)
    assert (found.dts, found.pts, found.data.hex()) == (1000, 1000 + composition, data)
    assert found.body is body


AUDIO_BODIES = [
    ("af 00 1210", "aac", "extradata", "1210"),
    ("af 01 aabb", "aac", "packet", "aabb"),
    ("af 02 aabb", "aac", "other", "af02aabb"),
    ("af", "aac", "other", "af"),
    ("2f aabb", "mp3", "packet", "aabb"),
    ("7f aabb", "pcm_alaw", "packet", "aabb"),
    ("df aabb", "", "other", "dfaabb"),
    ("90 4f707573 aabb", "opus", "extradata", "aabb"),
    ("91 4f707573 aabb", "opus", "packet", "aabb"),
    ("92 4f707573", "opus", "end", ""),
    ("94 4f707573 00", "opus", "other", "00"),
    ("95 4f707573 00", "opus", "other", "00"),
    ("93 4f707573 00", "opus", "other", "00"),
    ("91 6d703461 aabb", "aac", "packet", "aabb"),
    ("91 4f70", "", "other", "914f70"),
    ("", "", "other", ""),
]


@pytest.mark.parametrize(("wire", "codec", "kind", "data"), AUDIO_BODIES)
def test_audio_bodies(wire, codec, kind, data):
    body = bytes.fromhex(wire)
    found = audio(7, body)
    assert (found.dts, found.pts, found.codec, found.kind, found.data.hex()) == (7, 7, codec, kind, data)
    assert found.body is body


@PATIENT
@given(st.binary(max_size=40), st.integers(0, 255))
def test_no_body_raises(body, first):
    for found in (video(0, body), video(0, bytes((first,)) + body), audio(0, body), audio(0, bytes((first,)) + body)):
        assert found.body.endswith(found.data)
        assert 0 <= found.offset <= max(len(found.body), found.offset)


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
@pytest.mark.parametrize("keyframe", [True, False])
@pytest.mark.parametrize("shift", [0, 40, -40])
def test_pictures_read_back_as_they_were_written(codec, keyframe, shift):
    shift *= codec in ("h264", "hevc")
    found = video_packet(b"data", dts=100, pts=100 + shift, keyframe=keyframe, codec=codec)
    assert (found.data, found.pts, found.keyframe, found.kind, found.codec) == (
        *(b"data", 100 + shift, keyframe, "packet", codec),
    )
    opener = video_extradata(b"extra", dts=100, codec=codec)
    assert (opener.data, opener.kind, opener.codec, opener.dts) == (b"extra", "extradata", codec, 100)


@pytest.mark.parametrize("codec", ["aac", "opus", "flac"])
def test_sounds_read_back_as_they_were_written(codec):
    found = audio_packet(b"data", dts=100, codec=codec)
    assert (found.data, found.dts, found.kind, found.codec) == (b"data", 100, "packet", codec)
    opener = audio_extradata(b"extra", dts=1, codec=codec)
    assert (opener.data, opener.kind, opener.codec) == (b"extra", "extradata", codec)


@pytest.mark.parametrize(
    ("codec", "rate", "channels", "first"),
    [
        ("pcm_alaw", 8000, 1, "72"),
        ("pcm_mulaw", 8000, 2, "83"),
        ("mp3", 44_100, 2, "2f"),
        ("mp3", 8000, 1, "e2"),
        ("mp3", 48_000, 2, "91"),  # for which FLV's own header has no number
    ],
)
def test_sounds_that_flv_has_a_header_for_have_it(codec, rate, channels, first):
    found = audio_packet(b"data", dts=100, codec=codec, rate=rate, channels=channels)
    assert (found.body[:1].hex(), found.codec, found.kind, found.data) == (first, codec, "packet", b"data")


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (8000, 4), (0, 0)])
def test_sounds_that_flv_has_no_header_for_are_our_fault(rate, channels):
    with pytest.raises(LocalProtocolError, match="pcm_mulaw"):
        audio_packet(b"data", dts=0, codec="pcm_mulaw", rate=rate, channels=channels)


def test_what_no_tag_can_carry_is_our_fault():
    with pytest.raises(LocalProtocolError, match="FourCC"):
        video_packet(b"", dts=0, pts=0, keyframe=True, codec="mjpeg")
    with pytest.raises(LocalProtocolError, match="FourCC"):
        audio_extradata(b"", dts=0, codec="vorbis")
    with pytest.raises(LocalProtocolError, match="ms from dts"):
        video_packet(b"", dts=0, pts=1 << 23, keyframe=True)


tag_fields = st.tuples(st.sampled_from((8, 9, 18)), st.integers(0, 0xFFFFFFFF), st.binary(max_size=50))


@PATIENT
@given(st.lists(tag_fields, max_size=5))
def test_tags_read_back_as_they_were_written(written):
    wire = b"".join(tag(*fields) for fields in written)
    assert [tuple(found) for found in tags(wire)] == written
    if written:
        assert [tuple(found) for found in tags(wire[:-4])] == written


@PATIENT
@given(st.binary(max_size=100))
def test_garbage_is_tags_or_the_peers_fault(data):
    with suppress(RemoteProtocolError):
        assert sum(len(found.body) for found in tags(data)) <= len(data)


def test_a_tag_that_is_cut_off_is_the_peers_fault():
    wire = tag(9, 0, b"abc")
    with pytest.raises(RemoteProtocolError, match="at byte 0 of 13"):
        list(tags(wire[:13]))


def flv_file(codec, **options):
    """A file of ten pictures at 25 fps and of sound, as libav writes it."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="flv") as container:
        picture = container.add_stream(codec, rate=25, options={"g": "5", **options})
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("aac", rate=48000, layout="mono")
        for n in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((96, 64), n * 20, np.uint8), "yuv420p")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(picture.encode(frame))
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.float32), "fltp", "mono")
            block.pts, block.sample_rate = n * 1920, 48000
            container.mux(sound.encode(block))
        container.mux(picture.encode())
        container.mux(sound.encode())
    return sink.getvalue()


def packets_of(data):
    """What libav demuxes: (type, dts, pts, keyframe, bytes), in ms."""
    with av.open(io.BytesIO(data)) as container:
        return [
            (packet.stream.type, packet.dts, packet.pts, packet.is_keyframe, bytes(packet))
            for packet in container.demux()
            if packet.size
        ]


CODECS = [("libx264", "h264", {"bf": "2"}), ("libx265", "hevc", {"x265-params": "log-level=none:bframes=2"})]


@pytest.mark.parametrize(("encoder", "codec", "options"), CODECS)
def test_a_file_of_libav_is_read_as_libav_reads_it(encoder, codec, options):
    data = flv_file(encoder, **options)
    found, extradata = [], {}
    for kind, time, body in tags(data[13:]):
        if kind == flv.SCRIPT:
            name, *_ = amf.Values(body, depth=amf.DEPTH, values=100)
            assert name == "onMetaData"
            continue
        media = (video if kind == flv.VIDEO else audio)(time, body)
        if media.kind == "packet":
            key = media.keyframe if isinstance(media, Video) else True
            found.append(("video" if kind == flv.VIDEO else "audio", media.dts, media.pts, key, media.data))
        elif media.kind == "extradata":
            extradata[media.codec] = media.data
    assert found == packets_of(data)
    assert set(extradata) == {codec, "aac"}
    with av.open(io.BytesIO(data)) as container:
        assert extradata == {stream.codec_context.name: stream.codec_context.extradata for stream in container.streams}


@pytest.mark.parametrize(("encoder", "codec", "options"), CODECS)
def test_libav_reads_our_file_as_it_was(encoder, codec, options):
    data = flv_file(encoder, **options)
    ours = [header()]
    for kind, time, body in tags(data[13:]):
        if kind == flv.SCRIPT:
            continue
        media = (video if kind == flv.VIDEO else audio)(time, body)
        match media:
            case Video(kind="extradata"):
                media = video_extradata(media.data, dts=media.dts, codec=codec)
            case Video(kind="packet"):
                media = video_packet(media.data, dts=media.dts, pts=media.pts, keyframe=media.keyframe, codec=codec)
            case Audio(kind="extradata"):
                media = audio_extradata(media.data, dts=media.dts)
            case Audio(kind="packet"):
                media = audio_packet(media.data, dts=media.dts)
        ours.append(tag(media.tag_kind, media.dts, media.body))
    assert packets_of(b"".join(ours)) == packets_of(data)


@pytest.mark.parametrize(
    ("codec", "number"), [("h264", 7), ("aac", 10), ("mp3", 2), ("hevc", 0x68766331), ("opus", 0x4F707573), ("mp2", 0)]
)
def test_metadata_number_of_a_codec(codec, number):
    assert flv.codec_id(codec) == number
