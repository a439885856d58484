"""What a publisher's media become: tracks told by their extradata, time stamps that can be used, relayed bodies."""

import io
from fractions import Fraction
from itertools import pairwise

import av
import msgspec
import pytest
import trio

from engine.rtmp import Metadata, flv
from engine.sinks.flow import Fmp4Flow
from engine.sources.ingest import Ingest
from engine.stream import Hub
from tests.engine.clips import pictures, publish
from tests.engine.peers import ASC, AVCC, OPENING, SOUND_OPENING, picture, sound
from tests.media import Audio, Video, encode, late_flv

MS = 1_000_000
BATCH = 30 * MS  # in which packets are read


class Clock:
    """ns that go on by a step with every look."""

    def __init__(self, step_ms=40):
        self.now, self.step = 0, step_ms * MS

    def __call__(self):
        self.now += self.step
        return self.now


def taken(*media, clock=None):
    """The packets of media, and who took them."""
    ingest = Ingest("live/x", clock or Clock())
    packets = [ingest.take(each) for each in media]
    return [packet for packet in packets if packet is not None], ingest


def moved(media, dts):
    return msgspec.structs.replace(media, dts=dts)


def stamps(dts, clock=None):
    """The dts that pictures with these come to have, and how many were repaired."""
    packets, ingest = taken(OPENING, *[moved(picture(0), each) for each in dts], clock=clock)
    assert all(packet.pts - packet.dts == 40 for packet in packets)
    assert [packet.shared.media.dts for packet in packets] == [packet.dts for packet in packets]
    return [packet.dts for packet in packets], ingest.repaired


def test_packets_are_as_they_came():
    first, second = picture(1, keyframe=True), picture(2)
    (one, two, three), ingest = taken(OPENING, first, second, SOUND_OPENING, sound(3))
    assert (one.data, one.dts, one.pts, one.keyframe, one.arrival) == (first.data, 40, 80, True, 40 * MS)
    assert (two.keyframe, three.keyframe, three.dts) == (False, True, 60)
    assert one.shared.media is first
    assert one.track is two.track
    assert ingest.repaired == ingest.ignored == 0


def test_tracks_tell_size_and_sound_format_by_their_extradata():
    (one, two), _ = taken(
        Metadata({"width": 1.0, "audiosamplerate": 1.0}), OPENING, SOUND_OPENING, picture(0), sound(0)
    )
    video, audio = one.track, two.track
    assert (video.kind, video.codec, video.extradata, video.width, video.height) == ("video", "h264", AVCC, 64, 36)
    assert (audio.kind, audio.codec, audio.extradata, audio.rate, audio.channels) == ("audio", "aac", ASC, 48_000, 2)


def test_metadata_say_what_extradata_do_not():
    fields = {"width": 1920.0, "height": 1080.0, "audiosamplerate": 48_000.0, "audiochannels": 6.0}
    vp9 = flv.video_packet(b"vp9", dts=0, pts=0, keyframe=True, codec="vp9")
    ac3 = flv.audio_packet(b"ac3", dts=0, codec="ac3")
    (one, two), _ = taken(Metadata({"width": 3.0}, name="onCuePoint"), Metadata(fields), vp9, ac3)
    assert (one.track.codec, one.track.width, one.track.height) == ("vp9", 1920, 1080)
    assert (two.track.codec, two.track.rate, two.track.channels) == ("ac3", 48_000, 6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -5.0, 0.0, 1e9, "wide", None, {}])
def test_metadata_that_make_no_sense_are_unknown(value):
    vp9 = flv.video_packet(b"vp9", dts=0, pts=0, keyframe=True, codec="vp9")
    (packet,), _ = taken(Metadata({"width": value, "height": value}), vp9)
    assert (packet.track.width, packet.track.height) == (0, 0)


@pytest.mark.parametrize(
    ("body", "codec", "rate", "channels"),
    [
        (b"\x2f...", "mp3", 44_100, 2),
        (b"\x2a...", "mp3", 22_050, 1),
        (b"\x72...", "pcm_alaw", 8000, 1),
        (b"\xb2...", "speex", 16_000, 1),
        (b"\x91Opus...", "opus", 48_000, 2),
    ],
)
def test_sound_without_extradata_has_a_track_at_its_first_packet(body, codec, rate, channels):
    (one, two), _ = taken(flv.audio(0, body), flv.audio(20, body))
    assert (one.track.codec, one.track.rate, one.track.channels) == (codec, rate, channels)
    assert one.track is two.track


def test_opus_tells_its_channels():
    head = flv.audio_extradata(b"OpusHead\1\6" + bytes(9), dts=0, codec="opus")
    (packet,), _ = taken(head, flv.audio_packet(b"opus", dts=0, codec="opus"))
    assert (packet.track.rate, packet.track.channels) == (48_000, 6)


def test_the_same_extradata_again_are_the_same_track_and_others_another():
    other = flv.video_extradata(AVCC + b"\0", dts=0)
    packets, _ = taken(OPENING, picture(0), OPENING, picture(1), other, picture(2), OPENING, picture(3))
    tracks = [packet.track for packet in packets]
    assert tracks[0] is tracks[1]
    assert len({id(track) for track in tracks}) == 3


def test_another_codec_is_another_track():
    hvcc = flv.video_extradata(b"hvcC", dts=0, codec="hevc")
    hevc = flv.video_packet(b"hevc", dts=40, pts=80, keyframe=True, codec="hevc")
    (one, two), _ = taken(OPENING, picture(0), hvcc, hevc)
    assert (one.track.codec, two.track.codec) == ("h264", "hevc")


def test_what_cannot_be_decoded_is_ignored_and_counted():
    empty = flv.video(0, b"\x17\1\0\0\0")
    hevc = flv.video_packet(b"hevc", dts=0, pts=0, keyframe=True, codec="hevc")
    command = flv.video(0, b"\x57\0")
    no_extradata = flv.video_extradata(b"", dts=0)
    end = flv.video(0, b"\x17\2\0\0\0")
    packets, ingest = taken(picture(0), sound(0), no_extradata, OPENING, empty, hevc, command, end, picture(1))
    assert [packet.dts for packet in packets] == [40]
    assert ingest.ignored == 6


def test_good_stamps_are_left_alone():
    dts = [0, 40, 41, 5000, 10**10, 10**10 + 40]
    assert stamps(dts) == (dts, 0)


def test_a_repeated_stamp_is_as_much_later_as_the_packet_came():
    assert stamps([100, 140, 140, 180, 220]) == ([100, 140, 180, 181, 220], 2)


def test_a_publisher_without_stamps_has_those_of_arrival():
    assert stamps([0] * 100) == (list(range(0, 4000, 40)), 99)


@pytest.mark.parametrize("every", [Fraction(1000, 30), Fraction(1024, 48)])
def test_a_publisher_without_stamps_stays_with_the_clock(every):
    clock = Clock(every)
    dts, _ = stamps([0] * 5000, clock=lambda: int(clock()) // BATCH * BATCH)
    assert dts[-1] - dts[0] == pytest.approx(clock.now / MS, abs=3 * BATCH / MS)


def test_packets_that_come_together_with_one_stamp_are_a_millisecond_apart():
    assert stamps([7, 7, 7], clock=Clock(0)) == ([7, 8, 9], 2)


def test_stamps_that_step_back_go_on_by_a_millisecond():
    assert stamps([100, 140, 120, 139, 160]) == ([100, 140, 141, 142, 160], 2)


@pytest.mark.parametrize("back", [1000, 3_600_000])
def test_a_jump_back_is_a_jump(back):
    assert stamps([back + 500, 500, 540]) == ([back + 500, 500, 540], 0)


def test_stamps_below_zero_are_from_zero_on():
    assert stamps([-80, -40, 0, 40]) == ([0, 1, 2, 40], 3)


def coded(times):
    """When pictures that came with these dts and pts are decoded and shown."""
    bodies = [flv.video_packet(b"p", dts=dts, pts=pts, keyframe=dts == 0) for dts, pts in times]
    packets, _ = taken(OPENING, *bodies)
    found = [(packet.dts, packet.pts) for packet in packets]
    assert all(a.dts < b.dts or b.dts == 0 for a, b in pairwise(packets))
    assert [(packet.shared.media.dts, packet.shared.media.pts) for packet in packets] == found
    return found


def test_pictures_that_are_shown_before_they_are_coded_are_decoded_earlier():
    group = [(0, 0), (40, 160), (80, 80), (120, 40), (160, 120)]  # I P B b b
    film = [(at + dts, at + pts) for at in range(0, 1000, 200) for dts, pts in group]
    given = coded(film)
    assert given[:5] == [(0, 0), (40, 160), (80, 80), (81, 81), (82, 120)]
    assert given[5:] == [(dts - 80, pts) for dts, pts in film[5:]]


def test_pictures_that_are_shown_before_they_are_coded_for_the_first_time_in_mid_stream_are_decoded_earlier_from_then():
    before = [(dts, dts + 40) for dts in range(0, 1000, 40)]
    given = coded([*before, (1000, 850), (1040, 1080), (1080, 1120), (1120, 1160), (1160, 1200)])
    assert given == [*before, (961, 961), (962, 1080), (963, 1120), (970, 1160), (1010, 1200)]


def test_pictures_that_are_shown_longer_before_than_encoders_reorder_change_no_others():
    assert coded([(0, 0), (40, 40), (80, -8000), (120, 120)]) == [(0, 0), (40, 40), (80, -8000), (120, 120)]
    assert coded([(5000, 4900), (5040, 3000), (5080, 5080)]) == [(4900, 4900), (4940, 3000), (4980, 5080)]


def test_that_pictures_are_decoded_earlier_is_said_once_and_is_no_repair_of_each(caplog):
    times = [(0, 0), (40, 160), (80, 80), (120, 40), (160, 120), (200, 320), (240, 240), (280, 180), (320, 280)]
    bodies = [flv.video_packet(b"p", dts=dts, pts=pts, keyframe=dts == 0) for dts, pts in times]
    packets, ingest = taken(OPENING, *bodies)
    assert packets[-1].dts < times[-1][0]
    assert ingest.repaired == 0
    assert [record.getMessage() for record in caplog.records] == [
        "live/x: pictures are shown before their dts, which are taken as earlier from now on"
    ]


def test_a_jump_to_zero_is_one_also_where_pictures_are_decoded_earlier():
    film = [(5000, 4900), (5040, 5040), (0, 40), (40, 80), (80, 120), (120, 160)]
    assert coded(film) == [(4900, 4900), (4940, 5040), (0, 40), (1, 80), (2, 120), (20, 160)]


async def shown(path):
    """When the pictures of an FLV, which is published, are shown to who plays it as MP4, s after its first sound."""
    hub, ingest = Hub(lambda: 0), Ingest("live/cam", Clock(10))
    publication = publish(hub)
    with Fmp4Flow(hub.read("live/cam")) as flow, trio.fail_after(30):
        for tag in flv.tags(path.read_bytes()[13:]):
            media = {flv.VIDEO: flv.video, flv.AUDIO: flv.audio}.get(tag.kind)
            packet = None if media is None else ingest.take(media(tag.timestamp, tag.body))
            if packet is not None:
                publication.send(packet)
        publication.close()
        data = b""
        with pytest.raises(trio.EndOfChannel):
            while True:
                data += await flow.receive()
    with av.open(io.BytesIO(data)) as container:
        zero = next(frame.time for frame in container.decode(audio=0))
    return [float(t) - zero for t, _ in pictures(data)]


async def test_pictures_that_are_shown_before_they_are_coded_play_in_step_with_their_sound(tmp_path):
    film = encode(tmp_path / "film.flv", Video(rate=Fraction(25), bframes=3, gop=25), Audio(), seconds=4)
    late = late_flv(tmp_path / "late.flv", film, 160)
    assert [round(t, 2) for t in await shown(late)][8:] == [round(t, 2) for t in await shown(film)][8:]


def test_sound_and_picture_are_repaired_apart():
    packets, ingest = taken(OPENING, SOUND_OPENING, moved(picture(0), 500), moved(sound(0), 400), moved(sound(1), 420))
    assert [packet.dts for packet in packets] == [500, 400, 420]
    assert ingest.repaired == 0


def test_repairs_are_told_once(caplog):
    stamps([0] * 10)
    assert [record.getMessage() for record in caplog.records] == [
        "live/x: dts 0 ms of video is taken as 40; others are counted"
    ]


def test_bodies_of_other_dialects_are_written_anew():
    """HEVC with number 12, which is no standard, and H.264 and AAC by their FourCC."""
    hvcc, hevc = flv.video(0, b"\x1c\0\0\0\0hvcC"), flv.video(0, b"\x1c\1\0\0\0hevc")
    avcc, avc = flv.video(40, b"\x90avc1" + AVCC), flv.video(40, b"\x93avc1avc.")
    config, aac = flv.audio(0, b"\x90mp4a" + ASC), flv.audio(0, b"\x91mp4aaac.")
    packets, _ = taken(hvcc, hevc, avcc, avc, config, aac)
    assert [packet.shared.media.body for packet in packets] == [b"\x93hvc1hevc", b"\x17\1\0\0\0avc.", b"\xaf\1aac."]
