"""Pull: files and URLs become streams, in real time, again and again. Real files and a real HTTP server on loopback."""

import io
import random
import time
from collections import deque
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
import trio

from engine import boxes, fmp4
from engine.bitstream import avc_size, hevc_size, nal_units, renumbered_pps, renumbered_slices
from engine.config import Settings
from engine.errors import InvalidSpec, SourceMalformed, SourceUnavailable, SourceUnsupported
from engine.feed import Feed
from engine.packet import UPRIGHT, Packet, Track
from engine.rtmp import amf, flv
from engine.sources.convert import SoundConverter, orientation_of
from engine.sources.decode import Decoders
from engine.sources.demux import READ_MOST, Demuxer
from engine.sources.livetracks import Care, LivePicture, LiveSound, Stamped
from engine.sources.pull import LEAD, Pull, checked_url
from engine.sources.tracks import PictureTrack
from engine.spec import AudioFormat, PullSpec
from engine.stream import END, Hub, Publisher
from tests.engine.clips import boxes as boxes_of
from tests.engine.clips import inside
from tests.media import (
    PLAIN,
    TONE,
    Audio,
    Video,
    encode,
    fragmented,
    late_flv,
    moved_flv,
    mp4_box,
    packed,
    plane,
    played_twice,
    read_number,
    remuxed,
    transport_crc,
    undated,
    widened,
)
from tests.web import WebRequest, web_server

pytestmark = pytest.mark.flow
NAME = "live/film"
NS = 10**9
MONO = AudioFormat(48_000, 1)


def clock():
    return time.monotonic_ns()


def demuxed(path, *, loop=False, most=400):
    """Packets of a path, read at once."""
    demuxer = Demuxer("film", str(path), Settings(), now=clock, loop=loop)
    out = []
    while not demuxer.ended and len(out) < most:
        out += demuxer.read()
    demuxer.close()
    return out


def numbers(packets):
    """What the pictures of some packets read as."""
    picture = LivePicture("film")
    stamped = [Stamped(p, int(p.pts * p.track.time_base * NS), False) for p in packets if p.is_video]
    return [read_number(frame.y) for _, _, frame in picture.decode([*stamped, END], wanted=0)]


def sound(packets):
    """The samples of some packets."""
    stamped = [Stamped(p, int(p.pts * p.track.time_base * NS), False) for p in packets if not p.is_video]
    return np.concatenate([block.samples[0] for _, block in LiveSound("film").decode(stamped, [MONO])[MONO]])


def seconds(packet):
    return packet.dts * packet.track.time_base


# --- packets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "transport", "flash_beep", "vfr"])
def test_packets_of_a_file_are_what_a_stream_wants(media, name):
    made = demuxed(media.path(name))
    for kind in ("video", "audio"):
        own = [packet for packet in made if packet.track.kind == kind]
        assert len({packet.track for packet in own}) == 1
        assert all(a.dts < b.dts for a, b in pairwise(own))
    assert min(seconds(packet) for packet in made) == pytest.approx(1, abs=0.1)
    assert made[0].starts_gop or not made[0].is_video
    video = next(packet.track for packet in made if packet.is_video)
    assert (video.codec, video.width, video.height) == ("h264", 64, 36)
    assert avc_size(video.extradata) == (64, 36)
    audio = next(packet.track for packet in made if not packet.is_video)
    assert (audio.rate, audio.channels) == (48_000, 2) or name == "flash_beep"


def test_annex_b_and_adts_become_what_mp4_carries(media):
    ts, mp4 = demuxed(media.path("transport")), demuxed(media.path("plain"))
    assert numbers(ts) == numbers(mp4) == list(range(60))
    assert np.abs(sound(ts)).max() == pytest.approx(0.5, abs=0.03)
    track = next(packet.track for packet in ts if packet.track.codec == "aac")
    assert track.extradata == bytes((2 << 3 | 3 >> 1, (3 & 1) << 7 | 2 << 3))  # AAC LC, 48 kHz, stereo
    assert all(packet.data[0] != 0xFF for packet in ts if not packet.is_video)
    pictures = [packet for packet in ts if packet.is_video]
    assert all(int.from_bytes(packet.data[:4], "big") <= len(packet.data) - 4 for packet in pictures)


def test_hevc_in_a_transport_stream(tmp_path):
    made = demuxed(encode(tmp_path / "film.ts", Video("libx265"), None))
    track = made[0].track
    assert (track.codec, hevc_size(track.extradata)) == ("hevc", (64, 36))
    assert numbers(made) == list(range(30))
    context = av.CodecContext.create("hevc", "r")  # libav reads our hvcC by itself
    context.extradata = track.extradata
    coded = av.Packet(made[0].data)
    frames = context.decode(coded) + context.decode(None)
    assert read_number(plane(frames[0])) == 0


def test_other_codecs_are_as_they_are(tmp_path):
    made = demuxed(encode(tmp_path / "film.mkv", Video("libvpx"), Audio("libopus")))
    assert {packet.track.codec for packet in made} == {"vp8", "opus"}
    assert numbers(made) == list(range(30))
    assert np.abs(sound(made)).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        *(("film.wav", "pcm_s16le", "5.1"), ("film.mov", "pcm_s16le", "quad"), ("film.wav", "pcm_s16le", "mono")),
        # Layouts for which ADTS has no number: the first block names them.
        *(("film.ts", "aac", layout) for layout in ("2.1", "quad", "5.1(side)", "6.1")),
        *(("film.aac", "aac", layout) for layout in ("5.1", "5.1(side)")),
    ],
)
def test_sound_of_any_number_of_channels_is_mixed_down_as_in_a_render(tmp_path, name, codec, layout):
    path = encode(tmp_path / name, None, Audio(codec, layout=layout, hz=(440, 550, 660, 770, 880, 990)))
    stamped = [Stamped(packet, packet.pts_ns, False) for packet in demuxed(path)]
    wanted = AudioFormat(48_000)
    live = np.concatenate([block.samples for _, block in LiveSound("film").decode(stamped, [wanted])[wanted]], axis=1)
    with av.open(str(path)) as container:
        given = [*container.decode(audio=0), None]
    converter = SoundConverter(wanted)
    offline = np.concatenate([block.samples for frame in given for block in converter.convert(frame)], axis=1)
    assert live.shape[1] == pytest.approx(48_000, abs=100 if codec != "aac" else 2500)  # which is padded
    assert np.array_equal(live, offline[:, : live.shape[1]])


def shown(packets):
    """The first picture of some packets, as a live mix has it."""
    stamped = [Stamped(p, p.pts_ns, False) for p in packets if p.is_video]
    return LivePicture("film").decode([*stamped, END], wanted=0)[0][2]


def rendered(path):
    """The first picture of a film, as a render has it."""
    with av.open(str(path)) as container:
        track = PictureTrack("film", container.streams.video[0], zero=Fraction(0), threads=1)
        made = [each for packet in container.demux(video=0) for each in track.decode(packet, start=Fraction(0))]
    return made[0][2]


def narrowed(path):
    """A film whose container says that its pixels are half as wide as high, and whose codec does not."""
    plain = encode(path.with_name("plain.mp4"), PLAIN, None)
    with av.open(str(plain)) as given, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        stream.codec_context.sample_aspect_ratio = Fraction(1, 2)
        for packet in given.demux():
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return path


def recorded(packets):
    """What is written of some packets, opened."""
    tracks = (packets[0].track,)
    fragmenter = fmp4.Fragmenter(tracks)
    for packet in packets:
        fragmenter.push(packet)
    return av.open(io.BytesIO(boxes.init_segment(tracks) + fragmenter.cut(hold=False).data))


TURNED = [("film.mp4", Video(rotation=turn)) for turn in (90, 180, 270)]
ALPHA = {"pix_fmt": "yuva420p", "options": {"auto-alt-ref": "0"}}
CLEAR = [("film.webm", Video(codec, **ALPHA)) for codec in ("libvpx", "libvpx-vp9")]


@pytest.mark.parametrize(("name", "video"), [*TURNED, *CLEAR, ("film.mkv", Video("libx264", matrix="bt601"))])
def test_pictures_are_turned_and_see_through_as_in_a_render(tmp_path, name, video):
    path = encode(tmp_path / name, video, Audio("libopus"))
    live, offline = shown(demuxed(path, loop=True, most=100)), rendered(path)
    assert (live.width, live.height) == video.size
    assert (live.a is None) == (name != "film.webm")
    for one, other in zip(live.planes, offline.planes, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "video"),
    [
        ("film.mov", Video("prores_ks", pix_fmt="yuv422p10le", matrix="bt709")),
        ("film.webm", Video("libvpx", matrix="bt709", **ALPHA)),
    ],
)
def test_colours_that_only_the_container_tells_are_as_in_a_render(tmp_path, name, video):
    path = encode(tmp_path / name, video, None)
    packets = demuxed(path, loop=True, most=50)  # of two rounds
    assert packets[0].track == packets[-1].track
    for one, other in zip(shown(packets).planes, rendered(path).planes, strict=True):
        assert np.array_equal(one, other)


def test_pixels_that_only_the_container_calls_narrow_are_so_in_a_mix_and_in_a_recording(tmp_path):
    path = narrowed(tmp_path / "film.mp4")
    live, offline = shown(demuxed(path)), rendered(path)
    assert (live.width, live.height) == (32, 36)
    assert np.array_equal(live.y, offline.y)
    with recorded(demuxed(path)) as container:
        stream = container.streams.video[0]
        assert (stream.sample_aspect_ratio, stream.codec_context.width) == (Fraction(1, 2), 64)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_recording_of_turned_pictures_is_turned(tmp_path, turn):
    path = encode(tmp_path / "film.mp4", Video(rotation=turn), None)
    with recorded(demuxed(path)) as made, av.open(str(path)) as given:
        one, other = (orientation_of(next(container.decode(video=0))) for container in (made, given))
    assert one == other != UPRIGHT


@pytest.mark.parametrize(("name", "codec"), [("film.wma", "wmav2"), ("film.wav", "adpcm_ms")])
def test_sound_whose_decoder_must_be_told_of_blocks_is_heard(tmp_path, name, codec):
    made = demuxed(encode(tmp_path / name, None, Audio(codec)))
    assert made[0].track.codec == codec
    assert np.abs(sound(made)).max() == pytest.approx(0.5, abs=0.05)
    assert len(sound(made)) == pytest.approx(48_000, abs=4096)


@pytest.mark.parametrize("first", [0, 20])
@pytest.mark.parametrize("name", ["film.mp4", "film.webm", "film.ogg"])
def test_opus_lies_where_its_stamps_say_wherever_somebody_begins_to_listen(tmp_path, name, first):
    path = encode(tmp_path / name, None, Audio("libopus", layout="mono", hz=(100,)))
    with av.open(str(path)) as container:
        packet = next(container.demux(audio=0))
        begins = packet.pts * packet.time_base
    packets = demuxed(path)
    zero = int((Fraction(packets[0].pts_ns, NS) - begins) * 48_000)
    stamped = [Stamped(packet, packet.pts_ns, False) for packet in packets[first:]]
    blocks = LiveSound("film").decode(stamped, [MONO])[MONO]
    heard = np.concatenate([block.samples[0] for _, block in blocks])[4_800:24_000]
    n = np.arange(len(heard)) + blocks[0][0] + 4_800 - zero
    assert np.corrcoef(heard, np.sin(2 * np.pi * 100 * n / 48_000))[0, 1] > 0.9


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("film.avi", "rawvideo", "yuv420p"),
        ("film.avi", "rawvideo", "bgr24"),
        ("film.mov", "rawvideo", "uyvy422"),
        ("film.mkv", "rawvideo", "nv12"),
        ("film.nut", "rawvideo", "rgb24"),
        ("film.y4m", "wrapped_avframe", "yuv422p"),
        ("film.avi", "utvideo", "yuv422p"),
        ("film.mov", "qtrle", "argb"),
        ("film.mov", "prores_ks", "yuva444p10le"),
    ],
)
def test_pictures_whose_decoder_must_be_told_of_their_variant_are_as_in_a_render(tmp_path, name, codec, pix_fmt):
    path = encode(tmp_path / name, Video(codec, pix_fmt=pix_fmt), None)
    live = demuxed(path)
    assert numbers(live) == list(range(30))
    live, offline = shown(live), rendered(path)
    assert all(np.array_equal(getattr(live, plane), getattr(offline, plane)) for plane in "yuva")


def called(stream, kind, *, place=0):
    """A transport stream of libav's, one of whose streams is called another kind in its map (ISO 13818-1 2.4.4.8)."""
    packets = [bytearray(stream[at : at + 188]) for at in range(0, len(stream), 188)]
    for packet in packets:
        if packet[1] & 0x1F == 0x10 and packet[2] == 0:  # libav's PID of the map; it begins at 5
            stop = 8 + (packet[6] << 8 & 0xF00 | packet[7])
            packet[17 + 5 * place] = kind
            packet[stop - 4 : stop] = transport_crc(packet[5 : stop - 4])
    return b"".join(packets)


def test_pictures_whose_container_has_a_number_for_their_variant_are_taken(tmp_path):
    path = encode(tmp_path / "film.ts", Video("mpeg2video"), None)
    path.write_bytes(called(path.read_bytes(), 0xEA))  # VC-1
    demuxer = Demuxer("film", str(path), Settings(), now=clock)
    assert demuxer.read()[0].track.codec == "vc1"
    demuxer.close()


@pytest.mark.parametrize("name", ["film.avi", "film.mkv", "film.asf", "film.mxf", "film.264", "film.265"])
@pytest.mark.parametrize("care", [Care.FULL, Care.HURRY])
def test_pictures_whose_container_has_no_times_for_them_are_shown_in_order(tmp_path, caplog, name, care):
    path, codec = tmp_path / name, "libx265" if name == "film.265" else "libx264"
    if name in ("film.264", "film.265"):
        encode(path, Video(codec, bframes=2), None, format="h264" if name == "film.264" else "hevc")
    else:
        undated(path, 2, seconds=1)
    stamped = [Stamped(packet, packet.pts_ns, False) for packet in demuxed(path)]
    live = LivePicture("film").decode([*stamped, END], wanted=0, care=care)
    assert [read_number(frame.y) for _, _, frame in live] == list(range(30))
    times = [start for start, _, _ in live]
    assert times == sorted(times)
    assert len(set(times)) == 30
    assert [message for message in caplog.messages if "order" in message] != []


@pytest.mark.parametrize("name", ["film.avi", "film.mkv"])
@pytest.mark.parametrize("care", [Care.FULL, Care.HURRY])
def test_pictures_of_a_packed_bitstream_are_shown_in_order(tmp_path, caplog, name, care):
    path = packed(tmp_path / name, 2, seconds=2)
    stamped = [Stamped(packet, packet.pts_ns, False) for packet in demuxed(path)]
    live = LivePicture("film").decode([*stamped, END], wanted=0, care=care)
    assert [read_number(frame.y) for _, _, frame in live] == list(range(50))
    assert {b - a for (a, _, _), (b, _, _) in pairwise(live)} == {NS // 25}
    assert [message for message in caplog.messages if "order" in message] != []


def test_sound_of_so_many_channels_that_nobody_knows_them_is_counted():
    track = Track(kind="audio", codec="pcm_s16le", rate=48_000, channels=9)
    sound, silence = LiveSound("film"), bytes(9 * 2 * 960)
    stamped = [Stamped(Packet(track, silence, pts=0, dts=0, arrival=0), n * NS // 50, False) for n in range(3)]
    assert sound.decode(stamped, [MONO]) == {MONO: []}
    assert sound.corrupt == 3


def test_a_file_that_is_repeated_goes_on_in_time(media):
    made = demuxed(media.path("plain"), loop=True)
    assert len({packet.track for packet in made}) == 2
    for kind in ("video", "audio"):
        own = [packet for packet in made if packet.track.kind == kind]
        steps = [float(seconds(b) - seconds(a)) for a, b in pairwise(own)]
        assert min(steps) > 0
        assert max(steps) < 0.12
    assert numbers(made)[:120] == [*range(60), *range(60)]


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.ts", "film.flv"])
def test_a_file_that_is_repeated_has_no_seam(tmp_path, name):
    """The picture that comes after the last one is the first one; sound stays with it, round after round."""
    film = encode(tmp_path / name, Video(bframes=2, flash=True), Audio(beep=Fraction(1, 30)), seconds=2)
    made = demuxed(film, loop=True, most=1000)
    shown = sorted(packet.pts * packet.track.time_base for packet in made if packet.is_video)[:-60]
    assert [round((at - shown[0]) * 30) for at in shown] == list(range(len(shown)))
    assert len(shown) > 240
    heard = [packet for packet in made if not packet.is_video]
    rate = heard[0].track.rate
    drift = [seconds(packet) - seconds(heard[0]) - Fraction(1024 * n, rate) for n, packet in enumerate(heard)]
    assert max(map(abs, drift)) < Fraction(2 * 1024, rate)


def trimmed(path, bframes, count):
    """A film whose first `count` of 60 pictures were cut away without coding it anew; its first keyframe is 0."""
    film = encode(path.with_name("film.mp4"), Video(bframes=bframes, gop=60), TONE, seconds=2)
    start, options = Fraction(count, 30), {"avoid_negative_ts": "disabled"} if path.suffix == ".mkv" else {}
    with av.open(str(film)) as whole, av.open(str(path), "w", options=options) as cut:
        streams = {stream.index: cut.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            if packet.dts is not None:
                shift = round(start / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = streams[packet.stream_index]
                cut.mux(packet)
    return path


@pytest.mark.parametrize("count", [19, 20, 21])
@pytest.mark.parametrize("bframes", [0, 2])
@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_what_was_cut_away_from_a_film_is_not_shown(tmp_path, name, bframes, count):
    made = demuxed(trimmed(tmp_path / name, bframes, count), loop=True, most=500)
    pictures = [packet for packet in made if packet.is_video]
    stamped = [Stamped(p, p.pts_ns, False) for p in pictures]
    shown = LivePicture("film").decode([*stamped, END], wanted=0)
    first = next(start for start, _, frame in shown if read_number(frame.y) == count)
    at = {}
    for start, _, frame in sorted(shown, key=lambda each: each[0]):
        at[round((start - first) / NS * 30)] = read_number(frame.y)  # the last one that begins there is seen
    assert [at[n] for n in range(2 * (60 - count))] == 2 * list(range(count, 60))
    assert min(at) == 0
    assert all(a.dts < b.dts for a, b in pairwise(pictures))
    assert all(packet.pts >= packet.dts for packet in pictures)
    heard = [packet.pts_ns for packet in made if not packet.is_video]
    assert heard[0] >= first - NS // 10  # decoders of sound begin a little earlier
    assert max(b - a for a, b in pairwise(heard)) < NS // 20


@pytest.mark.parametrize("bframes", [0, 2])
def test_pixels_that_become_wider_in_the_middle_of_a_programme_are_mixed_so(tmp_path, bframes):
    made = demuxed(widened(tmp_path / "programme.ts", bframes))
    stamped = [Stamped(packet, packet.pts_ns, False) for packet in made]
    shown = LivePicture("film").decode([*stamped, END], wanted=0)
    assert [frame.width for _, _, frame in shown] == 30 * [64] + 30 * [128]


def test_square_pixels_that_only_the_container_names_are_as_if_nobody_did(tmp_path):
    film = encode(tmp_path / "film.webm", Video("libvpx"), None)
    assert demuxed(film)[0].track.look.aspect is None


def edited(path, source, parts):
    """Copies an MP4 whose index is behind its media; only some parts of it are shown, as (start, stop) in ms."""

    def rebuilt(data, unit):
        made = b""
        for kind, body in boxes_of(data):
            if kind in ("moov", "trak", "edts"):
                unit = int.from_bytes(inside(body, "mdia", "mdhd")[0][12:16]) if kind == "trak" else unit
                body = rebuilt(body, unit)
            elif kind == "elst":
                began = int.from_bytes(body[12:16])  # behind the version, the count and a length
                body = bytes(4) + len(parts).to_bytes(4)
                for start, stop in parts:
                    lies = began + start * unit // 1000
                    body += (stop - start).to_bytes(4) + lies.to_bytes(4) + bytes((0, 1, 0, 0))
            made += mp4_box(kind.encode(), body)
        return made

    path.write_bytes(rebuilt(source.read_bytes(), 0))
    return path


@pytest.mark.parametrize("again", [1400, 2600])
@pytest.mark.parametrize("bframes", [0, 2])
def test_what_was_cut_away_in_the_middle_of_a_film_is_neither_seen_nor_heard(tmp_path, bframes, again):
    """libav reads on behind a part, and then goes back to the keyframe before the next one, by seconds."""
    film = encode(tmp_path / "film.mp4", Video(bframes=bframes, gop=60), Audio(hz=(440,)), seconds=4)
    cut = edited(tmp_path / "cut.mp4", film, [(0, 1200), (again, again + 800)])
    made = demuxed(cut, loop=True, most=1000)
    with av.open(str(cut)) as file:
        wanted = {round(frame.pts * frame.time_base * 30): read_number(plane(frame)) for frame in file.decode(video=0)}
    assert {0, 35, again * 30 // 1000, again * 30 // 1000 + 23} <= set(wanted.values())
    assert len(wanted) in (59, 60)
    pictures = [packet for packet in made if packet.is_video]
    stamped = [Stamped(p, p.pts_ns, False) for p in pictures]
    shown = LivePicture("film").decode([*stamped, END], wanted=0)
    first = next(start for start, _, frame in shown if read_number(frame.y) == 0)
    at = {}
    for start, _, frame in sorted(shown, key=lambda each: each[0]):
        at[round((start - first) / NS * 30)] = read_number(frame.y)  # the last one that begins there is seen
    for n in (0, max(wanted) + 1):  # both rounds
        assert {k: at[n + k] for k in wanted} == wanted
    assert set(at.values()) == set(wanted.values())  # between the parts the last picture of the first one holds
    assert all(a.dts < b.dts for a, b in pairwise(pictures))
    assert all(packet.pts >= packet.dts for packet in pictures)
    heard = [packet.pts_ns for packet in made if not packet.is_video]
    steps = [b - a for a, b in pairwise(heard)]
    assert min(steps) > 0
    assert max(steps) < NS // 10  # libav shows the second part two pictures late, where there are B-frames


def test_pictures_between_two_parts_of_a_slide_show_come_just_before_the_second(tmp_path):
    """The last one of the first part lasts for long, and most of that was cut away."""
    slides = Video(pts_ms=(0, 1000, 2000, 20_000, 21_000, 22_000, 23_000), gop=60)
    film = encode(tmp_path / "film.mp4", slides, None, seconds=24)
    made = demuxed(edited(tmp_path / "cut.mp4", film, [(0, 2500), (20_500, 22_500)]))
    assert max(packet.pts_ns - packet.dts_ns for packet in made) < NS // 100
    assert max(packet.pts_ns for packet in made) < 6 * NS


def test_pictures_behind_a_part_of_a_film_are_not_given(tmp_path):
    film = encode(tmp_path / "film.mp4", Video(gop=60), TONE, seconds=4)
    for parts, count in (([(0, 1200)], 36), ([(0, 1200), (2000, 2800)], 60), ([(2000, 2800), (0, 1200)], 60)):
        made = demuxed(edited(tmp_path / "cut.mp4", film, parts))
        assert sum(packet.is_video for packet in made) == count


def test_where_too_much_was_cut_away_before_a_part_it_begins_with_its_first_keyframe(tmp_path, monkeypatch):
    film = encode(tmp_path / "film.mp4", Video(gop=60), Audio(hz=(440,)), seconds=4)
    cut = edited(tmp_path / "cut.mp4", film, [(0, 500), (1000, 3000)])
    monkeypatch.setattr("engine.sources.demux.MAX_WAITING_BYTES", 1000)
    assert numbers(demuxed(cut)) == [*range(15), *range(60, 90)]


@pytest.mark.parametrize(
    "moments",
    [
        (*range(0, 800, 40), *range(2400, 2800, 40)),
        (*range(0, 720, 40), 2600, 2640, 2680),
        (*range(0, 800, 40), 2400, 2440, 2840, 2880),
    ],
    ids=["before the last", "the last", "where the film says too little"],
)
def test_a_repeated_film_of_a_screen_that_stands_still_ends_with_its_last_picture(tmp_path, moments):
    """MP4 gives a picture that is decoded before a pause, and shown behind it, the pause for its own length."""
    film = encode(tmp_path / "film.mp4", Video(rate=Fraction(25), bframes=2, pts_ms=moments), None, seconds=3)
    made = demuxed(film, loop=True, most=3 * len(moments))
    with av.open(str(film)) as file:
        assert max(packet.duration * packet.time_base for packet in file.demux(video=0) if packet.size) > 1
    shown = sorted(packet.pts * packet.track.time_base for packet in made[: 2 * len(moments)])
    length = Fraction(moments[-1] + 40, 1000)
    assert [at - shown[0] for at in shown] == [n * length + Fraction(ms, 1000) for n in (0, 1) for ms in moments]


def test_the_last_picture_of_a_repeated_film_stands_for_as_long_as_it_is_said_to(tmp_path):
    moments = (*range(0, 1000, 40), 2000, 2960)
    film = encode(tmp_path / "film.mp4", Video(rate=Fraction(25), pts_ms=moments), None, seconds=3)
    with av.open(str(film)) as file, av.open(str(tmp_path / "long.mp4"), "w") as long:
        stream = long.add_stream_from_template(file.streams.video[0])
        for packet in file.demux(video=0):
            if packet.size:
                packet.stream = stream
                packet.duration = round(Fraction(1, 2) / packet.time_base)
                long.mux(packet)
    shown = [seconds(packet) - 1 for packet in demuxed(tmp_path / "long.mp4", loop=True, most=3 * len(moments))]
    assert shown[len(moments)] == Fraction(2960 + 500, 1000)


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), [("a.png", "png", "rgb24"), ("a.jpg", "mjpeg", "yuvj420p")])
def test_a_still_that_is_repeated_comes_once_a_second(tmp_path, name, codec, pix_fmt):
    still = encode(tmp_path / name, Video(codec, pts_ms=(0,), pix_fmt=pix_fmt), None, format="image2", update="1")
    made = demuxed(still, loop=True, most=4)
    assert [seconds(packet) for packet in made[:4]] == [1, 2, 3, 4]
    assert len({packet.track for packet in made}) == 1


def test_sound_stays_with_the_picture_of_a_repeated_avi(tmp_path):
    """Each of its MP3 packets has a stamp of its number, so those of the padding are on the next round's."""
    made = demuxed(encode(tmp_path / "film.avi", Video("mpeg4"), Audio("mp3"), seconds=2), loop=True, most=800)
    firsts = []
    for kind in ("video", "audio"):
        own = [packet for packet in made if packet.track.kind == kind]
        firsts.append([seconds(packet) - seconds(own[1]) for packet in own if packet.data == own[1].data])
    pictures, sounds = firsts
    assert len(pictures) == len(sounds) > 4
    assert max(abs(picture - sound) for picture, sound in zip(*firsts, strict=True)) < Fraction(1, 40)


@pytest.mark.parametrize(
    ("name", "codecs"),
    [("film.webm", ("libvpx", "libopus")), ("film.mkv", ("libx264", "aac")), ("film.h264", ("libx264", None))],
)
def test_a_file_that_states_no_duration_is_paced_and_repeated(tmp_path, name, codecs):
    picture, sounds = codecs
    stream = {} if sounds is None else {"live": "1"}  # Matroska as it is written to a pipe
    path = encode(tmp_path / name, Video(picture), Audio(sounds) if sounds else None, **stream)
    demuxer = Demuxer("film", str(path), Settings(), now=clock, loop=True)
    made = []
    while not demuxer.ended and len(made) < 200:
        made += demuxer.read()
    assert (demuxer.has_end, demuxer.is_paced, demuxer._container.duration) == (True, True, None)
    demuxer.close()
    assert numbers(made)[:60] == [*range(30), *range(30)]
    assert all(a.dts < b.dts for a, b in pairwise(packet for packet in made if packet.is_video))


def test_packets_of_a_file_come_in_the_order_of_time(tmp_path):
    film = encode(tmp_path / "film.mp4", Video(), TONE, seconds=3)
    demuxer = Demuxer("film", str(film), Settings(), now=clock)
    packets = [packet for packet in demuxer._packets if packet.size]
    chunks = [[p for p in packets if int(p.dts * p.time_base / Fraction(1, 2)) == n] for n in range(6)]
    demuxer._packets = iter([p for chunk in chunks for p in sorted(chunk, key=lambda p: p.stream_index)])
    made = []
    while not demuxer.ended:
        made += demuxer.read()
    demuxer.close()
    assert len(made) == len(packets)
    assert [seconds(packet) for packet in made] == sorted(seconds(packet) for packet in made)


@pytest.mark.parametrize("rest", ["sound that ends", "sound that begins late"])
def test_a_kind_that_does_not_come_is_not_waited_for(tmp_path, rest):
    film = encode(tmp_path / "film.mp4", Video(), TONE, seconds=8)
    seconds_passed = iter(range(10**6))
    demuxer = Demuxer("film", str(film), Settings(), now=lambda: next(seconds_passed) * NS)
    is_there = (lambda t: t < 1) if rest == "sound that ends" else (lambda t: t > 7)
    pictures, all_of_it = [], demuxer._packets

    def lacking():
        for packet in all_of_it:
            if packet.size and (packet.stream.type == "video" or is_there(packet.dts * packet.time_base)):
                pictures.append(packet.stream.type == "video")
                yield packet

    demuxer._packets = lacking()
    made, ahead = [], []
    while not demuxer.ended:
        made += demuxer.read()
        ahead.append(sum(pictures) - sum(packet.is_video for packet in made))
    demuxer.close()
    assert max(ahead) <= 40  # 1.25 s of 30 pictures each, and what sound comes before
    assert numbers(made) == list(range(240))


def test_a_change_of_parameter_sets_is_a_new_track(tmp_path):
    parts = [encode(tmp_path / f"{n}.ts", Video(size=size), None) for n, size in enumerate(((64, 36), (128, 72)))]
    both = tmp_path / "both.ts"
    both.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    made = demuxed(both)
    assert [(track.width, track.height) for track in dict.fromkeys(p.track for p in made)] == [(64, 36), (128, 72)]
    assert all(a.dts < b.dts for a, b in pairwise(made))


def coded(path, codec="libx264", **params):
    """The NAL units of three GOPs of ten pictures, each of which but the first refers to the one before."""
    params = {"annexb": 1, "repeat-headers": 1, "bframes": 0, "weightp": 0, "scenecut": 0, "open-gop": 0, **params}
    options = {f"{codec.removeprefix('lib')}-params": ":".join(f"{name}={value}" for name, value in params.items())}
    return nal_units(encode(path, Video(codec, gop=10, options=options), None).read_bytes())


def written(path, units):
    path.write_bytes(b"".join(b"\0\0\0\1" + unit for unit in units))
    return path


@pytest.mark.parametrize("times", [1, 3])
def test_a_parameter_set_beside_no_other_is_for_the_pictures_behind_it_and_for_who_joins_later(tmp_path, times):
    units, out = coded(tmp_path / "film.h264"), []
    second = renumbered_pps(next(unit for unit in units if unit[0] & 31 == 8), 15, 0)
    for before, unit in pairwise([b"\0", *units]):
        if before[0] & 31 == 5 and out.count(second) < times:
            out.append(second)
        is_reference = unit[0] & 31 == 1
        out.append(renumbered_slices(len(unit).to_bytes(4, "big") + unit, {0: 15})[4:] if is_reference else unit)
    made = demuxed(written(tmp_path / "other.h264", out), loop=True)[:90]
    assert numbers(made) == [*range(30)] * 3
    assert numbers(made[10:30]) == [*range(10, 30)]
    assert [n for n in range(1, 90) if made[n].track is not made[n - 1].track] == [10]


@pytest.mark.parametrize(
    ("name", "codec", "kind_of", "params"),
    [
        ("film.h264", "libx264", lambda unit: {8: "set", 5: "key", 1: "other"}.get(unit[0] & 31), {"cabac": 0}),
        ("film.hevc", "libx265", lambda unit: {34: "set", 20: "key", 1: "other"}.get(unit[0] >> 1 & 63), {"qp": 30}),
    ],
)
def test_a_parameter_set_that_comes_again_with_other_content_holds_from_there_on(
    tmp_path, name, codec, kind_of, params
):
    units, others = coded(tmp_path / name, codec), coded(tmp_path / name, codec, **params)
    second = next(unit for unit in others if kind_of(unit) == "set")
    assert second not in units
    pictures = iter([unit for unit in others if kind_of(unit) in ("key", "other")])
    out = []
    for unit in units:
        kind = kind_of(unit)
        other = next(pictures) if kind in ("key", "other") else b""
        out += [unit, second] if kind == "key" else [other if kind == "other" else unit]
    made = demuxed(written(tmp_path / name, out))
    assert numbers(made) == [*range(30)]
    assert numbers(made[10:]) == [*range(10, 30)]
    assert len({packet.track for packet in made}) == 1


def test_a_parameter_set_that_others_build_on_may_change_and_change_back_between_keyframes(tmp_path):
    units, others = coded(tmp_path / "film.h264"), coded(tmp_path / "others.h264", level=40)
    first, second = (next(unit for unit in each if unit[0] & 31 == 7) for each in (units, others))
    assert first != second
    assert units[1] == others[1]  # the one of pictures
    out = []
    for n, unit in enumerate(units):
        is_last = unit[0] & 31 == 1 and [each[0] & 31 for each in units[n + 1 : n + 2]] == [7]
        out += [second, units[1], unit] if is_last else [unit]
    made = demuxed(written(tmp_path / "both.h264", out))
    assert numbers(made) == [*range(30)]
    assert len({packet.track for packet in made}) == 1
    # A decoder may forget the one of pictures then, so it comes again though it is the same.
    begin = [b"".join(len(unit).to_bytes(4, "big") + unit for unit in (each, units[1])) for each in (second, first)]
    assert [made[n].data.startswith(begin[n % 2 == 0]) for n in (9, 10, 19, 20)] == [True] * 4


@pytest.mark.parametrize("name", ["corrupt", "truncated", "truncated_ts"])
def test_damaged_files_give_what_can_be_read(media, name):
    made = []
    try:
        made = demuxed(media.path(name))
    except (SourceUnavailable, SourceMalformed) as err:
        assert str(err).startswith('source "film": ')
    assert made or name == "truncated"


@pytest.mark.parametrize("suffix", ["ts", "flv"])
def test_sound_and_picture_go_on_where_a_clock_wraps(tmp_path, suffix):
    """libav gives stamps below 0 to what comes in the last minute before."""
    plain = encode(tmp_path / f"plain.{suffix}", PLAIN, TONE, seconds=3)
    wraps = tmp_path / f"wraps.{suffix}"
    if suffix == "ts":
        remuxed(wraps, plain, lambda _: Fraction(1 << 33, 90_000) - 3)  # it begins at 1.4 s
    else:
        moved_flv(wraps, plain, -1500)
    made = demuxed(wraps)
    assert [(packet.is_video, packet.data, round(seconds(packet), 4)) for packet in made] == [
        (packet.is_video, packet.data, round(seconds(packet), 4)) for packet in demuxed(plain)
    ]


def test_pictures_of_an_flv_that_are_shown_before_they_are_coded_are_decoded_earlier(tmp_path):
    film = encode(tmp_path / "film.flv", Video(bframes=3), TONE, seconds=2)
    late, plain = demuxed(late_flv(tmp_path / "late.flv", film, 160)), demuxed(film)
    assert all(packet.dts <= packet.pts for packet in late)
    zero, at = (next(packet.pts for packet in made if not packet.is_video) for made in (late, plain))
    shown = [packet.pts - zero for packet in late if packet.is_video]
    wanted = [packet.pts - at for packet in plain if packet.is_video]
    assert shown[:3] + shown[4:] == wanted[:3] + wanted[4:]  # the fourth one came when it should have been decoded


@pytest.mark.parametrize("jump", [3_600_000, -3_600_000])
def test_a_jump_in_an_flv_is_straightened_out(tmp_path, jump):
    film = encode(tmp_path / "film.flv", PLAIN, TONE, seconds=2)
    first, second = (moved_flv(tmp_path / f"{ms}.flv", film, ms) for ms in (max(0, -jump), max(0, jump)))
    whole = tmp_path / "whole.flv"
    whole.write_bytes(first.read_bytes() + second.read_bytes()[13:])  # without its header
    made = demuxed(whole)
    assert numbers(made) == [*range(60), *range(60)]
    for is_video in (True, False):
        steps = [seconds(b) - seconds(a) for a, b in pairwise(p for p in made if p.is_video is is_video)]
        assert 0 < min(steps) <= max(steps) < Fraction(1, 5)  # FLV delays what comes first


def test_stamps_that_do_not_rise_are_repaired(tmp_path):
    demuxer = Demuxer("film", str(encode(tmp_path / "film.mp4", Video(), None)), Settings(), now=clock)
    packets = list(demuxer._packets)
    for packet, dts in zip(packets[3:8], (5, 5, None, -7, None), strict=True):
        packet.dts = dts
    packets[7].pts = None
    demuxer._packets = iter(packets)
    made = []
    while not demuxer.ended:
        made += demuxer.read()
    assert [packet.dts for packet in made] == sorted({packet.dts for packet in made})
    assert demuxer.repaired >= 2


def with_a_torn_pts(path):
    """A transport stream, bit 31 of the pts of a picture in its middle flipped (ISO 13818-1 2.4.3.6)."""
    data, found = bytearray(path.read_bytes()), []
    for at in range(0, len(data), 188):
        pes = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
        if data[at + 1] & 0x40 and data[pes : pes + 4] == b"\0\0\1\xe0" and data[pes + 7] >> 6 == 3:
            found.append(pes + 9)
    data[found[len(found) // 2]] ^= 0b100
    path.write_bytes(data)
    return path


def test_a_pts_that_is_hours_from_its_dts_is_repaired(tmp_path):
    path = with_a_torn_pts(encode(tmp_path / "film.ts", Video(bframes=2), TONE, seconds=2))
    demuxer, made = Demuxer("film", str(path), Settings(), now=clock), []
    while not demuxer.ended:
        made += demuxer.read()
    demuxer.close()
    assert demuxer.repaired == 1
    assert sum(packet.is_video for packet in made) == 60
    assert all(abs(packet.pts_ns - packet.dts_ns) < NS for packet in made)
    feed = Feed()
    assert all(packet.shared in feed.tell(packet) for packet in made)
    assert not feed.refused


def in_short_packets(path):
    """A second of sound in packets of 40 samples, as those of TrueHD; stamps of Matroska are whole milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for n in range(1200):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 40), np.int16), "s16", "mono")
            block.sample_rate, block.pts, block.time_base = 48_000, n * 40, Fraction(1, 48_000)
            container.mux(stream.encode(block))
    return path


def test_sound_whose_packets_are_shorter_than_a_unit_of_time_has_no_holes(tmp_path):
    demuxer = Demuxer("film", str(in_short_packets(tmp_path / "film.mkv")), Settings(), now=clock)
    made = []
    while not demuxer.ended:
        made += demuxer.read()
    demuxer.close()
    assert (len(made), demuxer.repaired) == (1200, 0)
    assert seconds(made[-1]) - seconds(made[0]) == pytest.approx(1, abs=0.002)
    stamped = [Stamped(packet, packet.pts_ns, False) for packet in made]
    blocks = LiveSound("film").decode(stamped, [MONO])[MONO]
    assert all(first + len(block) == following for (first, block), (following, _) in pairwise(blocks))


# --- the actor --------------------------------------------------------------------------------------------------------


class Station:
    """A hub in real time, and what a reader of the pulled stream gets."""

    def __init__(self, nursery, settings=None):
        self.hub = Hub(clock)
        self.nursery = nursery
        self.settings = settings or Settings(open_timeout=2, read_timeout=2)
        self.packets = []

    def pull(self, url, **options):
        self.one = Pull(self.hub, NAME, PullSpec(url=str(url), **options), self.settings)
        self.scope, self.ended = trio.CancelScope(), trio.Event()
        self.nursery.start_soon(self._run, self.one, self.scope, self.ended)
        return self.one

    async def _run(self, one, scope, ended):
        with scope:
            await one.run()
        ended.set()

    async def stop(self):
        self.scope.cancel()
        with trio.fail_after(30):
            await self.ended.wait()

    async def receive(self, *, until):
        """Reads until `until(packets)`; END is None among them."""
        with trio.fail_after(30), self.hub.read(NAME) as reader:
            while not until(self.packets):
                self.packets += [None if item is END else item for item in await reader.receive()]
        return self.packets

    async def state(self, *states):
        with trio.fail_after(30):
            while self.one.status().state not in states:
                await trio.sleep(0.01)
        return self.one.status()


@pytest.fixture
def station(nursery):
    return Station(nursery)


async def test_a_file_is_published_in_real_time_and_ends(station, media):
    station.pull(media.path("video_only"))
    began = clock()
    got = await station.receive(until=lambda got: None in got)
    assert len(got) == 31
    assert [round((packet.arrival - got[0].arrival) / NS * 30) for packet in got[:-1]] == list(range(30))
    assert clock() - began > 0.9 * NS
    assert (await station.state("ended")).error == ""


async def test_a_file_is_not_sent_in_large_bursts(station, media):
    station.pull(media.path("plain"))
    ahead = []
    with trio.fail_after(30), station.hub.read(NAME) as reader:
        while END not in (items := await reader.receive()):
            ahead += [packet.arrival - clock() for packet in items]
    assert len(ahead) > 100
    assert max(ahead) <= LEAD  # each is sent in its turn, whatever was read together


async def test_how_many_time_stamps_were_repaired_is_in_the_log(station, tmp_path, caplog):
    station.pull(with_a_torn_pts(encode(tmp_path / "film.ts", Video(bframes=2), TONE, seconds=1)))
    await station.state("ended")
    assert f"{NAME}: time stamps repaired: 1" in caplog.messages


async def test_the_status_of_a_stream_says_who_pulls_it(station, media):
    station.pull(media.path("plain"))
    await station.receive(until=lambda got: len(got) > 3)
    status = station.hub.published(NAME).status()
    assert (status.publisher, status.peer) == ("pull", str(media.path("plain")))
    assert (status.video.codec, status.video.width, status.audio.sample_rate) == ("h264", 64, 48_000)
    assert station.one.status().state == "publishing"
    await station.stop()
    assert station.hub.streams() == []


async def test_a_repeated_file_never_ends(station, tmp_path):
    path = encode(tmp_path / "film.mp4", Video(pts_ms=(0, 100, 200, 300)), None)
    station.pull(path, loop=True)
    got = await station.receive(until=lambda got: len(got) >= 12)
    assert None not in got
    assert len({packet.track for packet in got}) == 1
    await station.stop()


async def test_a_pulled_file_is_a_source_for_mixers(station, media):
    decoders = Decoders(station.hub, station.settings, strict=True)
    await station.nursery.start(decoders.run)
    source = decoders.open(NAME, AudioFormat(), epoch=Fraction(0))
    station.pull(media.path("plain"))
    seen = []
    with trio.fail_after(30):
        while len(seen) < 10:
            t = Fraction(clock() - 200_000_000, NS)
            source.attend(picture=t, sound=int(t * 48_000))
            frame = source.pick(t, Fraction(0)).frame
            number = None if frame is None else read_number(frame.y)
            if number is not None and number not in seen:
                seen.append(number)
            await trio.sleep(0.01)
    assert seen == sorted(seen)
    assert source.statistics().resyncs == 0
    source.close()


async def test_a_file_that_is_not_there_is_tried_again_until_it_is(station, tmp_path, media):
    path = tmp_path / "late.mp4"
    station.pull(path)
    status = await station.state("retrying")
    assert status.error == f'source "{NAME}": no such file or directory'
    path.write_bytes(media.path("video_only").read_bytes())
    await station.receive(until=lambda got: len(got) > 3)
    assert station.one.status().retries == 1
    assert station.one.status().error == ""


@pytest.mark.parametrize(("name", "sentence"), [("text", "not media that can be read"), ("empty", "the file is empty")])
async def test_a_file_that_is_no_media_is_given_up(station, media, name, sentence):
    station.pull(media.path(name))
    status = await station.state("failed")
    assert status.error == f'source "{NAME}": {sentence}'


async def test_a_name_that_is_taken_is_waited_for(station, media):
    publication = station.hub.publish(NAME, Publisher(kind="rtmp"))
    station.pull(media.path("plain"))
    assert "already published" in (await station.state("retrying")).error
    publication.close()
    await station.receive(until=lambda got: len(got) > 3)
    assert station.one.status().state == "publishing"


@pytest.mark.parametrize("url", ["concat:a|b", "data://x", "udp://1.2.3.4:5", "pipe:0", "http:x"])
def test_protocols_that_are_not_ours_are_refused(url):
    with pytest.raises(InvalidSpec):
        Pull(Hub(clock), NAME, PullSpec(url=url), Settings())


@pytest.mark.parametrize("url", ["/a/b.mp4", "b.mp4", "file:/a", "HTTP://host/a", "rtsps://host", "c:/a"])
def test_paths_and_protocols_that_are_ours_are_taken(url):
    assert checked_url(url) == url


# --- over the network -------------------------------------------------------------------------------------------------


class Peer(WebRequest):
    """Serves what its server's `films` say: bytes, and the seconds they take; None = says nothing more.

    `asked` is every path that was asked for, `beside` how many were still being served then.
    """

    def do_GET(self):
        self.server.asked.append(self.path)
        self.server.beside.append(len(self.server.serving))
        self.server.serving.add(self)
        try:
            self._serve()
        finally:
            self.server.serving.remove(self)

    def _serve(self):
        film = self.server.films.get(self.path.partition("?")[0])
        if film is None:
            self.send_error(404)
            return
        data, lasts = film
        self.send_response(200)
        if lasts == 0:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if lasts is None:
            self.wfile.write(data)
            self.wfile.flush()
            self.server.over.wait(8)
            return
        size = 188 * 7
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        for chunk in chunks:
            self.wfile.write(chunk)
            self.wfile.flush()
            time.sleep(lasts / len(chunks))


@pytest.fixture
def server():
    with web_server(Peer) as server:
        server.films, server.asked, server.beside, server.serving = {}, [], [], set()
        yield server


async def test_a_live_url_comes_in_its_own_time_and_is_opened_again_when_it_ends(station, server, tmp_path):
    film = encode(tmp_path / "live.ts", PLAIN, TONE, seconds=12)
    server.films["/live.ts"] = film.read_bytes(), 0.5
    station.pull(f"{server.url}/live.ts?key=secret")
    got = await station.receive(until=lambda got: got.count(None) == 1)
    assert len([packet for packet in got if packet and packet.is_video]) >= 358
    assert got[-2].arrival - got[0].arrival < 6 * NS  # not the film's time
    status = await station.state("retrying")
    assert status.error in (f'source "{NAME}": it ended', f'source "{NAME}": input/output error')
    assert status.url == f"{server.url}/live.ts?***"
    await station.receive(until=lambda got: got[-1] is not None)
    assert station.one.status().state == "publishing"


@pytest.mark.parametrize(("lasts", "state", "least"), [(0, "ended", 0.9), (0.01, "retrying", 0)])
async def test_a_film_without_a_duration_has_an_end_where_the_server_states_its_length(
    station, server, tmp_path, lasts, state, least
):
    film = encode(tmp_path / "film.mkv", Video(), TONE, live="1")
    server.films["/film.mkv"] = film.read_bytes(), lasts
    station.pull(f"{server.url}/film.mkv")
    began = clock()
    got = await station.receive(until=lambda got: None in got)
    assert sum(packet.is_video for packet in got[:-1]) == 30
    assert clock() - began > least * NS
    assert (await station.state("ended", "retrying")).state == state


async def test_a_peer_that_says_nothing_more_is_given_up_in_time(nursery, server, media):
    station = Station(nursery, Settings(open_timeout=0.5, read_timeout=0.3))
    server.films["/stalls.ts"] = media.path("transport").read_bytes()[: 188 * 60], None
    station.pull(f"{server.url}/stalls.ts")
    assert "nothing more came for 0.3 s" in (await station.state("retrying")).error


def turned(folder, media):
    """A transport stream whose programme goes on under another number after two seconds, for twenty."""
    pids = {"mpegts_start_pid": "700", "mpegts_pmt_start_pid": "4700"}
    other = encode(folder / "other.ts", PLAIN, TONE, seconds=2, **pids)
    return media.path("transport").read_bytes() + 10 * other.read_bytes()


async def test_a_peer_whose_streams_become_others_is_opened_again(nursery, server, tmp_path, media):
    station = Station(nursery, Settings(open_timeout=2, read_timeout=1))
    server.films["/live.ts"] = turned(tmp_path, media), 10
    station.pull(f"{server.url}/live.ts")
    await station.receive(until=lambda got: got.count(None) == 1)
    status = await station.state("retrying")
    assert status.error == f'source "{NAME}": none of its streams came for 1 s'
    await station.receive(until=lambda got: got[-1] is not None)
    assert station.one.status().state == "publishing"
    await station.stop()


async def test_no_more_than_a_few_threads_are_left_with_a_peer_whose_streams_became_others(
    nursery, server, tmp_path, media, monkeypatch
):
    monkeypatch.setattr("engine.sources.pull.MOST_LEFT", 1)
    station = Station(nursery, Settings(open_timeout=2, read_timeout=1))
    server.films["/live.ts"] = turned(tmp_path, media), 6
    station.pull(f"{server.url}/live.ts")
    assert "none of its streams came" in (await station.state("retrying")).error
    await station.state("publishing")
    assert server.beside == [0, 0]  # the peer had come to its end
    await station.stop()


def recoded(folder, before, behind, *, suffix="ts", **options):
    """A programme's parts of two and four seconds, under the same PIDs; the codecs are those of picture and sound."""
    parts = []
    for n, (video, audio) in enumerate((before, behind)):
        coded = video and Video(video), audio and Audio(audio, rate=44_100)  # which all codecs have in FLV
        behind = {"output_ts_offset": str(2 * n)} | options
        parts.append(encode(folder / f"{n}.{suffix}", *coded, seconds=2 + 2 * n, **behind))
    return parts


RECODED = [
    ("sound", ("libx264", "aac"), ("libx264", "ac3")),
    ("sound", ("libx264", "ac3"), ("libx264", "aac")),
    ("sound", ("libx264", "mp2"), ("libx264", "aac")),
    ("picture", ("libx264", "aac"), ("libx265", "aac")),
    ("picture", ("libx265", "aac"), ("libx264", "aac")),
]


@pytest.mark.parametrize(("kind", "before", "behind"), RECODED)
@pytest.mark.parametrize("in_segments", [True, False])
def test_a_live_programme_whose_codec_becomes_another_one_is_read_no_further(
    server, tmp_path, kind, before, behind, in_segments
):
    first, second = recoded(tmp_path, before, behind)
    listed = f"#EXTINF:2,\n{first.name}\n#EXT-X-DISCONTINUITY\n#EXTINF:4,\n{second.name}\n"
    server.films |= {f"/{file.name}": (file.read_bytes(), 0) for file in (first, second)}
    server.films["/live.m3u8"] = f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n{listed}".encode(), 0
    server.films["/live.ts"] = first.read_bytes() + second.read_bytes(), 0.01
    url = f"{server.url}/live.{'m3u8' if in_segments else 'ts'}"
    demuxer = Demuxer("film", url, Settings(read_timeout=5), now=clock)
    made = []
    with pytest.raises(SourceUnavailable) as caught:
        while not demuxer.ended:
            made += demuxer.read()
    demuxer.close()
    assert str(caught.value) == f'source "film": its {kind} is of another codec now'
    names = {"libx264": "h264", "libx265": "hevc"}
    assert {packet.track.codec for packet in made} == {names.get(codec, codec) for codec in before}


def scrambled(stream):
    """A transport stream of libav's, all its sound noise, a packet of which happens to begin as MPEG's do."""
    data, places = bytearray(stream), []
    for at in range(0, len(data), 188):
        if (data[at + 1] & 0x1F) << 8 | data[at + 2] == 0x101:
            payload = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
            if data[at + 1] & 0x40:
                payload += 9 + data[payload + 8]  # behind the head of a PES packet
            places += range(payload, at + 188)
    noise = bytearray(random.Random(1).randbytes(len(places)))
    noise[100:104] = b"\xff\xfd\xe4\0"  # a block of 1152 bytes, behind which libav has the next packet begin
    noise[1252:1256] = b"\xff\xfd\xf4\0"
    for place, byte in zip(places, noise, strict=True):
        data[place] = byte
    return bytes(data)


IN_FLV = [
    ("sound", ("libx264", "aac"), ("libx264", "libmp3lame")),
    ("sound", ("libx264", "libmp3lame"), ("libx264", "aac")),
    ("picture", ("libx264", "aac"), ("libx265", "aac")),
    ("picture", ("libx265", "aac"), ("libx264", "aac")),
]


LIVE_FLV = {"flvflags": "no_duration_filesize"}


def spliced_flv(folder, before, behind, *, said_first=b""):
    """What a server of HTTP-FLV sends whose publisher goes on in other codecs after two seconds, for four."""
    first, second = recoded(folder, before, behind, suffix="flv", **LIVE_FLV)
    tags = [each.read_bytes()[len(flv.header()) :] for each in (first, second)]
    return flv.header() + said_first + b"".join(tags)


NGINX = flv.tag(flv.SCRIPT, 0, amf.encode("onMetaData", {"Server": "NGINX RTMP (github.com/arut/nginx-rtmp-module)"}))


@pytest.mark.parametrize("said_first", [b"", NGINX], ids=["any", "nginx-rtmp"])
@pytest.mark.parametrize(("kind", "before", "behind"), IN_FLV)
def test_a_live_flv_whose_codec_becomes_another_one_is_read_no_further(
    server, tmp_path, kind, before, behind, said_first
):
    server.films["/live.flv"] = spliced_flv(tmp_path, before, behind, said_first=said_first), 0.01
    demuxer = Demuxer("film", f"{server.url}/live.flv", Settings(read_timeout=5), now=clock)
    made = []
    with pytest.raises(SourceUnavailable, match=f'source "film": its {kind} is of another codec now'):
        while not demuxer.ended:
            made += demuxer.read()
    demuxer.close()
    assert made[-1].dts_ns < 4.5 * NS  # a second behind the first part, which began at one


@pytest.mark.parametrize("behind", [("libx264", None), (None, "aac")], ids=["microphone", "camera"])
def test_a_live_flv_of_which_a_kind_is_off_for_a_while_is_read_on(server, tmp_path, behind):
    both = "libx264", "aac"
    for part in ("off", "on"):
        (tmp_path / part).mkdir()
    stream = spliced_flv(tmp_path / "off", both, behind)
    _, back = recoded(tmp_path / "on", both, both, suffix="flv", **LIVE_FLV, output_ts_offset="6")
    server.films["/live.flv"] = stream + back.read_bytes()[len(flv.header()) :], 0.01
    demuxer = Demuxer("film", f"{server.url}/live.flv", Settings(read_timeout=5), now=clock)
    made = []
    with suppress(SourceUnavailable):  # so what is live may end
        while not demuxer.ended:
            made += demuxer.read()
    demuxer.close()
    assert sum(packet.is_video for packet in made) == (180 if behind[0] is None else 300)
    assert made[-1].dts_ns > 10.5 * NS


USELESS = {"scrambled": ("mp2", scrambled), "called MPEG's": ("aac", lambda stream: called(stream, 3, place=1))}


@pytest.mark.parametrize(("codec", "made"), USELESS.values(), ids=USELESS)
def test_a_live_programme_whose_sound_was_never_of_its_codec_is_read_to_its_end(server, tmp_path, codec, made):
    film = encode(tmp_path / "film.ts", Video(), Audio(codec, options={"b": "384k"}), seconds=16)
    server.films["/live.ts"] = made(film.read_bytes()), 0.01
    demuxer = Demuxer("film", f"{server.url}/live.ts", Settings(read_timeout=5), now=clock)
    pictures = []
    with suppress(SourceUnavailable):  # so what is live may end
        while not demuxer.ended:
            pictures += [packet for packet in demuxer.read() if packet.is_video]
    demuxer.close()
    assert len(pictures) >= 478  # libav keeps the last ones of a stream that breaks off


@pytest.mark.parametrize(("suffix", "cases"), [("ts", RECODED), ("flv", IN_FLV)])
async def test_a_live_programme_whose_codec_becomes_another_one_is_opened_again(
    station, server, tmp_path, suffix, cases
):
    first, second = recoded(tmp_path, *cases[0][1:], suffix=suffix, **LIVE_FLV)
    head = len(flv.header()) if suffix == "flv" else 0
    server.films["/live"] = first.read_bytes() + second.read_bytes()[head:], 3
    station.pull(f"{server.url}/live")
    await station.receive(until=lambda got: len(got) > 3)
    server.films["/live"] = second.read_bytes(), 2
    await station.receive(until=lambda got: got.count(None) == 1)
    assert (await station.state("retrying")).error == f'source "{NAME}": its sound is of another codec now'
    got = await station.receive(until=lambda got: len(got) > got.index(None) + 100)
    assert {packet.track.codec for packet in got[got.index(None) + 1 :]} == {"h264", "ac3" if suffix == "ts" else "mp3"}
    await station.stop()


def test_of_a_file_whose_codec_becomes_another_one_the_rest_is_read(tmp_path):
    path = tmp_path / "film.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in recoded(tmp_path, *RECODED[0][1:])))
    assert numbers(demuxed(path, most=10**4)) == [*range(60), *range(120)]


async def test_what_is_not_there_is_said_in_one_sentence(station, server):
    station.pull(f"{server.url}/none.ts")
    assert (await station.state("retrying")).error == f'source "{NAME}": server returned 404 Not Found'


async def test_cancelling_does_not_wait_for_a_silent_peer(nursery, server, media):
    station = Station(nursery, Settings(open_timeout=2, read_timeout=60))
    server.films["/stalls.ts"] = media.path("transport").read_bytes()[: 188 * 200], None
    station.pull(f"{server.url}/stalls.ts")
    await station.receive(until=lambda got: len(got) > 3)
    await station.stop()
    assert station.hub.streams() == []


def test_a_playlist_from_the_network_reads_no_files(server, media):
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{media.path('transport')}\n#EXT-X-ENDLIST\n"
    server.films["/list.m3u8"] = playlist.encode(), 0
    with pytest.raises((SourceMalformed, SourceUnavailable, SourceUnsupported)):
        Demuxer("film", f"{server.url}/list.m3u8", Settings(), now=clock).read()


def test_a_list_of_files_that_names_itself_is_refused(server, tmp_path):
    listing = "ffconcat version 1.0\nfile list.ffconcat\nduration 10\n"
    (tmp_path / "list.ffconcat").write_text(listing)
    server.films["/list.ffconcat"] = listing.encode(), 0
    for url in (str(tmp_path / "list.ffconcat"), f"{server.url}/list.ffconcat"):
        with pytest.raises(SourceMalformed) as caught:
            Demuxer("film", url, Settings(), now=clock)
        assert str(caught.value) == 'source "film": not media of a format that is taken'


async def test_segments_are_sent_in_real_time(station, server, tmp_path):
    film = encode(tmp_path / "film.ts", Video(gop=30), TONE, seconds=2)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfilm.ts\n#EXT-X-ENDLIST\n"
    server.films |= {"/list.m3u8": (playlist.encode(), 0), "/film.ts": (film.read_bytes(), 0)}
    station.pull(f"{server.url}/list.m3u8")
    got = await station.receive(until=lambda got: None in got)
    spread = got[-2].arrival - got[0].arrival
    assert spread == pytest.approx(2 * NS, abs=0.3 * NS)
    assert (await station.state("ended")).retries == 0


def test_segments_with_all_pictures_in_front_of_all_sound_come_in_the_order_of_time(tmp_path):
    made = demuxed(fragmented(tmp_path / "film.m3u8", seconds=8, each=4), most=10**4)
    assert [packet.dts_ns for packet in made] == sorted(packet.dts_ns for packet in made)
    assert numbers(made) == list(range(240))
    assert len(sound(made)) >= 8 * 48_000


def test_fragmented_segments_whose_time_goes_back_behind_a_discontinuity_are_all_shown(tmp_path):
    film = fragmented(tmp_path / "film.m3u8", seconds=4, each=2)
    made = demuxed(played_twice(tmp_path / "twice.m3u8", film), most=10**4)
    assert numbers(made) == 2 * list(range(120))
    pictures = [packet for packet in made if packet.is_video]
    assert max(seconds(b) - seconds(a) for a, b in pairwise(pictures)) < Fraction(1, 8)


def under_other_pids(stream, pids):
    """A transport stream of libav's whose programme has other PIDs, by those that it had (ISO 13818-1 2.4.4.8)."""
    packets = [bytearray(stream[at : at + 188]) for at in range(0, len(stream), 188)]
    for packet in packets:
        pid = (packet[1] & 0x1F) << 8 | packet[2]
        stop = 8 + (packet[6] << 8 & 0xF00 | packet[7])
        # In the map the PID of the clock comes first, then each stream's, behind its type.
        for at in [1] if pid in pids else [13, *range(18, stop - 4, 5)] if pid == 0x1000 else []:
            named = (packet[at] & 0x1F) << 8 | packet[at + 1]
            packet[at : at + 2] = (packet[at] & 0xE0 | pids[named] >> 8, pids[named] & 0xFF)
        if pid == 0x1000:
            packet[stop - 4 : stop] = transport_crc(packet[5 : stop - 4])
    return b"".join(packets)


@pytest.mark.parametrize("pids", [{256: 300, 257: 257}, {256: 256, 257: 300}, {256: 300, 257: 301}])
def test_segments_behind_a_discontinuity_are_shown_and_heard_whichever_of_their_pids_are_others(tmp_path, pids):
    film = encode(tmp_path / "film.m3u8", Video(gop=30), TONE, seconds=6, hls_time="2", hls_list_size="0")
    film.write_text(film.read_text().replace("#EXTINF", "#EXT-X-DISCONTINUITY\n#EXTINF"))
    other = tmp_path / "film1.ts"
    other.write_bytes(under_other_pids(other.read_bytes(), pids))
    made = demuxed(film, most=10**4)
    shown = numbers(made)
    assert shown == sorted(set(shown))
    assert set(range(180)) - set(shown) <= {59, 119}  # libav keeps the last one of a PID that falls silent
    assert len(sound(made)) == pytest.approx(6 * 48_000, rel=0.02)


def test_a_segment_is_given_on_before_the_next_one_is_there(server, tmp_path):
    whole = fragmented(tmp_path / "film.m3u8", seconds=8, each=4).read_text()
    server.films |= {f"/{file.name}": (file.read_bytes(), 0) for file in tmp_path.iterdir()}
    server.films["/live.m3u8"] = whole[: whole.index("film1.m4s")].rpartition("#EXTINF")[0].encode(), 0
    demuxer = Demuxer("film", f"{server.url}/live.m3u8", Settings(read_timeout=6), now=clock)
    made = []
    while not made or seconds(made[-1]) - seconds(made[0]) < 3.5:
        made += demuxer.read()
    demuxer.close()
    assert server.asked.count("/live.m3u8") == 1  # nobody looked for the next one yet


@pytest.mark.parametrize("name", ["cam.mpjpeg", "cam.h264"])
def test_what_has_no_time_stamps_is_on_when_it_comes(server, tmp_path, name):
    video = Video("mjpeg", pix_fmt="yuvj420p") if name == "cam.mpjpeg" else Video()
    film = encode(tmp_path / name, video, None, seconds=2, **({"format": "mpjpeg"} if name == "cam.mpjpeg" else {}))
    server.films[f"/{name}"] = film.read_bytes(), 1
    demuxer = Demuxer("film", f"{server.url}/{name}", Settings(), now=clock)
    made = []
    with suppress(SourceUnavailable):  # nothing says that it is the end
        while not demuxer.ended:
            made += demuxer.read()
    demuxer.close()
    assert numbers(made)[:50] == list(range(50))
    began = made[0].pts_ns - made[0].arrival
    assert all(packet.pts_ns - packet.arrival == pytest.approx(began, abs=2_000_000) for packet in made)


def playlist(stop, *, ended=False):
    """Segments [0, stop) of a second each."""
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n"
    segments = "".join(f"#EXTINF:1,\nfilm{n}.ts\n" for n in range(stop))
    return (head + segments + "#EXT-X-ENDLIST\n" * ended).encode(), 0


async def test_a_live_playlist_is_not_sent_again_when_it_stands_still_or_has_ended(nursery, server, tmp_path):
    station = Station(nursery, Settings(open_timeout=2, read_timeout=1))
    encode(tmp_path / "film.m3u8", Video(gop=30), TONE, seconds=9, hls_time="1", hls_list_size="0")
    server.films |= {f"/{file.name}": (file.read_bytes(), 0) for file in tmp_path.glob("*.ts")}
    server.films["/live.m3u8"] = playlist(3)
    station.pull(f"{server.url}/live.m3u8")
    await station.receive(until=lambda got: None in got)
    with trio.fail_after(30):
        while station.one.status().retries < 2:  # one try found nothing new
            await trio.sleep(0.01)
    assert station.hub.streams() == []
    server.films["/live.m3u8"] = playlist(6)
    await station.receive(until=lambda got: got.count(None) == 2)
    server.films["/live.m3u8"] = playlist(9, ended=True)
    await station.state("ended")
    pictures = [packet for packet in station.packets if packet and packet.is_video]
    assert numbers(pictures) == sorted(set(numbers(pictures)))
    assert numbers(pictures)[-1] >= 120


@pytest.mark.parametrize("order", [range(9), [*range(5, 9), *range(5)], [*range(2, 9), *range(2)]])
def test_a_live_playlist_of_fragmented_mp4_goes_on_as_it_was_when_it_is_opened_anew(
    server, tmp_path, monkeypatch, order
):
    """Also where time went back before, and where it does so later; libav would remember each packet there ever was."""
    monkeypatch.setattr("engine.sources.demux.INDEXED", 500)
    film = fragmented(tmp_path / "film.m3u8", seconds=9, each=1)
    whole = film.read_text().removesuffix("#EXT-X-ENDLIST\n")
    head, *segments = whole.split("#EXTINF")
    listed = head + "".join(f"#EXTINF{segments[n]}" + "#EXT-X-DISCONTINUITY\n" * (n == 8) for n in order)
    server.films |= {f"/{file.name}": (file.read_bytes(), 0) for file in tmp_path.iterdir()}
    stages = [listed.rpartition(f"#EXTINF{segments[order[n]]}")[0] for n in (3, 8)] + [f"{listed}#EXT-X-ENDLIST\n"]
    server.films["/live.m3u8"] = stages[0].encode(), 0
    url, read_before = f"{server.url}/live.m3u8", deque(maxlen=READ_MOST)
    demuxer = Demuxer("film", url, Settings(read_timeout=6), now=clock, read_before=read_before)
    made = []
    while not demuxer.ended:
        made += demuxer.read()
        stage = (len(made) > 100) + (server.asked.count(f"/film{order[4]}.m4s") > 1)
        server.films["/live.m3u8"] = stages[stage].encode(), 0
    demuxer.close()
    assert server.asked.count(f"/film{order[4]}.m4s") == 2
    assert numbers(made) == [30 * n + k for n in order for k in range(30)]
    assert len(sound(made)) == pytest.approx(9 * 48_000, rel=0.01)
    for kind in (True, False):
        steps = [seconds(b) - seconds(a) for a, b in pairwise(p for p in made if p.is_video is kind)]
        assert 0 <= min(steps) <= max(steps) < Fraction(1, 8)


async def test_a_live_playlist_that_ends_while_it_is_read_is_over(station, server, tmp_path):
    encode(tmp_path / "film.m3u8", Video(gop=30), TONE, seconds=4, hls_time="1", hls_list_size="0")
    server.films |= {f"/{file.name}": (file.read_bytes(), 0) for file in tmp_path.glob("*.ts")}
    server.films["/live.m3u8"] = playlist(3)
    station.pull(f"{server.url}/live.m3u8")
    await station.state("publishing")
    server.films["/live.m3u8"] = playlist(4, ended=True)
    got = await station.receive(until=lambda got: None in got)
    assert numbers([packet for packet in got if packet]) == list(range(120))
    await station.state("ended")
    assert station.hub.streams() == []


async def test_a_film_in_hls_whose_last_segments_do_not_come_is_tried_again(station, server, tmp_path):
    encode(tmp_path / "film.m3u8", Video(gop=30), TONE, seconds=4, hls_time="1", hls_list_size="0")
    segments = {f"/{file.name}": (file.read_bytes(), 0) for file in tmp_path.glob("*.ts")}
    server.films |= {**segments, "/film.m3u8": playlist(4, ended=True)}
    for n in (2, 3):
        del server.films[f"/film{n}.ts"]
    station.pull(f"{server.url}/film.m3u8")
    await station.receive(until=lambda got: None in got)
    status = await station.state("retrying")
    assert status.error == f'source "{NAME}": it ends before its playlist does'
    server.films |= segments
    await station.receive(until=lambda got: len(got) > 300 and got[-1] is None)
    pictures = [packet for packet in station.packets if packet and packet.is_video]
    assert numbers(pictures)[-120:] == list(range(120))
    await station.state("ended")


@pytest.mark.parametrize("stands_still", [True, False])
async def test_a_hole_in_a_live_playlist_is_waited_out_as_far_as_nothing_was_late(
    nursery, server, tmp_path, stands_still
):
    station = Station(nursery, Settings(open_timeout=9, read_timeout=9))
    encode(tmp_path / "film.m3u8", Video(gop=30), TONE, seconds=5, hls_time="1", hls_list_size="0")
    server.films |= {f"/{file.name}": (file.read_bytes(), 0) for file in tmp_path.glob("*.ts")}
    del server.films["/film3.ts"]
    server.films["/live.m3u8"] = playlist(2 if stands_still else 5)
    began = clock()
    station.pull(f"{server.url}/live.m3u8")
    if stands_still:
        await station.receive(until=lambda got: len(got) > 60)
        while clock() < began + 3 * NS:
            await trio.sleep(0.01)
        server.films["/live.m3u8"] = playlist(5)
    got = await station.receive(until=lambda got: any(b.dts_ns - a.dts_ns > NS / 2 for a, b in pairwise(got)))
    before, behind = next((a, b) for a, b in pairwise(got) if b.dts_ns - a.dts_ns > NS / 2)
    as_asked = began + behind.dts_ns - got[0].dts_ns
    assert behind.arrival >= as_asked  # or the publisher would be overtaken in the end
    if stands_still:
        assert behind.arrival - before.arrival < NS / 2


@pytest.mark.parametrize("first", ["large", "small"])
def test_of_several_variants_only_the_largest_is_fetched(server, tmp_path, first):
    """The sound is that of the same variant; the other is looked at when it is opened, then it may be down."""
    master = "#EXTM3U\n"
    variants = ("large", (128, 72), "aac"), ("small", (64, 36), "mp2")
    for name, size, codec in variants if first == "large" else reversed(variants):
        (tmp_path / name).mkdir()
        video, playlist = Video(size=size, gop=30), tmp_path / name / "list.m3u8"
        encode(playlist, video, Audio(codec), seconds=8, hls_time="1", hls_list_size="0")
        master += f"#EXT-X-STREAM-INF:BANDWIDTH={1000 * size[0]}\n{name}/list.m3u8\n"
        for file in (tmp_path / name).iterdir():
            is_down = name == "small" and file.name in ("list5.ts", "list6.ts", "list7.ts")
            server.films[f"/{name}/{file.name}"] = (b"", None) if is_down else (file.read_bytes(), 0)
    server.films["/master.m3u8"] = master.encode(), 0
    demuxer = Demuxer("film", f"{server.url}/master.m3u8", Settings(open_timeout=2, read_timeout=2), now=clock)
    made = []
    while not demuxer.ended:
        made += demuxer.read()
    demuxer.close()
    assert {packet.track.width or packet.track.codec for packet in made} == {128, "aac"}
    assert numbers(made) == list(range(240))
    assert len(sound(made)) >= 8 * 48_000
    assert {f"/large/list{n}.ts" for n in range(8)} < set(server.asked)
    assert not {f"/small/list{n}.ts" for n in range(4, 8)} & set(server.asked)
