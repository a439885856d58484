"""What a client of a flow gets is a film that PyAV plays: from the last keyframe on, whatever the publisher does."""

import io
from fractions import Fraction

import av
import pytest
import trio
import trio.testing

from engine import stream
from engine.config import Settings
from engine.errors import SinkRejected
from engine.packet import Packet, Track
from engine.rtmp import flv
from engine.sinks.flow import Flow, FlvFlow, Fmp4Flow
from engine.sources.demux import Demuxer
from engine.stream import Hub
from tests.engine.clips import (
    NS,
    decode_times,
    interrupted,
    packets,
    pictures,
    publish,
    sounds,
    unseen,
    until_the_second_keyframe,
)
from tests.media import Audio, Video, encode

MS = Fraction(1, 1000)


@pytest.fixture
def hub():
    return Hub(lambda: 0)


async def rest(flow: Flow):
    """All bytes until the publisher goes, call by call."""
    calls = []
    with trio.fail_after(30), pytest.raises(trio.EndOfChannel):
        while True:
            calls.append(await flow.receive())
    return calls


def heard_in_flv(data):
    """The bodies of all sound in an FLV."""
    bodies = [flv.audio(tag.timestamp, tag.body) for tag in flv.tags(data[13:]) if tag.kind == flv.AUDIO]
    return [body.data for body in bodies if body.kind == "packet"]


async def parts(hub, make, film):
    """What a client gets, call by call, of a film that is published while it reads."""
    publication = publish(hub)
    with make(hub.read("live/cam")) as flow:
        for packet in film:
            publication.send(packet)
        publication.close()
        return await rest(flow)


async def whole(hub, make, film):
    """What it gets in all."""
    return b"".join(await parts(hub, make, film))


@pytest.mark.parametrize("make", [FlvFlow, Fmp4Flow])
async def test_a_player_sees_every_picture_and_hears_every_sound(hub, media, make):
    film = packets(media.path("plain"), units=MS, durations=False, start=5)
    data = await whole(hub, make, film)
    assert [number for _, number in pictures(data)] == list(range(60))
    in_step = [packet for packet in film if not packet.is_video and packet.dts >= film[0].dts]
    assert len(sounds(data)) == len(in_step)


@pytest.mark.parametrize("make", [FlvFlow, Fmp4Flow])
@pytest.mark.parametrize("name", ["video_only", "audio_only"])
async def test_a_stream_of_one_kind(hub, media, make, name):
    data = await whole(hub, make, packets(media.path(name), start=1))
    with av.open(io.BytesIO(data)) as container:
        assert [stream.type for stream in container.streams] == [name.split("_")[0]]
        assert len(list(container.decode())) > 25


async def test_hevc_goes_as_enhanced_flv(hub, tmp_path):
    path = encode(tmp_path / "a.mkv", Video("libx265"), None)
    data = await whole(hub, FlvFlow, packets(path, start=1))
    assert len(pictures(data)) == 30


def phone_film(media, tmp_path):
    """A picture with the sound of a telephone, as many cameras have it."""
    path = encode(tmp_path / "phone.wav", None, Audio("pcm_mulaw", rate=8000, layout="mono"), seconds=1)
    context = Track(kind="audio", codec="pcm_mulaw", rate=8000, channels=1, time_base=Fraction(1, 8000))
    with av.open(str(path)) as container:
        coded = b"".join(map(bytes, container.demux()))
    blocks = [
        Packet(context, coded[at : at + 160], pts=at, dts=at, arrival=at * NS // 8000) for at in range(0, 8000, 160)
    ]
    return sorted([*packets(media.path("video_only"), units=MS), *blocks], key=lambda packet: packet.arrival), coded


async def test_the_sound_of_a_telephone_goes_as_flv_has_it(hub, media, tmp_path):
    film, coded = phone_film(media, tmp_path)
    data = await whole(hub, FlvFlow, film)
    with av.open(io.BytesIO(data)) as container:
        sound = container.streams.audio[0].codec_context
        assert (sound.name, sound.sample_rate, sound.channels) == ("pcm_mulaw", 8000, 1)
        assert b"".join(bytes(packet) for packet in container.demux(audio=0)) == coded
    assert len(pictures(data)) == 30


@pytest.mark.parametrize("rate", [44_100, 48_000])
async def test_mp3_of_an_avi_is_heard(hub, tmp_path, rate):
    path = encode(tmp_path / "film.avi", Video(), Audio("libmp3lame", rate=rate))
    demuxer, film = Demuxer("film", str(path), Settings(), now=lambda: 0), []
    while not demuxer.ended:
        film += demuxer.read()
    data = await whole(hub, FlvFlow, film)
    assert len(pictures(data)) == 30
    assert sum(count for _, count in sounds(data)) == pytest.approx(rate, abs=4000)


async def test_what_mp4_cannot_hold_is_left_out_and_that_is_said_once(hub, media, tmp_path, caplog):
    data = await whole(hub, Fmp4Flow, phone_film(media, tmp_path)[0])
    assert len(pictures(data)) == 30
    assert caplog.messages == ["live/cam: audio in pcm_mulaw is left out for a player of MP4"]


async def test_a_client_in_the_middle_begins_with_the_keyframe(hub, media):
    publication = publish(hub)
    film = packets(media.path("plain"), start=5)
    for packet in film[: len(film) * 2 // 5]:
        publication.send(packet)
    with Fmp4Flow(hub.read("live/cam")) as flow, FlvFlow(hub.read("live/cam")) as other:
        with trio.fail_after(30):
            first, tags = await flow.receive(), await other.receive()
        assert pictures(first)[0][1] == pictures(tags)[0][1] == 15
        assert decode_times(first[first.index(b"moof") - 4 :])[0] == 0
        assert flow.mime.startswith('video/mp4; codecs="avc1.')
        assert flow.mime.endswith(', mp4a.40.2"')


@pytest.mark.parametrize("make", [FlvFlow, Fmp4Flow])
async def test_what_a_slow_client_has_not_taken_waits_where_it_is_shared(hub, media, make, monkeypatch):
    monkeypatch.setattr("engine.sinks.flow.PORTION", 100)
    publication = publish(hub)
    reader = hub.read("live/cam")
    with make(reader) as flow:
        for packet in packets(media.path("video_only")):
            publication.send(packet)
        publication.close()
        data = await flow.receive()
        assert reader.waiting > 5
        data += b"".join(await rest(flow))
    assert [number for _, number in pictures(data)] == list(range(30))


async def test_each_picture_is_sent_at_once(hub, media):
    publication = publish(hub)
    film = packets(media.path("plain"), start=5)
    with Fmp4Flow(hub.read("live/cam")) as flow:
        for packet in film[:10]:
            publication.send(packet)
        with trio.fail_after(30):
            data = await flow.receive()
            for n, packet in enumerate(film[10:20]):
                publication.send(packet)
                more = await flow.receive()
                assert more[4:8] == b"moof"
                assert more.endswith(packet.data), n
                data += more
    assert len(pictures(data)) == sum(packet.is_video for packet in film[:20])


async def test_other_tracks_begin_with_an_init_segment_and_time_goes_on(hub, media, tmp_path):
    larger = encode(tmp_path / "a.mp4", Video(size=(128, 72)), None, seconds=1)
    publication = publish(hub)
    calls, mimes = [], []
    with Fmp4Flow(hub.read("live/cam")) as flow:
        for packet in packets(media.path("video_only")) + packets(larger, start=1):
            publication.send(packet)
        publication.close()
        with trio.fail_after(30), pytest.raises(trio.EndOfChannel):
            while True:
                calls.append(await flow.receive())
                mimes.append(flow.mime)
    first, second = calls
    assert first[4:8] == second[4:8] == b"ftyp"
    assert len(pictures(first)) == 30
    assert [t for t, _ in pictures(second)] == [1 + Fraction(n, 30) for n in range(30)]
    assert all(mime.startswith('video/mp4; codecs="avc1.') for mime in mimes)


@pytest.mark.parametrize("make", [FlvFlow, Fmp4Flow])
@pytest.mark.parametrize("bframes", [0, 2])
async def test_sound_that_changes_with_the_picture_is_heard_from_its_first_packet_on(hub, tmp_path, make, bframes):
    film = interrupted(tmp_path, bframes=bframes)
    calls = await parts(hub, make, film)
    if make is FlvFlow:
        assert heard_in_flv(b"".join(calls)) == [each.data for each in film if not each.is_video]
    else:
        shots = [b"".join(calls[:-1]), calls[-1]]
        assert [number for data in shots for _, number in pictures(data)] == [*range(30), *range(30)]
        assert sum(len(sounds(data)) for data in shots) == sum(not each.is_video for each in film)


@pytest.mark.parametrize("make", [FlvFlow, Fmp4Flow])
async def test_a_keyframe_that_waits_for_its_sound_is_shown_when_the_publisher_goes(hub, tmp_path, make):
    calls = await parts(hub, make, until_the_second_keyframe(tmp_path))
    shots = [b"".join(calls)] if make is FlvFlow else [b"".join(calls[:-1]), calls[-1]]
    assert sum(len(pictures(data)) for data in shots) == 31


async def test_a_viewer_sees_on_when_the_sound_stops(hub, media):
    film = packets(media.path("plain"), times=3, units=MS, durations=False)
    without = [each for each in film if each.is_video or each.arrival < NS]
    data = await whole(hub, Fmp4Flow, without)
    last, _ = pictures(data)[-1]
    assert len(pictures(data)) == 180
    assert last - sounds(data)[-1][0] < Fraction(2, 3)
    assert len(sounds(data)) > 200


async def test_a_viewer_hears_on_when_the_picture_stops_and_sees_it_again_in_step(hub, media):
    film = packets(media.path("plain"), times=6, units=MS, durations=False)
    publication, calls, said = publish(hub), [], []
    with Fmp4Flow(hub.read("live/cam")) as flow:
        for n, packet in enumerate(unseen(film, 2, 8)):
            publication.send(packet)
            if n > 5:
                with trio.fail_after(30):
                    calls.append(await flow.receive())
                said.append((packet.arrival / NS, flow.left_out))
    data = b"".join(calls)
    assert data.count(b"ftyp") == 1  # nothing begins anew
    without = [at for at, words in said if words == "a picture for now"]
    assert 6.4 < without[0] < 6.6
    assert 7.9 < without[-1] < 8.1
    shown = [(float(at + film[0].dts * MS), number) for at, number in pictures(data)]
    assert [number for at, number in shown if 2 <= at < 7.99] == [45, 45]  # the last keyframe
    assert [each for each in shown if each[0] > 7.99] == [
        (pytest.approx(8 + n / 30, abs=0.001), n % 60) for n in range(120)
    ]
    assert len(sounds(data)) == len([each for each in film if not each.is_video and each.dts >= film[0].dts])


async def test_slides_are_shown_as_they_come(hub, tmp_path):
    path = encode(tmp_path / "a.mp4", Video(gop=3, pts_ms=tuple(range(0, 24_000, 4000))), Audio(), seconds=24)
    data = await whole(hub, Fmp4Flow, packets(path, units=MS, durations=False))
    assert [number for _, number in pictures(data)] == list(range(6))


async def test_flv_tells_new_extradata(hub, media, tmp_path):
    larger = encode(tmp_path / "a.mp4", Video(size=(128, 72)), None, seconds=1)
    data = await whole(hub, FlvFlow, packets(media.path("video_only")) + packets(larger, start=1))
    with av.open(io.BytesIO(data)) as container:
        sizes = [frame.width for frame in container.decode(video=0)]
    assert sizes == [64] * 30 + [128] * 30


async def test_a_slow_client_goes_on_at_a_keyframe_with_a_gap(hub, media, monkeypatch):
    monkeypatch.setattr(stream, "QUEUE_PACKETS", 20)
    publication = publish(hub)
    film = packets(media.path("video_only"), times=2)
    with Fmp4Flow(hub.read("live/cam")) as flow:
        for packet in film[:17]:
            publication.send(packet)
        with trio.fail_after(30):
            data = await flow.receive()
        for packet in film[17:]:  # nobody receives
            publication.send(packet)
        publication.close()
        data += b"".join(await rest(flow))
    shown = pictures(data)
    assert [number for _, number in shown[:16]] == list(range(16))  # of 17: the last two are reordered
    assert [each for each in shown if each[0] > 1] == [(Fraction(47 + n, 30), 15 + n) for n in range(15)]


async def test_a_wedged_client_costs_a_bounded_queue(hub, media, monkeypatch):
    monkeypatch.setattr(stream, "QUEUE_PACKETS", 50)
    monkeypatch.setattr(stream, "QUEUE_BYTES", 20_000)
    publication = publish(hub)
    reader, calls = hub.read("live/cam"), []

    async def follow(flow):
        calls.extend(await rest(flow))

    with Fmp4Flow(reader), FlvFlow(hub.read("live/cam")) as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, other)
            for packet in packets(media.path("plain"), times=5):
                publication.send(packet)
                await trio.testing.wait_all_tasks_blocked()
            publication.close()
        assert reader.waiting <= 51
        assert reader.dropped > 0
        assert len(pictures(b"".join(calls))) == 300


async def test_closing_ends_a_receive_that_waits(hub):
    publish(hub)
    with Fmp4Flow(hub.read("live/cam")) as flow:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rest, flow)
            await trio.testing.wait_all_tasks_blocked()
            flow.__exit__()
    assert hub.published("live/cam").status().readers == 0


@pytest.mark.parametrize("make", [FlvFlow, Fmp4Flow])
async def test_a_stream_that_cannot_be_sent_is_refused(hub, make):
    publication = publish(hub)
    track = Track(kind="video", codec="mpeg2video")
    with make(hub.read("live/cam")) as flow:
        for n in range(20):
            publication.send(Packet(track, b"x", pts=n, dts=n, arrival=n * NS // 30))
        with trio.fail_after(30), pytest.raises(SinkRejected, match="mpeg2video"):
            await flow.receive()
